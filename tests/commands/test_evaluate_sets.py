"""Evaluations of other images and other checkpoints lie beside the run's own, which they leave alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from falcon_ssl import cli, commands
from falcon_ssl.config import EvaluationConfig, FalconConfig, MonitorConfig, RunConfig
from falcon_ssl.core.errors import InputError
from falcon_ssl.report import build_report

CONFIG = RunConfig(
    epochs=2,
    falcon=FalconConfig(num_codes=64, embed_dim=16),
    monitor=MonitorConfig(every_epochs=1),
    evaluation=EvaluationConfig(untrained=False),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return commands.pretrain(CONFIG, out=tmp_path_factory.mktemp("sets") / "run")


def files(run: Path) -> dict[str, str]:
    names = ("evaluation.json", "diagnosis.json")
    return {name: (run / name).read_text() for name in names} | {
        "arrays": str((run / "arrays.npz").stat().st_mtime_ns)
    }


def test_the_runs_own_evaluation_stays(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["evaluate", str(run)]) == 0
    before = files(run)
    words = ["--data", "digits", "again=digits", "--few_labels", "0.05,3"]
    assert cli.main(["evaluate", str(run), *words]) == 0
    assert cli.main(["evaluate", str(run), "--checkpoint", "best"]) == 0
    assert files(run) == before
    printed = capsys.readouterr().out
    assert "linear probe, 3 labels a class" in printed
    assert "±" in printed
    for name in ("digits", "again", "best"):
        assert f"all numbers: {run / f'evaluation-{name}.json'}" in printed
    digits = json.loads((run / "evaluation-digits.json").read_text())
    assert 0 < digits["top1_linear_3shot"] < digits["top1_linear"]
    assert digits["top1_linear"] == json.loads(before["evaluation.json"])["top1_linear"]
    assert json.loads((run / "evaluation-best.json").read_text())["about"]["checkpoint"] == "best"
    page = build_report(run).read_text()
    assert "Other images, other checkpoints" in page
    assert "again: digits, 360 images" in page
    assert "Best of 2 epochs probed on held-out images" in page


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data", "digits", "digits"], "two sets would be written to one file"),
        (["--data", "a=b"], "unknown data: received 'b'"),
        (["--checkpoint", "first"], "no such checkpoint"),
        (["--few_labels", "0.5,x"], "few_labels has the wrong type"),
        (["--few_labels", "1.5"], "unknown amount"),
    ],
)
def test_wrong_words(
    run: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["evaluate", str(run), *words]) == 2
    assert message in capsys.readouterr().err


def test_names() -> None:
    assert commands.evaluation_name() == "evaluation.json"
    assert commands.evaluation_name(data="parquet:/data/birds 2/") == "evaluation-birds_2.json"
    assert commands.evaluation_name(data="digits", name="d", checkpoint="epoch_2") == (
        "evaluation-d-epoch_2.json"
    )
    with pytest.raises(InputError, match="cannot be that of a file"):
        commands.evaluation_name(data="digits", name="../up")
