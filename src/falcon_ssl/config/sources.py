"""What images are called: one source, or several joined by " + " that are read as one set."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

KINDS = ("digits", "folder:PATH", "parquet:DIR", "tar:PATH", "hf:NAME", "python:MODULE:FUNCTION")
ON_DISK = ("folder", "parquet", "tar")  # kinds that name a place on this machine

_PREFIXES = [kind.partition(":")[0] for kind in KINDS if ":" in kind]
# A path may hold " + " itself, but no source begins there.
_BETWEEN = re.compile(rf" \+ (?=digits(?: \+ |$)|(?:{'|'.join(_PREFIXES)}):)")


def joined_name(sources: Iterable[str]) -> str:
    """The name of several sources together.

    Example:
        >>> joined_name(["folder:A", "folder:B"])
        'folder:A + folder:B'
    """
    return " + ".join(sources)


def source_names(data: str) -> list[str]:
    """The names of the sources that a name joins.

    Example:
        >>> source_names("folder:salt + pepper + tar:shards")
        ['folder:salt + pepper', 'tar:shards']
    """
    return _BETWEEN.split(data)


def with_places(data: str, place: Callable[[str], str]) -> str:
    """A name in which every place on this machine is called otherwise.

    Example:
        >>> with_places("folder:photos + hf:cifar10", str.upper)
        'folder:PHOTOS + hf:cifar10'
    """
    parts = (name.partition(":") for name in source_names(data))
    return joined_name(
        f"{kind}:{place(where)}" if kind in ON_DISK else f"{kind}{colon}{where}"
        for kind, colon, where in parts
    )
