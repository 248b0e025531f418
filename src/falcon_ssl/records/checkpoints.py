"""Checkpoints in a run folder: which there are, whether they are whole, which are kept; no torch.

    checkpoint/             the newest: model.safetensors, training.safetensors, state.json
    checkpoint-step_120/    those before it, K in all with --engine.keep last:K
    checkpoint-best/        and the like, see `falcon_ssl.engine.keeping`

``state.json`` holds the position, and under "sha256" a checksum of every file beside it and of itself: its own is that
of its JSON with sorted keys and without that entry. Every file that is read is checked first; a checkpoint that is
damaged is passed over for the one before it, with a warning.

A new one is written beside the others and takes its name when it is complete. Between two renames a crash may leave no
``checkpoint/``; the newest is then that of the largest step, where it is found.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from falcon_ssl.core.errors import InputError, did_you_mean
from falcon_ssl.records.files import checksum, read_json, sync, unreadable, write_json
from falcon_ssl.records.folder import CHECKPOINT, MODEL, STATE, TRAINING, RunFolder
from falcon_ssl.records.schema import STATE_FORM

logger = logging.getLogger(__name__)

_SUMS = "sha256"
_TEMPORARY = f"{CHECKPOINT}.tmp"
_RESTORE = "restore the folder from a copy, or start again"


class Checkpoint(NamedTuple):
    """One that is whole.

    Args:
        path: Its folder.
        state: What its ``state.json`` holds.
    """

    path: Path
    state: dict[str, Any]

    @property
    def step(self) -> int:
        """Steps taken."""
        return int(self.state["step"])


def checkpoint_paths(run: Path) -> list[Path]:
    """Folders of the newest checkpoints of a run, the newest first; whether they are whole is not looked at."""
    before = {int(match[1]): path for path in run.glob(f"{CHECKPOINT}-*") if (match := _step(path))}
    paths = [run / CHECKPOINT, *(before[step] for step in sorted(before, reverse=True))]
    return [path for path in paths if (path / STATE).is_file()]


def _step(path: Path) -> re.Match[str] | None:
    return re.fullmatch(rf"{CHECKPOINT}-step_(\d+)", path.name)


def find_checkpoint(run: Path, name: str, *, files: Iterable[str] = ()) -> Checkpoint:
    """The checkpoint of a name; "last" is the newest one that is whole.

    Raises:
        InputError: There is none of this name, or it is damaged.
    """
    folder = RunFolder(run)
    if name == "last":
        return newest_checkpoint(run, files=files)
    if name not in (known := folder.kept_names()):
        raise InputError(
            "no such checkpoint",
            received=f"{name}, of {run}",
            expected=f"one of {', '.join(known)}",
            fix=did_you_mean(name, known),
        )
    return Checkpoint(folder.kept(name), read_state(folder.kept(name), files=files))


def newest_checkpoint(run: Path, *, files: Iterable[str] = ()) -> Checkpoint:
    """The newest checkpoint that is whole, as far as ``state.json`` and some more files go.

    Raises:
        InputError: There is none.
    """
    damage: list[InputError] = []
    for path in checkpoint_paths(run):
        try:
            found = Checkpoint(path, read_state(path, files=files))
        except InputError as error:
            damage.append(error)
            continue
        for problem in damage:
            logger.warning("%s Taken instead: %s, of step %d", problem, path, found.step)
        return found
    if damage:
        raise damage[0]
    raise InputError(
        "no checkpoint",
        received=run / CHECKPOINT,
        expected=f"a folder that holds {STATE}",
        fix="a run that was stopped before its first one begins again with --resume auto",
    )


def unfinished_sentence(run: Path) -> str:
    """That a run has not come to its end, in words; empty where it has, or nothing can be said."""
    try:
        found = newest_checkpoint(run)
    except InputError:
        return ""
    if found.state["finished"]:
        return ""
    return f"this run is unfinished: step {found.step} of {found.state['num_steps']}"


def read_state(path: Path, *, files: Iterable[str] = ()) -> dict[str, Any]:
    """The ``state.json`` of one checkpoint.

    Raises:
        InputError: It or one of ``files`` is not what was written.
    """
    state = read_json(path / STATE, STATE_FORM)
    _check_sum(path / STATE, state[_SUMS], _own_sum(state))
    for name in files:
        if not (path / name).is_file():
            raise unreadable(path / name, "no such file", "a complete checkpoint", _RESTORE)
        _check_sum(path / name, state[_SUMS], checksum(path / name))
    return state


@contextmanager
def new_checkpoint(run: Path, state: Mapping[str, Any], *, keep: int) -> Iterator[Path]:
    """Where to write the tensors of a checkpoint; it is the newest one when the block ends.

    Args:
        run: The run folder.
        state: Plain JSON values, as `STATE_FORM` has them without the checksums.
        keep: How many checkpoints are left, this one among them.
    """
    unfinished = run / _TEMPORARY
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
        complete = json.loads(json.dumps(state))
        complete[_SUMS] = {name: checksum(unfinished / name) for name in (MODEL, TRAINING)}
        complete[_SUMS][STATE] = _own_sum(complete)
        write_json(unfinished / STATE, complete)
        sync(unfinished)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    _move_aside(run)
    unfinished.rename(run / CHECKPOINT)
    sync(run)
    prune(run, keep=keep)


def prune(run: Path, *, keep: int) -> None:
    """Delete all checkpoints but the newest ``keep``."""
    for path in checkpoint_paths(run)[keep:]:
        shutil.rmtree(path, ignore_errors=True)


def _move_aside(run: Path) -> None:
    """Give the newest checkpoint the name of its step; one whose step cannot be read is deleted."""
    newest = run / CHECKPOINT
    if not newest.exists():
        return
    try:
        step = read_json(newest / STATE, {"step": int})["step"]
    except InputError:
        shutil.rmtree(newest)
        return
    before = RunFolder(run).kept(f"step_{step}")
    shutil.rmtree(before, ignore_errors=True)
    newest.rename(before)


def _own_sum(state: Mapping[str, Any]) -> str:
    """SHA-256 of a state without its own checksum."""
    others = {name: value for name, value in state[_SUMS].items() if name != STATE}
    text = json.dumps({**state, _SUMS: others}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _check_sum(path: Path, sums: Mapping[str, str], found: str) -> None:
    if sums.get(path.name) != found:
        raise unreadable(
            path,
            f"SHA-256 {found[:12]}…, so it is damaged or changed",
            f"{sums.get(path.name, 'a checksum')[:12]}…, as it was written",
            _RESTORE,
        )
