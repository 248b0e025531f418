"""Files and folders that a command writes where the user says."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from falcon_ssl.config.mapping import read_yaml
from falcon_ssl.core.errors import InputError
from falcon_ssl.records.files import replacing
from falcon_ssl.records.folder import CHECKPOINT, CONFIG, DATA, ENVIRONMENT, METRICS, RunFolder
from falcon_ssl.records.lock import HOLDER

if TYPE_CHECKING:
    from PIL.Image import Image

PICTURES = (".png", ".jpg", ".webp")  # kinds of file that a contact sheet is written as


def new_file(path: str | Path, *, suffixes: Sequence[str], overwrite: bool, fix: str = "") -> Path:
    """Check that a file may be written and make its folder, before any work is done.

    Args:
        path: The file.
        suffixes: How its name may end.
        overwrite: Whether one that exists may be replaced.
        fix: What to do about another ending, where that is not clear.

    Raises:
        InputError: Another kind of file, or one that exists.
    """
    path = Path(path)
    if path.suffix not in suffixes:
        raise InputError(
            "unknown kind of file",
            received=path.name,
            expected=f"a name that ends in {' or '.join(suffixes)}",
            fix=fix,
        )
    if path.exists() and not overwrite:
        raise InputError(
            "the file exists",
            received=path,
            expected="a path that does not exist yet",
            fix="choose another --out, or replace it with --overwrite",
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def write_picture(path: Path, picture: Image) -> None:
    """Write one of the kinds of `PICTURES`, whole or not at all."""
    with replacing(path) as unfinished, unfinished.open("wb") as file:
        picture.save(file, format={".jpg": "jpeg"}.get(path.suffix, path.suffix[1:]))


def new_folder(path: str | Path, *, marked_by: str, overwrite: bool) -> Path:
    """Check that a folder may be written and that the one around it can hold it, before any work is done.

    Args:
        path: The folder.
        marked_by: A file that is in every folder of this kind: only such a one is ever replaced.
        overwrite: Whether it may be.

    Raises:
        InputError: Something is there that may not be replaced.
    """
    path = Path(path)
    if path.exists():
        if not overwrite:
            raise InputError(
                "the folder exists",
                received=path,
                expected="a path that does not exist yet",
                fix="choose another --out, or replace it with --overwrite",
            )
        if not (path / marked_by).is_file():
            raise InputError(
                "--overwrite would delete something else",
                received=path,
                expected=f"a folder that holds {marked_by}",
                fix="delete it yourself, or choose another --out",
            )
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def folder_for_records(run: str | Path, out: str | Path | None) -> RunFolder:
    """Where the records of an evaluation go: the run's folder, or another with copies of what a report reads of a run.

    Before any work is done.

    Raises:
        InputError: No run folder, one that may not be written, or ``out`` holds another run or records of one.
    """
    folder = RunFolder.open(run)
    if out is None:
        if not os.access(folder.path, os.W_OK):
            raise InputError(
                "the run folder cannot be written",
                received=folder.path,
                expected="a folder that this user may write to",
                fix="write to another one with --out DIR",
            )
        return folder
    target = RunFolder(out)
    if target.path.resolve() != folder.path.resolve():
        _check_is_of(target, folder)
        target.path.mkdir(parents=True, exist_ok=True)
        for name in (CONFIG, DATA, METRICS, ENVIRONMENT):
            if (folder.path / name).is_file():
                shutil.copyfile(folder.path / name, target.path / name)
    return target


def _check_is_of(target: RunFolder, run: RunFolder) -> None:
    """Raise InputError where a folder holds a run of its own, or what belongs to a run of other options."""
    is_run = any((target.path / name).exists() for name in (HOLDER, CHECKPOINT))
    if is_run or ((target.path / CONFIG).is_file() and _options(target) != _options(run)):
        raise InputError(
            "the folder belongs to another run",
            received=target.path,
            expected=f"a new folder, or one with records of {run.path}",
            fix="choose another --out",
        )


def _options(folder: RunFolder) -> dict[str, Any]:
    """What a run computes; how it was executed may change when it is resumed."""
    return {k: v for k, v in read_yaml(folder.path / CONFIG).items() if k != "engine"}
