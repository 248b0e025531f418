"""Some images of a source, and a fixed way of holding a part of them out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from falcon_ssl.core.errors import InputError
from falcon_ssl.data.source import (
    Fallible,
    Source,
    Splits,
    TensorSource,
    data_paths,
    data_rows,
    num_stored,
)

_HOLDOUT_SEED = 0  # fixed: a split belongs to the data set, not to a run


class Subset:
    """The images of a source at some rows.

    Args:
        source: Where the images are.
        rows: int64 [N], in the order of the subset.
        name: For logs and reports.
    """

    def __init__(self, source: Source, rows: Tensor, *, name: str) -> None:
        self.name = name
        self.labels = None if source.labels is None else source.labels[rows]
        self.class_names = source.class_names
        self.rows = data_rows(source, rows)
        self.image_shape = source.image_shape
        self._source = source
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def images(self, indices: Tensor) -> Tensor:
        """Read images: int64 [B] -> uint8 [B, C, H, W] on the CPU."""
        return self._source.images(self._rows[indices])

    def paths(self, indices: Tensor) -> list[str | None]:
        """Paths of images, where there are some: int64 [B] -> B of them."""
        return data_paths(self._source, self._rows[indices])

    def readable(self, indices: Tensor) -> Tensor:
        """Which images have not been found unreadable so far: int64 [B] -> bool [B]."""
        if isinstance(self._source, Fallible):
            return self._source.readable(self._rows[indices])
        return torch.ones(len(indices), dtype=torch.bool)


def hold_out(splits: Splits, fraction: float) -> Splits:
    """Take a test part out of the training part, in place of the data's own.

    The images are chosen at random, always the same ones: whether they are in memory or read on demand, and whichever
    of them turn out to be unreadable.

    Args:
        splits: The data.
        fraction: Of the images, in (0, 1).

    Raises:
        InputError: A fraction that leaves one part empty.
    """
    source, total = splits.train, num_stored(splits.train)
    count = round(fraction * total)
    order = np.random.default_rng(_HOLDOUT_SEED).permutation(total)
    is_held_out = torch.zeros(total, dtype=torch.bool)
    is_held_out[torch.from_numpy(order[:count])] = True
    if total > len(source):
        is_held_out = is_held_out[data_rows(source, torch.arange(len(source)))]
    chosen, rest = (torch.nonzero(one).flatten() for one in (is_held_out, ~is_held_out))
    if not len(chosen) or not len(rest):
        raise InputError(
            "holdout leaves a part empty",
            received=f"{fraction} of {len(source)} images",
            expected="a fraction in (0, 1) that gives both parts an image",
        )
    return replace(
        splits,
        train=_part(source, rest, f"{len(rest)} to train on"),
        test=_part(source, chosen, f"{len(chosen)} held out"),
        note=f"{splits.note}; test part: {fraction:.0%} held out at random, always the same",
    )


def _part(source: Source, rows: Tensor, what: str) -> Source:
    """Rows of a source, in memory when the source is."""
    part = Subset(source, rows, name=f"{source.name}, {what}")
    if not isinstance(source, TensorSource):
        return part
    return TensorSource(
        source.images(rows),
        name=part.name,
        labels=part.labels,
        class_names=part.class_names,
        rows=part.rows,
        paths=data_paths(source, rows),
    )
