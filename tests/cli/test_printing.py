"""Tables where the output is narrow, or no terminal at all: nothing is cut or broken."""

from __future__ import annotations

import pytest
import torch

from falcon_ssl.cli.printing import print_diagnosis
from falcon_ssl.evaluation import Diagnosis, Features, diagnose


@pytest.fixture(scope="module")
def diagnosis() -> Diagnosis:
    """With all measures: of z, u and codes, beside others."""
    generator = torch.Generator().manual_seed(0)
    z, u = torch.randn(200, 40, generator=generator), torch.randn(200, 40, generator=generator)
    features = Features(z=z, u=torch.nn.functional.normalize(u), code=torch.arange(200) % 16)
    return diagnose(features, reference=features)


@pytest.mark.parametrize("columns", [20, 80, 200])
def test_names_numbers_and_verdicts_stay_whole(
    diagnosis: Diagnosis,
    columns: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    print_diagnosis(diagnosis, beside="initial")
    printed = capsys.readouterr().out
    assert "…" not in printed
    rows = {words[0]: words[1:] for line in printed.splitlines() if (words := line.split())}
    for collapse in diagnosis.collapses:
        assert rows[collapse.name] == []
        for measure in collapse.measures:
            if measure.verdict != "unknown":
                assert measure.random is not None
                numbers = [measure.value, measure.random, measure.ideal]
                written = [f"{number:.3f}" for number in numbers if number is not None]
                assert rows[measure.name] == [*written, measure.verdict]
    assert max(map(len, printed.splitlines())) <= 80
