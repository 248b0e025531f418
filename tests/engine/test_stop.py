"""Signals: a run saves where it is, says so with its own exit code, and goes on bit by bit."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from falcon_ssl import cli, commands
from falcon_ssl.config import to_mapping
from falcon_ssl.core.errors import InputError, StoppedError
from falcon_ssl.core.monitor import Moment, Observation
from falcon_ssl.engine.step import TrainingStep
from support.short_runs import SHORT, differing, lines_of, state_of

SIGNALS = [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT]


@pytest.fixture(autouse=True)
def heeded_interrupts() -> Any:
    """A shell that started the tests in the background has set Ctrl-C to be ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return commands.pretrain(SHORT, out=tmp_path_factory.mktemp("runs") / "whole", monitors=[])


def signal_in_step(
    monkeypatch: pytest.MonkeyPatch, number: signal.Signals, *, step: int, times: int = 1
) -> None:
    """A signal arrives in the middle of a training step (counted from 1)."""
    take = TrainingStep.__call__

    def interrupted(self: TrainingStep, images: Any, index: int) -> Any:
        if index == step - 1:
            for _ in range(times):
                os.kill(os.getpid(), number)
        return take(self, images, index)

    monkeypatch.setattr(TrainingStep, "__call__", interrupted)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_inside_an_epoch_saves_and_the_run_goes_on(
    number: signal.Signals, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = [signal.getsignal(one) for one in SIGNALS]
    with monkeypatch.context() as patch:
        signal_in_step(patch, number, step=3)
        with pytest.raises(StoppedError, match=rf"{number.name} after step 3, which is saved in"):
            commands.pretrain(SHORT, out=tmp_path / "run", monitors=[])
    assert [signal.getsignal(one) for one in SIGNALS] == before
    assert state_of(tmp_path / "run" / "checkpoint")["step"] == 3
    commands.pretrain(SHORT, out=tmp_path / "run", monitors=[], resume="auto")
    assert differing(tmp_path / "run", whole) == []
    assert lines_of(tmp_path / "run") == lines_of(whole)


def test_a_step_that_is_not_logged_is_saved_too(
    tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(SHORT, engine=replace(SHORT.engine, log_every=100))
    with monkeypatch.context() as patch:
        signal_in_step(patch, signal.SIGTERM, step=5)
        with pytest.raises(StoppedError):
            commands.pretrain(config, out=tmp_path / "run", monitors=[])
    assert [line["step"] for line in lines_of(tmp_path / "run")] == [2, 4]
    commands.pretrain(config, out=tmp_path / "run", monitors=[], resume=True)
    assert differing(tmp_path / "run", whole) == []


def test_more_signals_do_not_disturb_the_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signal_in_step(monkeypatch, signal.SIGTERM, step=3, times=3)
    with pytest.raises(StoppedError, match="after step 3"):
        commands.pretrain(SHORT, out=tmp_path / "run", monitors=[])


def test_a_second_interrupt_ends_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    signal_in_step(monkeypatch, signal.SIGINT, step=3, times=2)
    with pytest.raises(KeyboardInterrupt) as caught:
        commands.pretrain(SHORT, out=tmp_path / "run", monitors=[])
    assert not isinstance(caught.value, StoppedError)
    assert state_of(tmp_path / "run" / "checkpoint")["step"] == 2


def test_a_signal_at_the_last_step_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signal_in_step(monkeypatch, signal.SIGTERM, step=6)
    run = commands.pretrain(SHORT, out=tmp_path / "run", monitors=[])
    assert state_of(run / "checkpoint")["finished"]


def test_before_the_first_step_there_is_nothing_to_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(to_mapping(SHORT)))
    words = ["pretrain", "--config", str(config), "--out", str(tmp_path / "run")]
    with monkeypatch.context() as patch:
        opening = "falcon_ssl.commands.loading.load_splits"
        patch.setattr(opening, lambda *a, **k: os.kill(os.getpid(), signal.SIGTERM))
        assert cli.main(words) == 75
    assert "SIGTERM before the first step" in capsys.readouterr().err
    assert cli.main([*words, "--resume", "auto"]) == 0


class Interrupting:
    """A monitor in whose call a signal arrives."""

    def __call__(self, moment: Moment) -> Observation:
        if moment.step == 1:
            os.kill(os.getpid(), signal.SIGUSR1)
        return Observation()

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass


def test_the_same_command_again_and_again_reaches_the_end(
    tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a batch system does it: code 75 until there is nothing left to do."""
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(to_mapping(SHORT)))
    words = ["pretrain", "--config", str(config), "--out", str(tmp_path / "run")]
    codes = []
    for step in (1, 2, 4, None, None):
        with monkeypatch.context() as patch:
            if step is not None:
                signal_in_step(patch, signal.SIGUSR1, step=step)
            codes.append(cli.main([*words, "--resume", "auto"]))
    assert codes == [75, 75, 75, 0, 0]
    assert "the same command with --resume auto goes on" in capsys.readouterr().err
    assert differing(tmp_path / "run", whole) == []


def test_a_killed_beginning_begins_again_and_another_run_is_refused(
    tmp_path: Path, whole: Path
) -> None:
    out = tmp_path / "run"

    class Killed(Interrupting):
        def __call__(self, moment: Moment) -> Observation:
            raise MemoryError("the system ends it before its first checkpoint")

    with pytest.raises(MemoryError):
        commands.pretrain(SHORT, out=out, monitors=[Killed()])
    with pytest.raises(InputError, match=r"no checkpoint.*--resume auto"):
        commands.pretrain(SHORT, out=out, monitors=[], resume=True)
    with pytest.raises(InputError, match="other values of seed"):
        commands.pretrain(replace(SHORT, seed=3), out=out, monitors=[], resume="auto")
    commands.pretrain(SHORT, out=out, monitors=[], resume="auto")
    assert differing(out, whole) == []


def test_resume_auto_deletes_nothing_foreign(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("once")
    with pytest.raises(InputError, match="the run folder exists"):
        commands.pretrain(SHORT, out=tmp_path, monitors=[], resume="auto")


@pytest.mark.slow
def test_a_signal_to_one_rank_stops_all_and_one_process_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As srun starts them: a task for every rank, variables for the rendezvous, no torchrun."""
    out = tmp_path / "run"
    options = [
        *("--epochs", "100000", "--batch_size", "512"),
        *("--falcon.dictionary", "rademacher", "--falcon.num_codes", "64"),
    ]
    words = ["pretrain", "--out", str(out), *options]
    command = [sys.executable, "-m", "falcon_ssl", *words]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = [
        subprocess.Popen(
            [*command, "--resume", "auto", "--engine.log_every", "1"],
            env={
                **os.environ,
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": "2",
                "LOCAL_WORLD_SIZE": "2",
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
                "OMP_NUM_THREADS": "1",
                "CUDA_VISIBLE_DEVICES": "",
            },
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and not (out / "metrics.jsonl").is_file():
            time.sleep(0.05)
        ranks[1].send_signal(signal.SIGUSR1)
        said = [rank.communicate(timeout=60)[1] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert [rank.returncode for rank in ranks] == [75, 75], said
    state = state_of(out / "checkpoint")
    assert state["num_processes"] == 2
    assert "stopped by SIGUSR1 after step" in said[1]
    assert "stopped by another rank's signal after step" in said[0]
    signal_in_step(monkeypatch, signal.SIGTERM, step=state["step"] + 1)
    assert cli.main([*words, "--resume"]) == 75
    assert "2 processes before, 1 now" in caplog.text
