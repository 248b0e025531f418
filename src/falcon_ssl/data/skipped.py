"""Unreadable images: counted, listed, tolerated up to a limit."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from threading import Lock

from falcon_ssl.checks import InputError

logger = logging.getLogger(__name__)

_STREAM = re.compile(r" ?<_io\.\S+ object at \S+>")  # how Pillow calls what it reads


class Skipped:
    """Counts, lists and limits the images that cannot be decoded.

    Args:
        name: Of the data, for people.
        num_images: N.
        max_unreadable: Largest share of unreadable images that is tolerated.
        path: File that lists them, one line each; None writes none.
    """

    def __init__(
        self, name: str, num_images: int, *, max_unreadable: float, path: Path | None
    ) -> None:
        self.indices: set[int] = set()
        self._name = name
        self._limit = max_unreadable * num_images
        self._num_images = num_images
        self._path = path
        self._lock = Lock()

    def add(self, index: int, *, place: str, reason: Exception) -> None:
        """Note an unreadable image.

        Raises:
            InputError: There are too many.
        """
        with self._lock:
            if index in self.indices:
                return
            self.indices.add(index)
            text = _STREAM.sub("", str(reason)) or type(reason).__name__
            logger.warning("%s: skipped %s (%s)", self._name, place, text)
            if self._path is not None:
                _append_once(self._path, place, text)
        if len(self.indices) > self._limit:
            raise InputError(
                f"too many unreadable images in {self._name}",
                received=f"{len(self.indices)} of {self._num_images}, the last one {place}",
                expected=f"at most {int(self._limit)}",
                fix="repair or delete them, or allow more with --reading.max_unreadable 0.1",
            )


def _append_once(path: Path, place: str, reason: str) -> None:
    """Add an image to a list that lacks it: a resumed run meets the same images again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        file.seek(0)
        if not any(line.startswith(f"{place}\t") for line in file):
            file.write(f"{place}\t{reason}\n")
