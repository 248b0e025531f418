"""What several commands make of their options."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from falcon_ssl.config.run import ReadingConfig
from falcon_ssl.core.errors import InputError

OWN_IMAGES = ReadingConfig()


def given(**options: Any) -> dict[str, Any]:
    """Those options that are not left at null."""
    return {name: value for name, value in options.items() if value is not None}


def images_of(data: str | None, reading: ReadingConfig) -> dict[str, Any]:
    """Images to use instead of the run's own, and how to read them."""
    return {"data": data, "reading": None if reading == OWN_IMAGES else reading}


def named_sets(data: Sequence[str]) -> list[tuple[str | None, str]]:
    """NAME=DATA as a pair, DATA without a name; two sets of one file are refused."""
    from falcon_ssl.commands import evaluation_name

    pairs: list[tuple[str | None, str]] = []
    for word in data:
        found = re.fullmatch(r"([\w.-]+)=(.+)", word)
        pairs.append((found[1], found[2]) if found else (None, word))
    files = [evaluation_name(data=one, name=name) for name, one in pairs]
    if twice := [file for file in files if files.count(file) > 1]:
        raise InputError(
            "two sets would be written to one file",
            received=twice[0],
            expected="different names",
            fix="name them: --data first=folder:A second=folder:B",
        )
    return pairs
