"""Which runs lie in a folder, and how far each has come: from their files and locks, without a server; no torch."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from falcon_ssl.config.mapping import read_yaml
from falcon_ssl.core.errors import InputError
from falcon_ssl.records.checkpoints import newest_checkpoint
from falcon_ssl.records.files import read_json
from falcon_ssl.records.folder import (
    CONFIG,
    DIAGNOSIS,
    ENVIRONMENT,
    EVALUATION,
    FAILURE,
    METRICS,
    RECORD_FORMS,
)
from falcon_ssl.records.lock import HOLDER, is_locked
from falcon_ssl.records.schema import METRICS_LINE, check_form

State: TypeAlias = Literal["running", "finished", "stopped", "failed"]

DEPTH = 4  # levels of folders that are searched
NUMBERS = ("top1_linear", "top1_knn", "effective_rank_u")
_NUMBERS = {f"{name}?": (float, None) for name in NUMBERS}
_LINE = {**METRICS_LINE, "total?": (float, None)}
_CONFIG = {"data": str, "epochs": int, "method?": str}


@dataclass(frozen=True)
class Listed:
    """One run as a list shows it; what is not recorded yet is empty.

    Attributes:
        path: Its folder.
        state: running: a process holds its lock; finished: trained to the end, or to an alarm that it stops at;
            stopped: by a signal, to be resumed; failed: by an error, or killed before it could record why.
        changed: When it was last written to, in seconds since 1970.
        method: Its method.
        data: Its images.
        epochs: Of the whole run.
        line: The last logged step.
        numbers: Of the evaluation, or while there is none of the last probe.
        verdict: Of the diagnosis.
        alarms: Names of the alarms, in the order given.
        problem: Why a record could not be read.
    """

    path: Path
    state: State
    changed: float
    method: str = ""
    data: str = ""
    epochs: int = 0
    line: Mapping[str, Any] = field(default_factory=dict)
    numbers: Mapping[str, float] = field(default_factory=dict)
    verdict: str = ""
    alarms: tuple[str, ...] = ()
    problem: str = ""


def run_state(run: Path) -> State:
    """How far the run in a folder has come."""
    if is_locked(run):
        return "running"
    if (run / FAILURE).is_file():
        return "failed"
    try:
        if newest_checkpoint(run).state["finished"]:
            return "finished"
    except InputError:
        pass
    try:
        stopped_by = read_json(run / ENVIRONMENT, RECORD_FORMS[ENVIRONMENT]).get("stopped_by")
    except InputError:
        stopped_by = None
    return "stopped" if stopped_by else "failed"


def list_runs(folder: str | Path) -> list[Listed]:
    """All runs in a folder and some levels below, the one that changed last first.

    A run whose records are damaged is in the list too, with the problem. Links are not followed.

    Raises:
        InputError: There is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(
            "no such folder",
            received=folder,
            expected="a folder that holds run folders",
            fix="name the folder that --out of your runs lies in",
        )
    return sorted(map(_listed, _run_folders(folder, DEPTH)), key=lambda run: -run.changed)


def _run_folders(folder: Path, depth: int) -> Iterator[Path]:
    if (folder / HOLDER).is_file() and (folder / CONFIG).is_file():  # whatever that holds
        yield folder
        return
    if depth == 0:
        return
    try:
        inside = sorted(os.scandir(folder), key=lambda one: one.name)
    except OSError:  # not ours to read
        return
    for one in inside:
        if one.is_dir(follow_symlinks=False) and not one.name.startswith("."):
            yield from _run_folders(Path(one.path), depth - 1)


def _listed(run: Path) -> Listed:
    names = (CONFIG, METRICS, ENVIRONMENT, EVALUATION)
    changed = max((run / name).stat().st_mtime for name in names if (run / name).is_file())
    state = run_state(run)
    try:
        config = read_yaml(run / CONFIG)
        check_form(run / CONFIG, config, _CONFIG)
        line, probed, alarms = _last_of(run / METRICS)
        evaluation = _record(run, EVALUATION) or probed
        check_form(run / EVALUATION, evaluation, _NUMBERS)
        verdict = _record(run, DIAGNOSIS).get("verdict", "")
    except (InputError, OSError) as error:
        return Listed(run, state, changed, problem=str(error))
    return Listed(
        run,
        state,
        changed,
        method=config.get("method", ""),
        data=config["data"],
        epochs=config["epochs"],
        line=line,
        numbers={name: evaluation[name] for name in NUMBERS if evaluation.get(name) is not None},
        verdict=verdict,
        alarms=alarms,
    )


def _record(run: Path, name: str) -> dict[str, Any]:
    return read_json(run / name, RECORD_FORMS[name]) if (run / name).is_file() else {}


def _last_of(path: Path) -> tuple[dict[str, Any], dict[str, Any], tuple[str, ...]]:
    """The last training step of ``metrics.jsonl``, the last probe, and the names of the alarms.

    Few of its lines are parsed: there may be hundreds of thousands, and hundreds of runs.
    """
    step: dict[str, Any] = {}
    probe: dict[str, Any] = {}
    alarms: list[str] = []
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    for row in reversed(text.splitlines()):
        is_alarm, is_probe = '"alarm": {' in row, '"monitor": {' in row
        if (is_probe and probe) or (step and not is_alarm and not is_probe):
            continue
        try:
            line = json.loads(row)
        except (ValueError, RecursionError):  # the last one, which is being written
            continue
        check_form(path, line, _LINE)
        if "alarm" in line:
            alarms.insert(0, line["alarm"]["name"])
        elif "monitor" in line:
            probe = line["monitor"]
        else:
            step = line
    return step, probe, tuple(dict.fromkeys(alarms))
