"""Files that a command writes where the user says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from falcon_ssl.core.errors import InputError


def new_file(path: str | Path, *, suffixes: Sequence[str], overwrite: bool) -> Path:
    """Check that a file may be written and make its folder, before any work is done.

    Raises:
        InputError: Another kind of file, or one that exists.
    """
    path = Path(path)
    if path.suffix not in suffixes:
        raise InputError(
            "unknown kind of file",
            received=path.name,
            expected=f"a name that ends in {' or '.join(suffixes)}",
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
