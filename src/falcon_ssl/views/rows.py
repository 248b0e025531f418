"""Doing something to some images of a batch: an operation costs only the rows that it touches."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from falcon_ssl.views.draw import Random, uniform


def chosen_rows(count: int, probability: float, *, generator: Random) -> Tensor:
    """Choose every row with the same probability, independently: int64 [K] on the CPU, ascending."""
    return torch.nonzero(uniform(count, 0, 1, generator=generator) < probability).flatten()


def change_rows(images: Tensor, rows: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Replace the images [N, ...] at ``rows`` (int64 [K] on the CPU) by ``change`` of them, in place.

    ``change`` maps [K, ...] to [K, ...] and may write to its argument.
    """
    if len(rows) == 0:
        return images
    if len(rows) == len(images):
        return change(images)
    rows = rows.to(images.device, non_blocking=True)
    return images.index_copy_(0, rows, change(images.index_select(0, rows)))
