"""Reproducing a table: real small runs, finished ones kept, failures reported, the paper beside them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from falcon_ssl import cli, commands, engine
from falcon_ssl.commands.studies import runner
from falcon_ssl.commands.studies.grid import Selection, make_runs, read_grid
from falcon_ssl.commands.studies.reproduce import plan, reproduce
from falcon_ssl.commands.studies.runner import Status, read_status, run_processes
from falcon_ssl.commands.studies.worker import run_job
from falcon_ssl.config.mapping import merged
from falcon_ssl.core.errors import FailedRunsError, InputError
from falcon_ssl.engine import RunFolder
from falcon_ssl.records.checkpoints import read_state
from support.copied_runs import CopiedRuns

SMALL_VICREG = {"method": "vicreg", "vicreg": {"hidden_dim": 16, "embed_dim": 16}}
TINY: dict[str, Any] = {
    "title": "Tiny",
    "columns": ["top1_linear", "top1_knn", "nmi_codes", "chance_nmi_codes", "effective_rank_z"],
    "seeds": [0],
    "shared": {
        "data": "digits",
        "epochs": 1,
        "encoder": {"name": "digits_cnn"},
        "views": {"preset": "digits"},
        "monitor": {"every_epochs": 0},
    },
    "datasets": {"digits": {"num_train": 1437, "image_shape": [1, 8, 8]}},
    "rows": {
        "falcon": {
            "label": "FALCON",
            "paper": "ours",
            "options": {
                "falcon": {
                    "dictionary": "rademacher",
                    "num_codes": 64,
                    "embed_dim": 16,
                    "beta": 0.5,
                }
            },
        },
        "vicreg": {"label": "VICReg", "options": SMALL_VICREG},
        "bad": {
            "label": "Overflowing",
            "options": {**SMALL_VICREG, "optim": {"name": "adamw", "lr": 1e30, "clip_norm": 0}},
        },
    },
    "paper": {
        "source": "a paper",
        "setting": "a setting",
        "rows": {"ours": {"digits": {"top1_linear": 0.5, "nmi_codes": 0.25}}},
    },
}


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY, sort_keys=False), encoding="utf-8")
    return path


def replace_processes(monkeypatch: pytest.MonkeyPatch, code: str) -> list[subprocess.Popen[str]]:
    """Let the process of every run execute ``code`` instead; the processes that are started."""
    start, started = subprocess.Popen, []

    def replaced(command: Sequence[str], **options: Any) -> subprocess.Popen[str]:
        started.append(start([sys.executable, "-c", code], **options))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", replaced)
    return started


@pytest.mark.slow
def test_the_grid_is_run_to_its_end_and_failures_are_reported(
    tiny: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """In processes of their own, two at a time."""
    out = tmp_path / "out"
    wanted = ["reproduce", str(tiny), "--out", str(out), "--processes", "2"]
    assert cli.main([*wanted, "--rows", "falcon", "bad"]) == 1
    assert "1 of 2 runs (digits/bad-seed0)" in capfd.readouterr().err
    bad = out / "digits" / "bad-seed0"
    assert "Traceback" in (bad / "failure.txt").read_text()
    assert "NonFiniteError" in read_status(bad).failure
    assert not (bad / "evaluation.json").exists()
    record = json.loads((out / "table.json").read_text())
    assert [cell["state"] for cell in record["cells"]] == ["done", "to do", "failed"]
    evaluation = json.loads((out / "digits" / "falcon-seed0" / "evaluation.json").read_text())
    mean = record["datasets"]["digits"]["rows"]["falcon"]["top1_linear"]["mean"]
    assert mean == evaluation["top1_linear"]
    table = (out / "table.md").read_text(encoding="utf-8")
    falcon = next(line for line in table.splitlines() if line.startswith("| FALCON"))
    assert f"50.0\u202f% | +{100 * (mean - 0.5):.1f} |" in falcon
    assert "digits/bad-seed0 failed: falcon_ssl.engine.finite.NonFiniteError" in table
    assert "random encoder" in table
    assert "not adjusted for chance" in table
    page = (out / "table.html").read_text(encoding="utf-8")
    assert "Overflowing" in page
    assert "digits/bad-seed0 failed" in page
    before = (out / "digits" / "falcon-seed0" / "metrics.jsonl").stat().st_mtime_ns
    assert cli.main([*wanted, "--rows", "falcon"]) == 0
    assert (out / "digits" / "falcon-seed0" / "metrics.jsonl").stat().st_mtime_ns == before
    assert "failed" in (out / "table.md").read_text(), "the table shows also what is not asked for"


def test_a_process_that_is_killed_is_a_failure_and_the_others_continue(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_processes(monkeypatch, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    jobs = make_runs(read_grid(tiny))
    ended = list(run_processes(jobs, tmp_path, [{}, {}], logs=tmp_path / "logs"))
    assert sorted(ended) == sorted(tmp_path / job.name for job in jobs)
    assert {read_status(run).state for run in ended} == {"failed"}
    assert "killed by signal 9" in read_status(ended[0]).failure


def test_a_stopped_run_resumes_from_its_checkpoint(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The training is real; that a run is evaluated at its end has tests of its own."""
    (job,) = make_runs(read_grid(tiny), Selection(rows=["vicreg"], epochs=2))
    run = tmp_path / job.name
    assert read_status(run) == Status("to do")
    engine_pretrain = engine.pretrain

    def interrupted(method: Any, loader: Any, views: Any, **options: Any) -> Any:
        class Cut:
            batches_per_epoch = loader.batches_per_epoch

            def epoch_batches(self, epoch: int, start: int = 0) -> Any:
                if epoch == 1:
                    raise OSError("cut off")
                return loader.epoch_batches(epoch, start)

        return engine_pretrain(method, Cut(), views, **options)

    monkeypatch.setattr(engine, "pretrain", interrupted)
    with pytest.raises(OSError, match="cut off"):
        run_job(job.config, run)
    monkeypatch.undo()
    monkeypatch.setattr(
        commands, "evaluate", lambda run: (run / "evaluation.json").write_text("{}")
    )
    assert read_status(run) == Status("stopped", 5)
    found, _ = plan(tiny, out=tmp_path, selection=Selection(rows=["vicreg"], epochs=2))
    assert found[0][1].step == 5
    run_job(job.config, run)
    assert read_status(run).state == "done"
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert steps == [5, 10], "the first epoch was not taken again"


