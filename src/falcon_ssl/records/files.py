"""Text and JSON on disk: written whole or not at all; what cannot be read is an error that names the file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from falcon_ssl.core.errors import InputError

WRITE_AGAIN = (
    "write it again: falcon-ssl evaluate RUN, or pretrain --resume for what training writes"
)


def write_text(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old text or the new one, never a part."""
    unfinished = path.with_name(path.name + ".tmp")
    with unfinished.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write one JSON object as `write_text` does."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """The object of a JSON file.

    Raises:
        InputError: No such file, or it is damaged.
    """
    try:
        record = json.loads(_read_text(path))
    except json.JSONDecodeError as error:
        raise unreadable(path, error, "valid JSON", WRITE_AGAIN) from error
    if not isinstance(record, dict):
        raise unreadable(path, type(record).__name__, "a JSON object", WRITE_AGAIN)
    return record


def read_json_lines(path: Path) -> tuple[list[dict[str, Any]], bool]:
    """The objects of a JSON-lines file, each with a "step", and whether its last line was cut off and left out.

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
        except json.JSONDecodeError as error:
            if number == len(texts):  # no newline after it: the writer was stopped in mid-line
                return lines, True
            raise _broken_line(path, number, error) from error
        if not isinstance(line, dict) or not isinstance(line.get("step"), (int, float)):
            raise _broken_line(path, number, text[:60])
        lines.append(line)
    return lines, False


def unreadable(path: Path, received: object, expected: str, fix: str) -> InputError:
    """The error of a record that is missing or damaged."""
    return InputError(f"cannot read {path}", received=received, expected=expected, fix=fix)


def _broken_line(path: Path, number: int, received: object) -> InputError:
    expected = 'one JSON object with a "step" per line'
    return unreadable(path, f"line {number}: {received}", expected, "repair that line")


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        expected = f"a {path.name}"
        raise unreadable(path, "no such file", expected, "name a complete run folder") from error
    except (OSError, UnicodeDecodeError) as error:
        raise unreadable(path, error, "UTF-8 text", "restore the file") from error
