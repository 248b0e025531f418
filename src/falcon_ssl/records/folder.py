"""The run folder: plain files that outlive the program, written so that a crash leaves them whole."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from falcon_ssl.config.run import RunConfig, to_mapping
from falcon_ssl.core.errors import InputError
from falcon_ssl.records.lock import LOCK, Lock, check_unlocked
from falcon_ssl.records.provenance import own_commit

# What a run folder may hold; `--overwrite` deletes a folder only when it looks like one.
CONFIG, METRICS, CHECKPOINT, SKIPPED = "config.yaml", "metrics.jsonl", "checkpoint", "skipped.txt"


class RunFolder:
    """One run's folder: configuration, metrics, checkpoint, evaluation, report.

    Who starts a run in it (`create`) or goes on with one (`drop_metrics_after`) is the only process to do so until this
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
            return
        check_unlocked(self.path)
        if self.path.is_dir() and {file.name for file in self.path.iterdir()} <= {SKIPPED, LOCK}:
            return
        if not overwrite:
            raise InputError(
                "the run folder exists",
                received=self.path,
                expected="a path that does not exist yet",
                fix="choose another --out, go on with --resume, or start again with --overwrite",
            )
        if not (self.path / CONFIG).is_file():
            raise InputError(
                "--overwrite would delete something that is not a run folder",
                received=self.path,
                expected=f"a folder that holds {CONFIG}",
                fix="delete it yourself, or choose another --out",
            )

    def create(self, config: RunConfig, *, overwrite: bool = False) -> None:
        """Start the folder with its ``config.yaml``; an old run in it is deleted when ``overwrite`` says so.

        Raises:
            InputError: As `check_free`.
        """
        self.check_free(overwrite=overwrite)
        skipped = self.path / SKIPPED  # written by whoever read the images for this run
        text = skipped.read_text(encoding="utf-8") if skipped.is_file() else None
        if (self.path / CONFIG).is_file():
            shutil.rmtree(self.path)
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = Lock(self.path)
        own_commit()  # of the start: while it runs, somebody may commit
        if text is not None:
            write_text(skipped, text)
        write_text(self.path / CONFIG, yaml.safe_dump(to_mapping(config), sort_keys=False))

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
        """Folder of the checkpoint."""
        return self.path / CHECKPOINT

    def append_metrics(self, line: Mapping[str, Any]) -> None:
        """Add one line to ``metrics.jsonl``."""
        with (self.path / METRICS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl."""
        text = (self.path / METRICS).read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines()]

    def alarms(self) -> list[str]:
        """Names of the alarms that were given, each once."""
        return sorted({line["alarm"]["name"] for line in self.metrics() if "alarm" in line})

    def drop_metrics_after(self, step: int) -> None:
        """Forget lines of steps that a resumed run will take again, and lock the folder for it.

        Raises:
            InputError: Another process writes to the folder.
        """
        self._lock = self._lock or Lock(self.path)
        own_commit()
        path = self.path / METRICS
        if not path.is_file():
            return
        kept = []
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line + "\n")
            except json.JSONDecodeError:
                continue  # the line that a crash cut off
        write_text(path, "".join(kept))

    def read_json(self, name: str) -> Any:
        """What `write_json` has written."""
        return json.loads((self.path / name).read_text(encoding="utf-8"))

    def write_json(self, name: str, value: Mapping[str, Any]) -> Path:
        """Write one JSON record."""
        path = self.path / name
        write_text(path, json.dumps(value, indent=2) + "\n")
        return path


def write_text(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old text or the new one, never a part."""
    unfinished = path.with_name(path.name + ".tmp")
    with unfinished.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