def test_a_run_that_stopped_before_its_first_checkpoint_starts_again(
    tiny: Path, tmp_path: Path, copied_runs: CopiedRuns
) -> None:
    job = make_runs(read_grid(tiny), Selection(rows=["vicreg"]))[0]
    run = tmp_path / job.name
    RunFolder(run).create(job.config)
    (run / "failure.txt").write_text("an earlier failure\n")
    assert read_status(run) == Status("failed", 0, "an earlier failure")
    run_job(job.config, run)
    assert copied_runs.trained == [(run, {"resume": "auto"})]
    assert read_status(run).state == "done"
    assert not (run / "failure.txt").exists()


def test_a_run_whose_checkpoints_cannot_be_read_begins_again(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_runs(read_grid(tiny), Selection(rows=["vicreg"]))[0]
    run = tmp_path / job.name
    commands.pretrain(job.config, out=run)
    for state in run.glob("checkpoint*/state.json"):
        state.write_text("{}")
    monkeypatch.setattr(
        commands, "evaluate", lambda run: (run / "evaluation.json").write_text("{}")
    )
    assert read_status(run) == Status("to do")
    run_job(job.config, run)
    assert read_status(run).state == "done"
    assert read_state(run / "checkpoint")["finished"]


def test_a_collapse_is_a_finding(tiny: Path, tmp_path: Path, copied_runs: CopiedRuns) -> None:
    copied_runs.collapsed = lambda config: config.method == "falcon"
    assert reproduce(tiny, out=tmp_path, selection=Selection(rows=["falcon"])).is_file()
    record = json.loads((tmp_path / "table.json").read_text())
    cell = record["cells"][0]
    assert cell["state"] == "done"
    assert cell["alarms"] == ["constant"]
    assert "alarms: " in (tmp_path / "table.md").read_text()


def test_finished_runs_are_kept_and_other_options_refused(
    tiny: Path, tmp_path: Path, copied_runs: CopiedRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied_runs.numbers = lambda config: {"top1_knn": 0.5 + 0.1 * config.seed}
    out, selection = tmp_path / "out", Selection(rows=["vicreg"], seeds=[0, 1])
    reproduce(tiny, out=out, selection=selection)
    record = json.loads((out / "table.json").read_text())
    spread = record["datasets"]["digits"]["rows"]["vicreg"]["top1_knn"]
    assert spread == pytest.approx({"mean": 0.55, "deviation": 0.1 / 2**0.5, "count": 2})
    table = (out / "table.md").read_text(encoding="utf-8")
    falcon = next(line for line in table.splitlines() if line.startswith("| FALCON"))
    assert falcon.startswith("| FALCON (0 of 2 seeds) | – | 50.0"), (
        "not run yet: a dash, the paper's number stands"
    )
    reproduce(tiny, out=out, selection=selection)
    assert len(copied_runs.trained) == 2, "nothing was trained again"
    with pytest.raises(InputError, match="other values of epochs"):
        reproduce(tiny, out=out, selection=replace(selection, epochs=2))
    monkeypatch.setattr(runner, "run_processes", lambda *_, **__: (run for run in ()))
    os.rename(out, tmp_path / "other")
    with pytest.raises(FailedRunsError, match="falcon"):
        reproduce(tiny, out=tmp_path / "other", selection=Selection(rows=["falcon"], epochs=2))
    record = json.loads((tmp_path / "other" / "table.json").read_text())
    states = {cell["run"]: cell["state"] for cell in record["cells"]}
    assert states["digits/vicreg-seed0"] == "other options", "never mixed with runs of other length"


def test_a_grid_resumes_from_its_table_alone(
    tiny: Path, tmp_path: Path, copied_runs: CopiedRuns, caplog: pytest.LogCaptureFixture
) -> None:
    """On another machine there are no run folders: the committed table says what is done."""
    caplog.set_level("INFO", logger="falcon_ssl")
    table, vicreg = tmp_path / "results", Selection(rows=["vicreg"])
    reproduce(tiny, out=tmp_path / "first", table=table, selection=vicreg)
    assert not (tmp_path / "first" / "table.json").exists()
    first = json.loads((table / "table.json").read_text())
    (cell,) = (cell for cell in first["cells"] if cell["row"] == "vicreg")
    assert {"device", "seconds", "seed", "numbers_read", "commit", "options"} <= cell.keys()
    assert cell["numbers_read"] == 256, "of digits_cnn"
    assert "taken over" not in caplog.text
    selection = Selection(rows=["falcon", "vicreg"], data={"digits": "digits"})
    found, _ = plan(tiny, out=tmp_path / "second", table=table, selection=selection)
    assert [now.state for _, now in found] == ["to do", "done"]
    written = reproduce(tiny, out=tmp_path / "second", table=table, selection=selection)
    assert [run.parent.parent.name for run, _ in copied_runs.trained] == ["first", "second"]
    assert copied_runs.trained[1][0].name == "falcon-seed0"
    assert f"run on {cell['device']}: digits/vicreg-seed0" in caplog.text
    second = json.loads((table / "table.json").read_text())
    assert cell in second["cells"], "as it was recorded"
    assert [one["state"] for one in second["cells"]] == ["done", "done", "to do"]
    assert written == table / "table.md"
    assert "| VICReg | " in written.read_text(encoding="utf-8")
    assert "| Overflowing (0 of 1 seeds) | " in written.read_text(encoding="utf-8")
    reproduce(tiny, out=tmp_path / "third", table=table, selection=vicreg)
    assert json.loads((table / "table.json").read_text())["cells"] == second["cells"]


def test_the_table_shows_the_baseline_that_lies_beside_it(
    tiny: Path, tmp_path: Path, copied_runs: CopiedRuns
) -> None:
    table, selection = tmp_path / "results", Selection(rows=["vicreg"])
    written = reproduce(tiny, out=tmp_path / "runs", table=table, selection=selection)
    assert "patch k-means" not in written.read_text(encoding="utf-8")
    record = {"top1_linear": 0.676, "top1_knn": 0.55, "numbers_read": 3200, "seconds": {"fit": 9.0}}
    record |= {"options": {"num_centers": 400}, "about": {"device": "a machine"}}
    (table / "digits").mkdir()
    (table / "digits" / "baseline.json").write_text(json.dumps(record))
    reproduce(tiny, out=tmp_path / "runs", table=table, selection=selection)
    (line,) = (
        one
        for one in written.read_text(encoding="utf-8").splitlines()
        if one.startswith("| patch k-means, 400 centers")
    )
    assert all(text in line for text in ("67.6\u202f%", "55.0\u202f%", "3\u202f200", "9.0 s"))


@pytest.mark.parametrize(
    ("change", "trains"),
    [
        ({}, 0),
        ({"vicreg": {"invariance_weight": 10.0}}, 1),
        ({"engine": {"log_every": 3}}, 0),
        ({"data": "folder:elsewhere"}, 0),
    ],
)
def test_a_changed_option_makes_a_cell_run_again(
    change: Any,
    trains: int,
    tiny: Path,
    tmp_path: Path,
    copied_runs: CopiedRuns,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Not its name, nor where the images lie and how it is executed."""
    table, selection = tmp_path / "results", Selection(rows=["vicreg"])
    reproduce(tiny, out=tmp_path / "first", table=table, selection=selection)
    values = yaml.safe_load(tiny.read_text())
    values["rows"]["vicreg"]["options"] = merged(values["rows"]["vicreg"]["options"], change)
    tiny.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    caplog.set_level("INFO", logger="falcon_ssl")
    reproduce(tiny, out=tmp_path / "second", table=table, selection=selection)
    assert len(copied_runs.trained) == 1 + trains
    assert ("other options than in" in caplog.text) is bool(trains)


def test_an_option_that_is_newer_than_a_table_had_its_default(
    tiny: Path, tmp_path: Path, copied_runs: CopiedRuns
) -> None:
    """A new option with an old behavior as its default does not make a grid run again; one that is gone does."""
    table, selection = tmp_path / "results", Selection(rows=["vicreg"])
    reproduce(tiny, out=tmp_path / "first", table=table, selection=selection)
    record = json.loads((table / "table.json").read_text())
    (cell,) = (cell for cell in record["cells"] if cell["row"] == "vicreg")
    del cell["options"]["evaluation"]["knn_neighbors"]
    (table / "table.json").write_text(json.dumps(record))
    reproduce(tiny, out=tmp_path / "second", table=table, selection=selection)
    assert len(copied_runs.trained) == 1
    cell["options"]["evaluation"]["gone"] = 1
    (table / "table.json").write_text(json.dumps(record))
    reproduce(tiny, out=tmp_path / "second", table=table, selection=selection)
    assert len(copied_runs.trained) == 2


def test_no_run_begins_that_would_not_end_in_time(
    tiny: Path,
    tmp_path: Path,
    copied_runs: CopiedRuns,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", logger="falcon_ssl")
    expected = {"falcon": 61.0, "vicreg": 59.0}
    monkeypatch.setitem(
        reproduce.__globals__,
        "expected_seconds",
        lambda grid, run, now, cells: expected[run.row],
    )
    selection = Selection(rows=["falcon", "vicreg"])
    assert reproduce(tiny, out=tmp_path, selection=selection, minutes=1).is_file()
    assert [run.name for run, _ in copied_runs.trained] == ["vicreg-seed0"]
    assert "digits/falcon-seed0: not begun, it would take about 61 s" in caplog.text
    assert "1 of 2 runs are left for another time" in caplog.text
    with pytest.raises(InputError, match="minutes is not positive"):
        reproduce(tiny, out=tmp_path, selection=selection, minutes=0)


def test_the_dry_run_lists_times_and_writes_nothing(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert (
        cli.main(["reproduce", str(tiny), "--out", str(out), "--dry-run", "--processes", "2"]) == 0
    )
    text = capsys.readouterr().out
    assert "digits/falcon-seed0" in text
    assert "to do" in text
    assert "with 2 at a time" in text
    assert not out.exists()


def test_processes_share_cores_and_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert runner.worker_environments(None, None) == [{}]
    assert runner.worker_environments(3, None) == [{"OMP_NUM_THREADS": "2"}] * 3
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [place["CUDA_VISIBLE_DEVICES"] for place in runner.worker_environments(None, None)] == [
        "0",
        "1",
    ]
    assert [place["CUDA_VISIBLE_DEVICES"] for place in runner.worker_environments(3, None)] == [
        "0",
        "1",
        "0",
    ]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    assert [place["CUDA_VISIBLE_DEVICES"] for place in runner.worker_environments(None, None)] == [
        "5",
        "7",
    ]
    assert runner.worker_environments(None, "cpu") == [{}]
    with pytest.raises(InputError, match="processes is too small"):
        runner.worker_environments(0, None)


def test_an_interrupt_ends_the_processes(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = replace_processes(monkeypatch, "import time; time.sleep(600)")

    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        list(run_processes(make_runs(read_grid(tiny)), tmp_path, [{}, {}], logs=tmp_path / "logs"))
    assert len(started) == 2
    assert all(process.poll() is not None for process in started)


def children_of(pid: int) -> set[int]:
    """Processes that it started; empty where it is gone."""
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return set(map(int, path.read_text().split())) if path.is_file() else set()


def is_running(pid: int) -> bool:
    """Whether a process is there and has not ended: one that nobody has waited for still has a number."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition: Callable[[], object], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds processes in /proc")
def test_runs_end_with_the_command(tiny: Path, tmp_path: Path) -> None:
    """Stopped by a batch system: no run trains on without anybody."""
    out, run = tmp_path / "out", tmp_path / "out" / "digits" / "vicreg-seed0"
    options = ["--out", str(out), "--rows", "vicreg", "--epochs", "100000"]
    command = subprocess.Popen(
        [sys.executable, "-m", "falcon_ssl", "reproduce", str(tiny), *options],
        stderr=subprocess.PIPE,
        text=True,
    )
    children: set[int] = set()
    try:
        wait_until((run / "metrics.jsonl").is_file, 120)
        children = children_of(command.pid)
        assert children
        command.send_signal(signal.SIGTERM)
        said = command.communicate(timeout=60)[1]
        assert command.returncode == 75
        assert "SIGTERM; finished runs stay finished, and the same command goes on" in said
        assert not any(map(is_running, children)), "waited for"
    finally:
        command.kill()
        for pid in filter(is_running, children):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.slow
def test_a_run_ends_when_its_input_does(tiny: Path, tmp_path: Path) -> None:
    """The system closes it when the command is killed, which then cannot end its runs itself."""
    (job,) = make_runs(read_grid(tiny), Selection(rows=["vicreg"], epochs=100000))
    process = runner._start(job, tmp_path / job.name, {}, tmp_path / "logs")
    try:
        wait_until((tmp_path / job.name / "metrics.jsonl").is_file, 120)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(30) == runner.STOPPED
    finally:
        process.kill()


def test_the_handler_of_sigterm_is_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), runner.stopped_by_signals():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before
