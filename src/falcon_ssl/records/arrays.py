"""Arrays in .npz files: numbers only, checked before they take memory, written whole or not at all.

A file of megabytes may unpack to many gigabytes, and its heads may state any shape: both are read first.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from falcon_ssl.core.errors import InputError
from falcon_ssl.core.machine import bytes_text, free_memory
from falcon_ssl.records.files import replacing

Array: TypeAlias = "NDArray[Any]"

_NUMBERS, _TEXT = "biuf", "US"  # kinds of dtypes: booleans, integers, real numbers
_LARGEST = 0.5  # fraction of the free memory that a file may unpack to


def write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write a compressed .npz."""
    with replacing(path) as unfinished, unfinished.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def read_arrays(path: Path, *, with_text: bool = False, fix: str = "") -> dict[str, Array]:
    """The arrays of an .npz; text among them where it is allowed.

    Raises:
        InputError: No such file, no archive of plain arrays of real numbers, or one that unpacks to more than half of
            the free memory.
    """
    if not path.is_file():
        raise InputError(
            f"cannot read {path}", received="no such file", expected="an .npz file", fix=fix
        )
    try:
        with zipfile.ZipFile(path) as archive:
            _check(path, archive, _NUMBERS + _TEXT * with_text)
        with np.load(path, allow_pickle=False) as stored:
            return {name: np.asarray(stored[name]) for name in stored.files}
    except InputError:
        raise
    except Exception as error:  # zip, zlib and numpy each raise their own kinds; all mean the same
        raise InputError(
            f"{path} cannot be read",
            received=" ".join(str(error).split())[:200] or type(error).__name__,
            expected="an .npz archive of plain arrays",
            fix=fix,
        ) from error


def _check(path: Path, archive: zipfile.ZipFile, kinds: str) -> None:
    """Raise unless every member is an array of these kinds, as large as its head says, and all fit into memory."""
    members = archive.infolist()
    total, free = sum(member.file_size for member in members), free_memory()
    if total > _LARGEST * free:
        raise InputError(
            f"{path} unpacks to more than fits into memory",
            received=bytes_text(total),
            expected=f"at most half of the {bytes_text(free)} that are free",
        )
    for member in members:
        with archive.open(member) as file:
            version = npy.read_magic(file)
            read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shape, _, dtype = read(file)
            size = dtype.itemsize
            for length in shape:
                size *= length
            if dtype.kind not in kinds:
                raise ValueError(
                    f"{member.filename} holds {dtype}, where real numbers are expected"
                )
            if size + file.tell() != member.file_size:
                raise ValueError(f"{member.filename} is not as long as its shape {shape} says")
