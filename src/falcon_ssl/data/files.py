"""Image files on disk: regular ones, of a size that an image can have, and nothing else."""

from __future__ import annotations

import os
import stat
from pathlib import Path

LARGEST = 2**30  # bytes of an encoded image
OPENERS = (
    16  # files of a set that are opened at the same time, of which only heads or indices are read
)


def read_file(path: Path) -> bytes:
    """Content of a regular file; a pipe would be waited for, and a device read for ever.

    Raises:
        OSError: It cannot be read, is no regular file, or is larger than any image.
    """
    with open(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as file:
        about = os.fstat(file.fileno())
        if not stat.S_ISREG(about.st_mode):
            raise OSError("no regular file")
        if about.st_size > LARGEST:
            raise OSError(f"a file of {about.st_size} bytes, larger than any image")
        return file.read()


def read_inside(path: str, root: Path | None) -> bytes:
    """Content of a file that a table names, if it lies in a folder.

    Args:
        path: As the table has it; a relative one starts in ``root``.
        root: The only folder whose files may be named, links followed; None allows none.

    Raises:
        OSError: As `read_file`, or it lies elsewhere.
    """
    if root is None:
        raise OSError(f"a path and no image: {path}")
    whole = Path(os.path.realpath(root / path))
    if not whole.is_relative_to(os.path.realpath(root)):
        raise OSError(f"{path} lies outside of {root}: a table names files in its own folder alone")
    return read_file(whole)


def path_text(path: str | Path) -> str:
    r"""A path as text for records and tables: bytes that are not UTF-8, in names of old archives, as ``\xe9``."""
    return os.fsencode(path).decode(errors="backslashreplace")
