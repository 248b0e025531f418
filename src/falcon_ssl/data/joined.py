"""Several sources of encoded images, read as one set: the images of the first, then those of the second, ..."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import torch

from falcon_ssl.data.encoded import EncodedSplit, Records

logger = logging.getLogger(__name__)


class JoinedRecords(Records):
    """Records after records; read block by block where all of them are."""

    def __init__(self, parts: Sequence[Records]) -> None:
        self._parts = list(parts)
        self._starts = np.cumsum([0, *(len(part) for part in parts)])
        blocks = [part.blocks for part in parts]
        if all(found is not None for found in blocks):
            self.blocks = tuple(rows for found in blocks for rows in found or ())

    def __len__(self) -> int:
        return int(self._starts[-1])

    def _at(self, index: int) -> tuple[Records, int]:
        part = int(np.searchsorted(self._starts, index, side="right")) - 1
        return self._parts[part], index - int(self._starts[part])

    def read(self, index: int) -> bytes:
        """Content of one image file."""
        part, own = self._at(index)
        return part.read(own)

    def place(self, index: int) -> str:
        """What its part calls it."""
        part, own = self._at(index)
        return part.place(own)

    def path(self, index: int) -> str | None:
        """What its part calls it, where that is a path."""
        part, own = self._at(index)
        return part.path(own)


def joined_splits(parts: Sequence[Sequence[EncodedSplit]]) -> list[EncodedSplit]:
    """The same part of every source as one split, for each part; classes are the same where their names are."""
    if all(len(splits) == 1 for splits in parts):
        return [splits[0] for splits in parts]
    names = _class_names([split for splits in parts for split in splits])
    return [_joined(splits, names) for splits in parts]


def _joined(splits: Sequence[EncodedSplit], names: list[str] | None) -> EncodedSplit:
    labels = None
    if names is not None:
        own = [[names.index(name) for name in split.class_names or ()] for split in splits]
        labels = torch.cat(
            [torch.tensor(o)[split.labels] for o, split in zip(own, splits, strict=True)]
        )
    records = JoinedRecords([split.records for split in splits])
    return EncodedSplit(" + ".join(split.name for split in splits), records, labels, names)


def _class_names(splits: Sequence[EncodedSplit]) -> list[str] | None:
    """The classes of all splits; None where one does not name its own: a number may mean anything."""
    unnamed = [split.name for split in splits if split.labels is None or not split.class_names]
    if unnamed and any(split.labels is not None for split in splits):
        logger.warning("labels are not read: %s has no names of classes", " and ".join(unnamed))
    return None if unnamed else sorted({n for split in splits for n in split.class_names or ()})
