"""Studies of several runs: nothing is trained twice, the choice and its record agree, failures are reported."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev

import pytest

from falcon_ssl import cli, logit_scale
from falcon_ssl.commands import studies
from falcon_ssl.commands.loading import read_config
from falcon_ssl.commands.studies import runner
from falcon_ssl.config import RunConfig
from falcon_ssl.core.errors import CollapseError, InputError
from falcon_ssl.engine import RunFolder
from support.copied_runs import SMALL, CopiedRuns


def test_tune_chooses_records_and_does_nothing_twice(
    tmp_path: Path, copied_runs: CopiedRuns
) -> None:
    """Of the settings that work, the one of largest RankMe; the collapsed one has a larger one still."""
    copied_runs.numbers = lambda config: {"effective_rank_z": 10 * (config.falcon.temperature or 0)}
    copied_runs.collapsed = lambda config: config.falcon.temperature == 1e4
    grid = {"betas": [1.0], "temperatures": [0.4, 0.8, 1e4], "seeds": [0, 1]}
    found = studies.tune(SMALL, out=tmp_path, **grid)
    assert found.chosen.options == {"beta": 1.0, "temperature": 0.8}
    assert found.chosen.rankme == 8.0
    assert found.candidates[2].alarms == ("constant",)
    record = json.loads((tmp_path / "tune.json").read_text())
    assert record["chosen"] == found.chosen.options
    assert [c["options"]["temperature"] for c in record["candidates"]] == [0.4, 0.8, 1e4]
    assert record["by_labels"]["top1_knn"]["best"] >= record["by_labels"]["top1_knn"]["chosen"]
    assert len(copied_runs.trained) == 6
    assert studies.tune(SMALL, out=tmp_path, **grid) == found
    assert len(copied_runs.trained) == 6, "nothing was trained again"
    with pytest.raises(InputError, match="other values of epochs"):
        studies.tune(replace(SMALL, epochs=2), out=tmp_path, **grid)


def test_tune_refuses_an_epsilon(tmp_path: Path) -> None:
    config = replace(SMALL, falcon=replace(SMALL.falcon, epsilon=1e-8))
    with pytest.raises(InputError, match="tune chooses the temperature"):
        studies.tune(config, out=tmp_path)


def test_studies_are_about_falcon(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="this study varies options of falcon"):
        studies.tune(RunConfig(method="vicreg"), out=tmp_path)


def test_a_collapsed_setting_is_a_finding_and_nothing_but_collapse_an_error(
    tmp_path: Path, copied_runs: CopiedRuns
) -> None:
    copied_runs.collapsed = lambda config: True
    with pytest.raises(CollapseError, match="every one of 1 settings"):
        studies.tune(SMALL, out=tmp_path, betas=[0.0], temperatures=[0.4])
    assert (tmp_path / "beta0-temperature0.4-seed0" / "evaluation.json").is_file()


def test_options_that_cannot_be_built_are_refused_before_any_run(
    tmp_path: Path, copied_runs: CopiedRuns
) -> None:
    config = replace(SMALL, falcon=replace(SMALL.falcon, epsilon=0.01))
    with pytest.raises(InputError, match="rademacher-256 cannot be built"):
        studies.sweep(config, out=tmp_path, num_codes=[64, 256])
    assert not copied_runs.trained


def test_all_codes_take_the_temperature_of_the_others(
    tmp_path: Path, copied_runs: CopiedRuns
) -> None:
    """The recipe of the digits states the paper's epsilon, which of 2^128 codes means nothing."""
    command = "sweep --config digits --num_codes 64,4096 --processes 1 --out"
    assert cli.main([*command.split(), str(tmp_path)]) == 0
    falcon = read_config(RunFolder.open(tmp_path / "complete-seed0")).falcon
    assert (falcon.dictionary, falcon.epsilon) == ("complete", None)
    assert falcon.temperature == pytest.approx(128 / logit_scale(4096, 1e-8) ** 2, rel=1e-5)


def test_a_failed_run_does_not_stop_the_others_and_is_tried_again(
    tmp_path: Path, copied_runs: CopiedRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in reproduce: the failure is in the run's folder, and the command ends with it."""
    given: list[Sequence[object]] = []
    real = runner.run_processes

    def one_fails(
        jobs: Iterable[runner.Job], out: Path, environments: Sequence[object], *, logs: Path | None
    ) -> object:
        given.append(environments)
        first, *others = jobs
        (out / first.name).mkdir()
        runner._record_crash(out / first.name, -9)
        yield out / first.name
        yield from real(others, out, [], logs=logs)

    monkeypatch.setattr(runner, "run_processes", one_fails)
    wanted = ["sweep", "--out", str(tmp_path), "--num_codes", "16,32", "--processes", "2"]
    small = ["--epochs", "1", "--falcon.embed_dim", "16"]
    assert cli.main([*wanted, *small]) == 1
    assert len(given[0]) == 2, "two at a time"
    assert "killed by signal 9" in runner.read_status(tmp_path / "rademacher-16-seed0").failure
    assert [out.name for out, _ in copied_runs.trained] == ["rademacher-32-seed0", "complete-seed0"]
    assert not (tmp_path / "sweep.html").exists()
    monkeypatch.setattr(runner, "run_processes", real)
    assert cli.main([*wanted, *small]) == 0
    assert [out.name for out, _ in copied_runs.trained[2:]] == ["rademacher-16-seed0"]
    assert (tmp_path / "sweep.html").is_file()


def test_the_command_line_tunes_and_sweeps(
    tmp_path: Path, copied_runs: CopiedRuns, capsys: pytest.CaptureFixture[str]
) -> None:
    copied_runs.numbers = lambda config: {"top1_knn": 0.5 + 0.1 * config.seed}
    small = ["--epochs", "1", "--falcon.embed_dim", "16"]
    tuning = ["tune", "--out", str(tmp_path / "tune"), "--betas", "1", "--temperatures", "0.4"]
    assert cli.main([*tuning, *small]) == 0
    text = capsys.readouterr().out
    assert "use: --falcon.beta 1 --falcon.temperature 0.4" in text
    assert "which the choice did not use" in text
    assert cli.main([*tuning, "--betas", "one"]) == 2
    assert "betas has the wrong type: received 'one'" in capsys.readouterr().err
    out = str(tmp_path / "sweep")
    sweeping = ["sweep", "--out", out, "--num_codes", "16", "--seeds", "0,1"]
    assert cli.main([*sweeping, *small]) == 0
    assert (tmp_path / "sweep" / "sweep.html").is_file()
    record = json.loads((tmp_path / "sweep" / "sweep.json").read_text())
    assert record["dictionaries"].keys() == {"rademacher-16", "complete"}
    spread = record["dictionaries"]["complete"]["top1_knn"]
    assert spread == pytest.approx({"mean": mean([0.5, 0.6]), "deviation": stdev([0.5, 0.6])})


def test_a_sweep_of_one_run_is_refused_before_it_is_trained(
    tmp_path: Path, copied_runs: CopiedRuns
) -> None:
    with pytest.raises(InputError, match="a sweep compares runs"):
        studies.sweep(SMALL, out=tmp_path, num_codes=[16], complete=False)
    assert not copied_runs.trained


def test_no_runs_is_an_error(tmp_path: Path) -> None:
    assert cli.main(["tune", "--out", str(tmp_path / "x"), "--betas", "[]"]) == 2
