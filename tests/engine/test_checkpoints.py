"""Checkpoints: which are kept, that damage is found, and that the one before is taken instead."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from falcon_ssl import commands
from falcon_ssl.commands.loading import load_method
from falcon_ssl.config import RunConfig
from falcon_ssl.core.errors import InputError
from falcon_ssl.core.monitor import Moment, Observation
from falcon_ssl.engine import saving
from falcon_ssl.engine.checkpoint import save_checkpoint
from falcon_ssl.records.checkpoints import checkpoint_paths, newest_checkpoint
from support.short_runs import SHORT, differing, lines_of, state_of


def with_engine(**options: object) -> RunConfig:
    return replace(SHORT, engine=replace(SHORT.engine, **options))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return commands.pretrain(SHORT, out=tmp_path_factory.mktemp("runs") / "whole", monitors=[])


def steps_of(run: Path) -> list[int]:
    return [state_of(path)["step"] for path in checkpoint_paths(run)]


@pytest.mark.parametrize("keep", [1, 2, 5])
def test_the_newest_are_kept(keep: int, tmp_path: Path) -> None:
    run = commands.pretrain(with_engine(keep=(f"last:{keep}",)), out=tmp_path / "run", monitors=[])
    assert steps_of(run) == [6, 4, 2][:keep]
    earlier = {"checkpoint-step_4", "checkpoint-step_2"}
    assert earlier & {path.name for path in run.iterdir()} == set(sorted(earlier)[3 - keep :])


def test_by_steps_inside_an_epoch(tmp_path: Path) -> None:
    config = with_engine(keep=("last:9",), checkpoint_every=2, checkpoint_steps=3, log_every=10)
    run = commands.pretrain(config, out=tmp_path / "run", monitors=[])
    assert steps_of(run) == [6, 4, 3]
    assert [line["step"] for line in lines_of(run)] == [2, 4, 6]


def test_by_minutes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter(range(0, 10**6, 10))
    monkeypatch.setattr(saving.time, "monotonic", lambda: next(now))
    config = with_engine(keep=("last:9",), checkpoint_every=3, checkpoint_minutes=0.25)
    run = commands.pretrain(config, out=tmp_path / "run", monitors=[])
    assert steps_of(run) == [6, 4, 2]  # the clock jumps 10 s a look, 15 s are two looks


@pytest.mark.parametrize("name", ["model.safetensors", "training.safetensors", "state.json"])
def test_a_flipped_bit_is_found_and_the_checkpoint_before_it_resumed(
    name: str, whole: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = Path(shutil.copytree(whole, tmp_path / "run"))
    damaged = run / "checkpoint" / name
    content = bytearray(damaged.read_bytes())
    # of a number: what stands there is valid as safetensors and as JSON
    place = content.rindex(b'"lr": ') + 8 if name == "state.json" else len(content) - 20
    content[place] ^= 1
    damaged.write_bytes(content)
    commands.pretrain(SHORT, out=run, monitors=[], resume=True)
    assert "damaged or changed" in caplog.text
    assert "of step 4" in caplog.text
    assert differing(run, whole) == []
    assert lines_of(run) == lines_of(whole)


def test_training_state_does_not_matter_for_weights(
    whole: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = Path(shutil.copytree(whole, tmp_path / "run"))
    (run / "checkpoint" / "training.safetensors").write_bytes(b"")
    commands.load_run(run)
    assert "damaged" not in caplog.text


def test_without_another_one_damage_is_an_error(whole: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(whole, tmp_path / "run"))
    for path in checkpoint_paths(run):
        weights = path / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1] + b"\x17")
    with pytest.raises(InputError, match=r"cannot read .*model\.safetensors.*SHA-256"):
        commands.load_run(run)


def test_a_crash_between_two_renames_loses_nothing(whole: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(whole, tmp_path / "run"))
    (run / "checkpoint").rename(run / "checkpoint-step_6")
    (run / "checkpoint.tmp").mkdir()
    assert newest_checkpoint(run).step == 6
    commands.pretrain(SHORT, out=run, monitors=[], resume=True)
    assert newest_checkpoint(run).path.name == "checkpoint-step_6"  # nothing left to train


def test_a_run_on_other_codes_is_refused(whole: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(whole, tmp_path / "run"))
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("dictionary_seed: 0", "dictionary_seed: 1"))
    with pytest.raises(InputError, match="the codes are not those"):
        commands.load_run(run)


def test_what_another_version_kept_of_a_monitor_is_named(tmp_path: Path) -> None:
    class Watching:
        def __init__(self, state: dict[str, Any]) -> None:
            self.state = state

        def __call__(self, moment: Moment) -> Observation:
            return Observation()

        def state_dict(self) -> dict[str, Any]:
            return self.state

        def load_state_dict(self, state: Mapping[str, Any]) -> None:
            self.state["seen"] = state["seen"]

    run = commands.pretrain(SHORT, out=tmp_path / "run", monitors=[Watching({"before": 1})])
    with pytest.raises(InputError, match=r"the state of Watching does not fit: .*KeyError: 'seen'"):
        commands.pretrain(SHORT, out=run, monitors=[Watching({})], resume=True)


def test_files_are_readable_by_whom_the_umask_lets(whole: Path) -> None:
    found = {path.name: stat.S_IMODE(path.stat().st_mode) for path in whole.rglob("*.*")}
    modes = {mode for name, mode in found.items() if name.endswith((".safetensors", ".json"))}
    plain = whole / "plain.json"
    plain.write_text("{}")
    assert modes == {stat.S_IMODE(plain.stat().st_mode)}
    plain.unlink()


def test_the_environment_has_every_part_of_a_run(whole: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(whole, tmp_path / "run"))
    (run / "checkpoint" / "state.json").unlink()
    commands.pretrain(SHORT, out=run, monitors=[], resume=True)
    found = json.loads((run / "environment.json").read_text())
    assert (found["first_step"], found["steps"], found["num_steps"]) == (4, 6, 6)
    (before,) = found["earlier"]
    assert (before["first_step"], before["steps"]) == (0, 6)
    assert before["command"]


def test_other_threads_are_said(
    whole: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Path(shutil.copytree(whole, tmp_path / "run"))
    caplog.set_level("INFO")
    monkeypatch.setattr(saving.torch, "get_num_threads", lambda: 64)
    commands.pretrain(SHORT, out=run, monitors=[], resume=True)
    assert "threads before, 64 now: equal to the run before up to rounding" in caplog.text


OPERATIONS = [
    (Path, "rename"),
    (Path, "replace"),
    (Path, "mkdir"),
    (Path, "unlink"),
    (Path, "chmod"),
    (shutil, "rmtree"),
    (os, "fsync"),
]


def save_and_die(run: Path, last: int) -> int:
    """Save a checkpoint of step 6 in a process that is gone before its operation of this number; its exit code."""
    _, method, _ = load_method(run)
    optimizer = torch.optim.AdamW(method.parameters())
    state = state_of(run / "checkpoint") | {"step": 6, "sha256": {}}
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        count = [0]

        def counted(operation: Any) -> Any:
            def do(*args: Any, **options: Any) -> Any:
                count[0] += 1
                if count[0] == last:
                    os._exit(9)  # as kill -9: nothing cleans up
                return operation(*args, **options)

            return do

        for owner, name in OPERATIONS:
            setattr(owner, name, counted(getattr(owner, name)))
        save_checkpoint(run, method=method, optimizer=optimizer, state=state, keep=2)
        os._exit(0)
    finally:
        os._exit(1)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_killed_before_any_operation_of_a_save_nothing_is_lost(whole: Path, tmp_path: Path) -> None:
    """From step 4 to 6: records, both files of tensors, renames, what is kept."""
    run, files = tmp_path / "run", ["model.safetensors", "training.safetensors"]
    codes, steps = [], []
    while not codes or codes[-1] == 9:
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(whole, run)
        shutil.rmtree(run / "checkpoint")
        (run / "checkpoint-step_4").rename(run / "checkpoint")
        codes.append(save_and_die(run, len(codes) + 1))
        steps.append(newest_checkpoint(run, files=files).step)
    assert codes[-1] == 0
    assert len(codes) > 15, "operations of a save"
    assert steps == sorted(steps)
    assert {4, 6} == set(steps)
