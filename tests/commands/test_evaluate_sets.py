"""Evaluations of other images and other checkpoints lie beside the run's own, which they leave alone."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import replace
from pathlib import Path

import pytest

from falcon_ssl import cli, commands
from falcon_ssl.config import EvaluationConfig, FalconConfig, MonitorConfig, RunConfig
from falcon_ssl.core.errors import InputError
from falcon_ssl.engine import progress
from falcon_ssl.report import build_report

CONFIG = RunConfig(
    epochs=2,
    falcon=FalconConfig(dictionary="rademacher", num_codes=64, embed_dim=16),
    monitor=MonitorConfig(every_epochs=1),
    evaluation=EvaluationConfig(untrained=False, batch_size=256),
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
    own = json.loads(before["evaluation.json"])
    assert digits["top1_linear"] == own["top1_linear"]
    assert own["certificate"]
    assert not digits["certificate"], "the loss is of the run's own images"
    best = json.loads((run / "evaluation-best.json").read_text())
    assert best["about"]["checkpoint"] == "best"
    assert not best["certificate"], "and of its last checkpoint"
    page = build_report(run).read_text()
    assert "Other images, other checkpoints" in page
    assert "again: digits, 360 images" in page
    assert "Best of 2 epochs probed: " in page


def test_a_long_evaluation_says_what_it_is_at(
    run: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(progress, "_SOON", -1.0)
    monkeypatch.setattr(progress, "_EVERY", -1.0)
    monkeypatch.setattr(progress, "_WORTH_SAYING", 0.0)  # a fast machine has too little left
    caplog.set_level(logging.INFO, "falcon_ssl")
    commands.evaluate(run, data="digits", name="long", evaluation={"untrained": True})
    lines = "\n".join(caplog.messages)
    for network in ("trained", "untrained"):
        begun = rf"^{network} network: 256 of"
        assert re.search(rf"{begun} 360 test images, \d+ a second, about .+ left$", lines, re.M)
        assert re.search(rf"{begun} 1437 train images, \d+ a second, about .+ left$", lines, re.M)
        assert f"\n{network} network: linear probe on 1437 rows of " in lines


def test_another_folder_takes_the_numbers_of_named_sets(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a run that may not be written; a report of that folder shows them, and the run is as it was."""
    before = {path.name: path.stat().st_mtime_ns for path in run.iterdir()}
    words = ["evaluate", str(run), "--out", str(tmp_path / "records")]
    assert cli.main([*words, "--data", "first=digits", "second=digits"]) == 0
    assert cli.main(words) == 0, "again, and of the run's own images"
    printed = capsys.readouterr().out
    for name in ("evaluation-first", "evaluation-second", "evaluation"):
        assert f"all numbers: {tmp_path / 'records' / name}.json" in printed
        assert (tmp_path / "records" / f"{name}.json").is_file()
    assert "first: digits, 360 images" in build_report(tmp_path / "records").read_text()
    assert {path.name: path.stat().st_mtime_ns for path in run.iterdir()} == before


def test_records_never_go_where_another_run_lies(run: Path, tmp_path: Path) -> None:
    """They come with copies of config.yaml and metrics.jsonl, which would replace its own."""
    other = commands.pretrain(replace(CONFIG, epochs=1, seed=1), out=tmp_path / "other")
    before = (other / "config.yaml").read_text()
    with pytest.raises(InputError, match="the folder belongs to another run"):
        commands.evaluate(run, out=other)
    assert (other / "config.yaml").read_text() == before
    commands.evaluate(other, out=tmp_path / "records")
    with pytest.raises(InputError, match="the folder belongs to another run"):
        commands.evaluate(run, out=tmp_path / "records", data="digits")


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
