"""The run folder: the names of its files, and how they are written so that a crash leaves them whole."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from falcon_ssl.config.mapping import read_yaml
from falcon_ssl.config.run import RunConfig, to_mapping
from falcon_ssl.core.errors import InputError
from falcon_ssl.records.files import read_json, read_json_lines, write_json, write_text
from falcon_ssl.records.lock import HOLDER, LOCK, Lock, check_unlocked
from falcon_ssl.records.provenance import own_commit
from falcon_ssl.records.schema import (
    BASELINE_FORM,
    DATA_FORM,
    DIAGNOSIS_FORM,
    ENVIRONMENT_FORM,
    EVALUATION_FORM,
    METRICS_LINE,
    TABLE_FORM,
    Form,
)

# Written by pretrain, in this order;
CONFIG = "config.yaml"
DATA = "data.json"
SKIPPED = "skipped.txt"
INITIAL = "initial.safetensors"  # what the encoder started from, where that was not random
METRICS = "metrics.jsonl"
CHECKPOINT = "checkpoint"  # a folder of the next three, and CHECKPOINT-NAME of others that are kept
MODEL, TRAINING, STATE = "model.safetensors", "training.safetensors", "state.json"
ENVIRONMENT = "environment.json"  # at the start, and again at the end
# by evaluate and diagnose;
DIAGNOSIS = "diagnosis.json"
ARRAYS = "arrays.npz"
EVALUATION = "evaluation.json"  # the last of its command
# by report;
REPORT = "report.html"
# by reproduce, of a run that failed;
FAILURE = "failure.txt"
TABLE = "table.json"  # of all its runs, in a folder of its own
# and by baseline, in a folder of its own.
BASELINE = "baseline.json"
# By finetune, in a folder of its own, with MODEL.
FINETUNE = "finetune.json"
# By speedrun, in the run's folder.
SPEEDRUN = "speedrun.json"

# By the trackers of Accelerate, which make a folder of this name.
TRACKED = "falcon-ssl"

RECORD_FORMS: Mapping[str, Form] = {
    DATA: DATA_FORM,
    METRICS: METRICS_LINE,
    ENVIRONMENT: ENVIRONMENT_FORM,
    DIAGNOSIS: DIAGNOSIS_FORM,
    EVALUATION: EVALUATION_FORM,
    TABLE: TABLE_FORM,
    BASELINE: BASELINE_FORM,
}

_BEFORE_A_RUN = {SKIPPED, LOCK, HOLDER}
logger = logging.getLogger(__name__)


def _is_written_by_a_run(name: str) -> bool:
    """Whether a name is one of those above, or of a file that was being written under it."""
    name = name.removesuffix(".tmp")
    ours = {value for key, value in globals().items() if key.isupper() and isinstance(value, str)}
    families = tuple(f"{Path(one).stem}-" for one in (CHECKPOINT, EVALUATION))
    return name in ours or name.removeprefix(".") in ours or name.startswith(families)


class RunFolder:
    """One run's folder: configuration, metrics, checkpoint, evaluation, report.

    Who starts a run in it (`create`) or resumes one (`drop_metrics_after`) is the only process to do so until this
    object or the process ends; reading is free.

    Args:
        path: The folder; need not exist yet.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock: Lock | None = None

    def check_free(self, *, overwrite: bool) -> None:
        """Refuse to write where something lies, before any work is done.

        Raises:
            InputError: The folder exists and ``overwrite`` is False, or is not a run folder and so never deleted; or
                another process writes to it.
        """
        if not self.path.exists():
            around = next(one for one in self.path.absolute().parents if one.exists())
            if not (around.is_dir() and os.access(around, os.W_OK)):
                raise InputError(
                    "the run folder cannot be made",
                    received=self.path,
                    expected=f"{around} to be a folder that may be written",
                    fix="choose another --out",
                )
            return
        check_unlocked(self.path)
        if self.path.is_dir() and {file.name for file in self.path.iterdir()} <= _BEFORE_A_RUN:
            return
        if not overwrite:
            raise InputError(
                "the run folder exists",
                received=self.path,
                expected="a path that does not exist yet",
                fix="choose another --out, resume with --resume, or start again with --overwrite",
            )
        here = self.path.resolve() == Path.cwd()
        if here or self.path.is_symlink() or not self.is_run():
            place = "the current folder" if here else f"{self.path}"
            raise InputError(
                "--overwrite would delete something that is not a run folder",
                received=f"{place}, a link" if self.path.is_symlink() else place,
                expected=f"a folder that holds {HOLDER} and a {CONFIG} of falcon-ssl pretrain",
                fix="delete it yourself, or choose another --out",
            )

    def create(self, config: RunConfig, *, overwrite: bool = False) -> None:
        """Start the folder with its ``config.yaml``; an old run in it is deleted when ``overwrite`` says so.

        Only what a run writes is deleted; other files stay.

        Raises:
            InputError: As `check_free`.
        """
        self.check_free(overwrite=overwrite)
        self.path.mkdir(parents=True, exist_ok=True)
        self.lock()
        for old in self.path.iterdir():
            if old.name in _BEFORE_A_RUN or not _is_written_by_a_run(old.name):
                continue
            if old.is_dir() and not old.is_symlink():
                shutil.rmtree(old)
            else:
                old.unlink()
        own_commit()  # of the start: while it runs, somebody may commit
        self.write_config(config)

    def is_run(self) -> bool:
        """Whether the folder is one that a run was started in: not every folder with a ``config.yaml`` is."""
        if not (self.path / HOLDER).is_file() or not (self.path / CONFIG).is_file():
            return False
        try:
            return set(read_yaml(self.path / CONFIG)) >= {"data", "epochs", "method", "engine"}
        except InputError:
            return False

    @classmethod
    def open(cls, path: str | Path) -> RunFolder:
        """An existing run folder.

        Raises:
            InputError: There is none at ``path``.
        """
        folder = cls(path)
        if not (folder.path / CONFIG).is_file():
            raise InputError(
                "no run folder",
                received=path,
                expected=f"a folder that holds {CONFIG}",
                fix="check the path, or make one with falcon-ssl pretrain --out PATH",
            )
        return folder

    @property
    def checkpoint(self) -> Path:
        """Folder of the last checkpoint."""
        return self.path / CHECKPOINT

    def lock(self) -> None:
        """Become the only process that writes here. InputError: another one is."""
        self._lock = self._lock or Lock(self.path)

    def write_config(self, config: RunConfig) -> None:
        """Write ``config.yaml``."""
        write_text(self.path / CONFIG, yaml.safe_dump(to_mapping(config), sort_keys=False))

    def kept(self, name: str) -> Path:
        """Folder of another checkpoint: "best", "best_knn", "epoch_10"; of the last one for "last"."""
        return self.checkpoint if name == "last" else self.path / f"{CHECKPOINT}-{name}"

    def kept_names(self) -> list[str]:
        """Names of the checkpoints there are."""
        found = self.path.glob(f"{CHECKPOINT}-*/{STATE}")
        names = [state.parent.name.removeprefix(f"{CHECKPOINT}-") for state in found]
        whole = [name for name in names if not name.endswith(".tmp")]
        return ["last"] * (self.checkpoint / STATE).is_file() + sorted(whole)

    def append_metrics(self, line: Mapping[str, Any]) -> None:
        """Add one line to ``metrics.jsonl``."""
        with (self.path / METRICS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of ``metrics.jsonl``."""
        lines, is_torn = read_json_lines(self.path / METRICS, RECORD_FORMS[METRICS])
        if is_torn:
            logger.warning("%s: its last line is cut off and left out", self.path / METRICS)
        return lines

    def alarms(self) -> dict[str, int]:
        """Names of the alarms that were given, in alphabetical order, and the first step of each."""
        first: dict[str, int] = {}
        for line in self.metrics():
            if "alarm" in line:
                first.setdefault(line["alarm"]["name"], line["step"])
        return dict(sorted(first.items()))

    def drop_metrics_after(self, step: int) -> None:
        """Forget lines of steps that a resumed run will take again, and lock the folder for it.

        Raises:
            InputError: Another process writes to the folder.
        """
        self.lock()
        own_commit()
        path = self.path / METRICS
        if path.is_file():
            kept = [json.dumps(line) + "\n" for line in self.metrics() if line["step"] <= step]
            write_text(path, "".join(kept))

    def read_json(self, name: str) -> dict[str, Any]:
        """What `write_json` has written.

        Raises:
            InputError: It is missing or damaged.
        """
        return read_json(self.path / name, RECORD_FORMS.get(name))

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        """Write one JSON record."""
        write_json(self.path / name, value)
