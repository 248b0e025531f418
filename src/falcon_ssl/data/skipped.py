"""Unreadable images: counted, listed, tolerated up to a limit."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from threading import Lock

from falcon_ssl.core.errors import InputError, one_line

logger = logging.getLogger(__name__)

_STREAM = re.compile(r" ?<_io\.\S+ object at \S+>")  # how Pillow names an open file
# Names of files may hold anything, also what parts the columns and lines of a list.
_ESCAPED = str.maketrans({"\t": r"\t", "\n": r"\n", "\r": r"\r"})


class Skipped:
    """Counts, lists and limits the images that cannot be decoded: at most ``max_unreadable`` of all.

    A file ``path`` lists them, one line each; what it holds already is kept.
    """

    def __init__(
        self, name: str, num_images: int, *, max_unreadable: float, path: Path | None
    ) -> None:
        self.indices: set[int] = set()
        self.places: set[str] = set()
        self.num_images = num_images
        self.path = path
        self._list = None if path is None else _List(path)
        self._name = name
        self._limit = max_unreadable
        self._lock = Lock()

    def add(self, index: int, *, place: str, reason: Exception) -> None:
        """Record an unreadable image. InputError: there are too many."""
        place = place.translate(_ESCAPED)
        with self._lock:
            if index in self.indices:
                return
            self.indices.add(index)
            self.places.add(place)
            text = reason_text(reason)
            logger.warning("%s: skipped %s (%s)", self._name, place, text)
            if self._list is not None:
                self._list.add(place, text)
        if len(self.indices) > self._limit * self.num_images:
            found, allowed = len(self.indices), int(self._limit * self.num_images)
            none = f"none, because {100 * self._limit:g} % of {self.num_images} images is less than one"
            raise InputError(
                f"too many unreadable images in {self._name}",
                received=f"{found} of {self.num_images}, the last one {place} ({reason_text(reason)})",
                expected=f"at most {allowed}" if allowed else none,
                fix="repair or delete them, or leave out all that there are with --reading.max_unreadable 1",
            )


def reason_text(reason: Exception) -> str:
    """Why an image cannot be read, on one line and without addresses in memory."""
    return _STREAM.sub("", one_line(reason)) or type(reason).__name__


def count_skipped(parts: Sequence[Skipped]) -> int:
    """Unreadable images of all parts, and those that their list has of earlier sessions and other ranks."""
    places = {place for part in parts for place in part.places}
    for path in {part.path for part in parts if part.path is not None}:
        if path.is_file():
            lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
            places |= {line.split("\t")[0] for line in lines if line}
    return len(places)


def skipped_sentence(parts: Sequence[Skipped]) -> str:
    """One sentence on how many images were left out; empty where there were none.

    Example:
        >>> skipped = Skipped("photos", 300, max_unreadable=0.01, path=None)
        >>> skipped.add(7, place="7.png", reason=OSError("truncated"))
        >>> skipped_sentence([skipped])
        'skipped 1 of 300 images (0.3 %)'
    """
    count, total = count_skipped(parts), sum(part.num_images for part in parts)
    if count == 0:
        return ""
    lists = sorted({str(part.path) for part in parts if part.path is not None})
    see = f", see {' and '.join(lists)}" if lists else ""
    return f"skipped {count} of {total} images ({100 * count / total:.1f} %){see}"


class _List:
    """A file with a line for each image: a resumed run and other processes meet the same images again.

    Only what was written since the last look is read, so that N lines cost N reads and not N^2.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._places: set[bytes] = set()
        self._end = 0  # of what was read

    def add(self, place: str, reason: str) -> None:
        """Add an image that the list lacks."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("ab+") as file:
            if file.tell() < self._end:  # a new run has begun a new list
                self._places, self._end = set(), 0
            file.seek(self._end)
            self._places |= {line.partition(b"\t")[0] for line in file}
            self._end = file.tell()
            name, why = (text.encode("utf-8", "replace") for text in (place, reason))
            if name not in self._places:
                file.write(name + b"\t" + why + b"\n")
