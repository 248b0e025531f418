"""Files on disk: written whole or not at all; what cannot be read is an error that names the file."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from falcon_ssl.core.errors import InputError
from falcon_ssl.records.schema import Form, check_form

WRITE_AGAIN = (
    "write it again: falcon-ssl evaluate RUN, or pretrain --resume for what training writes"
)
_CHUNK = 2**20  # bytes of a file that are hashed at a time


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Where to write a file that takes the name ``path`` when the block ends, and is gone when the block fails.

    A reader sees the old file or the new one, never a part; a full disk leaves the old one. Its mode is what the umask
    says, whatever the mode that a library writes with.
    """
    path = Path(os.path.realpath(path))  # a link stays one
    unfinished = path.with_name(f".{path.name}.tmp")
    try:
        unfinished.unlink(missing_ok=True)
        with unfinished.open("wb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        yield unfinished
        with suppress(PermissionError):  # file systems without modes
            unfinished.chmod(mode)
        sync(unfinished)
        unfinished.replace(path)
    except BaseException as error:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno and error.filename is None:
            error.filename = str(path)  # a full disk does not say what it had no room for
        raise


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """As `replacing`, for a folder: the one that has the name is gone only when the new one is whole."""
    unfinished = path.with_name(path.name + ".tmp")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
        if path.exists():
            shutil.rmtree(path)
        unfinished.rename(path)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def sync(path: Path) -> None:
    """Wait until a file or a folder's list of names is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        with suppress(OSError):  # file systems that do not know this for folders
            os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    r"""Write a file as `replacing` does; bytes of file names that are not UTF-8 as ``\udce9``."""
    with replacing(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write one JSON object as `write_text` does."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def checksum(path: Path) -> str:
    """SHA-256 of a file, as sha256sum prints it."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            found.update(chunk)
    return found.hexdigest()


def read_json(path: Path, form: Form = None) -> dict[str, Any]:
    """The object of a JSON file.

    Args:
        path: The file.
        form: What it must look like, see `falcon_ssl.records.schema`.

    Raises:
        InputError: No such file, it is damaged, or of another form.
    """
    try:
        record = json.loads(_read_text(path))
    except (ValueError, RecursionError) as error:  # endless digits and brackets too
        raise unreadable(path, error, "valid JSON", WRITE_AGAIN) from error
    if not isinstance(record, dict):
        raise unreadable(path, type(record).__name__, "a JSON object", WRITE_AGAIN)
    check_form(path, record, form, fix=WRITE_AGAIN)
    return record


def read_json_lines(path: Path, form: Form = None) -> tuple[list[dict[str, Any]], bool]:
    """The objects of a JSON-lines file, and whether its last line was cut off and left out.

    Raises:
        InputError: No such file, or a line that is no such object.
    """
    lines: list[dict[str, Any]] = []
    texts = _read_text(path).split("\n")
    for number, text in enumerate(texts, start=1):
        if not text.strip():
            continue
        try:
            line = json.loads(text)
        except (ValueError, RecursionError) as error:
            if number == len(texts):  # no newline after it: the writer was stopped in mid-line
                return lines, True
            raise _broken_line(path, number, error) from error
        if not isinstance(line, dict):
            raise _broken_line(path, number, text[:60])
        check_form(f"line {number} of {path}", line, form, fix="repair that line")
        lines.append(line)
    return lines, False


def unreadable(path: Path, received: object, expected: str, fix: str) -> InputError:
    """The error of a record that is missing or damaged."""
    return InputError(f"cannot read {path}", received=received, expected=expected, fix=fix)


def _broken_line(path: Path, number: int, received: object) -> InputError:
    expected = "one JSON object per line"
    return unreadable(path, f"line {number}: {received}", expected, "repair that line")


def _read_text(path: Path) -> str:
    if path.exists() and not path.is_file():  # a pipe or a device would be read for ever
        raise unreadable(path, "no regular file", f"a {path.name}", "delete it")
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        expected = f"a {path.name}"
        raise unreadable(path, "no such file", expected, "name a complete run folder") from error
    except (OSError, UnicodeDecodeError) as error:
        raise unreadable(path, error, "UTF-8 text", "restore the file") from error
