"""The list of runs: states from locks and records, whatever lies beside them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from falcon_ssl import cli
from falcon_ssl.config.run import RunConfig
from falcon_ssl.core.errors import InputError
from falcon_ssl.records.checkpoints import new_checkpoint
from falcon_ssl.records.folder import RunFolder
from falcon_ssl.records.listing import Listed, list_runs, run_state
from falcon_ssl.records.lock import Lock, is_locked
from support.locks import HOLD, another_process


def begun(path: Path) -> Path:
    """A run folder that nobody holds any more."""
    folder = RunFolder(path)
    folder.create(RunConfig(data="digits", epochs=4))
    folder._lock.release()  # type: ignore[union-attr]
    folder.append_metrics({"step": 5, "epoch": 0.5, "total": 3.25})
    return path


def saved(run: Path, *, finished: bool) -> Path:
    state = {
        "step": 10, "num_steps": 40, "finished": finished, "seconds": 1.0, "monitors": [], "kept_as": [],
        "optimizer": {"param_groups": [{"params": [0]}]}, "dictionary": None, "num_processes": 1,
        "num_threads": 1, "scaler": None,
    }  # fmt: skip
    with new_checkpoint(run, state, keep=1) as folder:
        for name in ("model", "training"):
            (folder / f"{name}.safetensors").write_bytes(b"")
    return run


def by_name(folder: Path) -> dict[str, Listed]:
    return {run.path.name: run for run in list_runs(folder)}


def test_states(tmp_path: Path) -> None:
    saved(begun(tmp_path / "finished"), finished=True)
    stopped = saved(begun(tmp_path / "deep" / "er" / "stopped"), finished=False)
    (stopped / "environment.json").write_text(json.dumps({"stopped_by": "SIGTERM"}))
    saved(begun(tmp_path / "killed"), finished=False)
    begun(tmp_path / "early")
    failed = saved(begun(tmp_path / "failed"), finished=True)
    (failed / "failure.txt").write_text("out of memory\n")
    with another_process(HOLD, saved(begun(tmp_path / "running"), finished=False)):
        states = {name: run.state for name, run in by_name(tmp_path).items()}
    assert states == {
        "finished": "finished", "stopped": "stopped", "killed": "failed", "early": "failed",
        "failed": "failed", "running": "running",
    }  # fmt: skip
    assert run_state(tmp_path / "running") == "failed"  # its process was killed


def test_asking_writes_nothing_and_keeps_nobody_out(tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    before = {file.name: file.stat().st_mtime_ns for file in run.iterdir()}
    assert not is_locked(run)
    assert not is_locked(tmp_path)  # no lock at all
    assert {file.name: file.stat().st_mtime_ns for file in run.iterdir()} == before
    with Lock(run):
        assert is_locked(run)  # this process too


def test_numbers_of_the_evaluation_come_before_those_of_the_probe(tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    folder = RunFolder(run)
    for step in (10, 20):
        folder.append_metrics({"step": step, "epoch": step / 10, "total": 2.0 + step})
        folder.append_metrics(
            {"step": step, "epoch": step / 10, "monitor": {"top1_knn": step / 100}}
        )
        folder.append_metrics({"step": step, "alarm": {"name": f"alarm_{step}", "text": "x"}})
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 30, "epo')  # being written
    found = by_name(tmp_path)["run"]
    assert (found.line["total"], found.alarms) == (22.0, ("alarm_10", "alarm_20"))
    assert found.numbers == {"top1_knn": 0.2}
    (run / "evaluation.json").write_text(json.dumps({"top1_knn": 0.5, "top1_linear": 0.75}))
    assert by_name(tmp_path)["run"].numbers == {"top1_linear": 0.75, "top1_knn": 0.5}


def test_what_is_no_run_is_no_line_and_a_damaged_one_has_its_problem(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begun(tmp_path / "[red]run")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "config.yaml").write_text("something: else\n")
    (tmp_path / "loop").symlink_to(tmp_path)
    damaged = begun(tmp_path / "damaged")
    (damaged / "evaluation.json").write_text("{")
    (begun(tmp_path / "torn") / "config.yaml").write_text("data: [digits")
    assert cli.main(["runs", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert len(list_runs(tmp_path)) == 3
    assert "torn/config.yaml" in said
    assert "expected valid JSON" in said
    assert "3.25" in said
    assert "[red]run" in said


DAMAGE = {
    "epochs of words": ("config.yaml", lambda run: run.write_text(run.read_text().replace("epochs: 4", "epochs: a"))),
    "a number of words": ("evaluation.json", lambda run: run.write_text('{"top1_linear": "x"}')),
    "half a diagnosis": ("diagnosis.json", lambda run: run.write_text("{")),
    "a line of a number": ("metrics.jsonl", lambda run: run.write_text("3\n")),
    "an alarm without name": ("metrics.jsonl", lambda run: run.write_text('{"step": 5, "alarm": {"x": 1}}\n')),
}  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_record_is_a_problem_of_its_run_alone(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begun(tmp_path / "whole")
    name, damage = DAMAGE[kind]
    damage(begun(tmp_path / "damaged") / name)
    assert cli.main(["runs", str(tmp_path)]) == 0
    assert str(tmp_path / "damaged" / name) in capsys.readouterr().out
    assert not by_name(tmp_path)["whole"].problem


def test_no_folder_and_no_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="no such folder"):
        list_runs(tmp_path / "nowhere")
    assert cli.main(["runs", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"no runs in {tmp_path}\n"
