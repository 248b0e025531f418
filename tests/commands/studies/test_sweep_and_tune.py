"""Studies: several small real runs, resumable, and honest about collapsed ones."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from falcon_ssl import cli, commands
from falcon_ssl.commands import studies
from falcon_ssl.config import FalconConfig, MonitorConfig, RunConfig
from falcon_ssl.core.errors import CollapseError, InputError

SMALL = RunConfig(
    epochs=1,
    falcon=FalconConfig(num_codes=64, embed_dim=16),
    monitor=MonitorConfig(every_epochs=0),
)


def forbid_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **options: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(commands, "pretrain", refuse)


def test_tune_chooses_records_and_does_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = {"betas": [1.0], "temperatures": [0.4, 1e4]}
    found = studies.tune(SMALL, out=tmp_path, **grid)
    record = json.loads((tmp_path / "tune.json").read_text())
    assert record["chosen"] == found.chosen.options
    assert [c["options"]["temperature"] for c in record["candidates"]] == [0.4, 1e4]
    assert found.chosen.rankme == max(c.rankme for c in found.candidates if not c.is_broken)
    assert record["by_labels"]["top1_knn"]["best"] >= record["by_labels"]["top1_knn"]["chosen"]
    forbid_training(monkeypatch)
    assert studies.tune(SMALL, out=tmp_path, **grid) == found
    with pytest.raises(InputError, match="other values of epochs"):
        studies.tune(replace(SMALL, epochs=2), out=tmp_path, **grid)


def test_tune_refuses_an_epsilon(tmp_path: Path) -> None:
    config = replace(SMALL, falcon=replace(SMALL.falcon, epsilon=1e-8))
    with pytest.raises(InputError, match="tune chooses the temperature"):
        studies.tune(config, out=tmp_path)


def test_studies_are_about_falcon(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="this study varies options of falcon"):
        studies.tune(RunConfig(method="vicreg"), out=tmp_path)


def test_a_collapsed_setting_is_a_finding_and_nothing_but_collapse_an_error(tmp_path: Path) -> None:
    config = replace(SMALL, monitor=replace(SMALL.monitor, on_collapse="stop", patience=0))
    with pytest.raises(CollapseError, match="every one of 1 settings"):
        studies.tune(config, out=tmp_path, betas=[0.0], temperatures=[0.4])
    assert (tmp_path / "beta0-temperature0.4-seed0" / "evaluation.json").is_file()


def test_the_command_line_tunes_and_sweeps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["--epochs", "1", "--falcon.embed_dim", "16", "--monitor.every_epochs", "0"]
    out = str(tmp_path / "tune")
    tuning = ["tune", "--out", out, "--betas", "1", "--temperatures", "0.4", *small]
    assert cli.main(tuning) == 0
    text = capsys.readouterr().out
    assert "use: --falcon.beta 1 --falcon.temperature 0.4" in text
    assert "which the choice did not see" in text
    assert cli.main([*tuning[:-4], "--betas", "one"]) == 2
    assert "--betas is not a list of numbers" in capsys.readouterr().err
    out = str(tmp_path / "sweep")
    assert cli.main(["sweep", "--out", out, "--num_codes", "16", *small]) == 0
    assert (tmp_path / "sweep" / "sweep.html").is_file()
    record = json.loads((tmp_path / "sweep" / "sweep.json").read_text())
    assert record["dictionaries"].keys() == {"rademacher-16", "complete"}
    assert 0 < record["dictionaries"]["complete"]["top1_knn"]["mean"] <= 1
