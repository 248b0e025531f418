"""Which image comes when: an epoch's order as a function of (seed, epoch), split over ranks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from falcon_ssl.core.checks import check_at_least
from falcon_ssl.core.errors import InputError

_WINDOW_ROWS = 4096  # rows that are shuffled together when they can only be read in blocks
_LANES = (8, 4, 2, 1)  # that many processes can read blocks of their own

Rows = np.ndarray[Any, np.dtype[np.int64]]


def check_full_batch(num_images: int, batch_size: int) -> None:
    """Raise InputError where there are not images enough for one batch."""
    if num_images < min(2, batch_size):  # no batch size helps
        raise InputError(
            "too few images to train on",
            received=num_images,
            expected="at least 2, and hundreds to learn from",
            fix="is this the right folder?",
        )
    if num_images < batch_size:
        raise InputError(
            "batch_size is larger than the data set",
            received=f"batches of {batch_size} from {num_images} images",
            expected="at least one full batch an epoch",
            fix=f"give --batch_size {max(2, num_images // 2)} or so",
        )


@dataclass(frozen=True)
class BatchPlan:
    """Cuts every epoch's permutation into global batches and gives each rank its part of each.

    The order of epoch e depends on (seed, e) alone, and rank r takes rows [B r / R, B (r + 1) / R)
    of every global batch of B rows: any number of ranks sees the same batches, in rank order.

    Images that can only be read block by block are not permuted freely. The rows of the shuffled
    blocks are cut into L lanes, shuffled within windows of blocks there, and every batch takes its
    rows [B l / L, B (l + 1) / L) from lane l. Where R divides L a rank's rows are whole lanes: it
    reads its own blocks, and those at the ends of its lanes. L is a function of the blocks alone.

    Args:
        num_images: N, size of the source.
        batch_size: B, rows of a global batch, over all ranks together; an epoch leaves out a last one that is short.
        seed: Seed of the order.
        rank: r, this process.
        world_size: R, number of processes.
        blocks: Rows of every block, in the order of the rows; None permutes freely.

    Raises:
        InputError: A batch larger than the source, or a batch with fewer rows than ranks.

    Example:
        >>> plan = BatchPlan(num_images=10, batch_size=4, seed=0)
        >>> plan.batches_per_epoch, [len(rows) for rows in plan.epoch_indices(0)]
        (2, [4, 4])
    """

    num_images: int
    batch_size: int
    seed: int
    rank: int = 0
    world_size: int = 1
    blocks: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        check_at_least("seed", self.seed, 0)
        check_at_least(
            "batch_size", self.batch_size, self.world_size, fix="give every rank at least one row"
        )
        check_full_batch(self.num_images, self.batch_size)

    @property
    def batches_per_epoch(self) -> int:
        """Number of global batches in an epoch."""
        return self.num_images // self.batch_size

    def epoch_indices(self, epoch: int, start: int = 0) -> Iterator[Tensor]:
        """Indices int64 [B_r] of this rank's rows, batch by batch from ``start`` on; epochs begin with 0."""
        order = self._order(epoch)
        for batch in range(start, self.batches_per_epoch):
            rows = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            first = len(rows) * self.rank // self.world_size
            last = len(rows) * (self.rank + 1) // self.world_size
            yield torch.from_numpy(rows[first:last])

    def _order(self, epoch: int) -> Rows:
        random = np.random.default_rng((self.seed, epoch))
        if self.blocks is None:
            return random.permutation(self.num_images)
        edges, shuffled = np.cumsum([0, *self.blocks]), random.permutation(len(self.blocks))
        rows = np.concatenate([np.arange(edges[b], edges[b + 1]) for b in shuffled])
        block = np.repeat(np.arange(len(shuffled)), np.diff(edges)[shuffled])  # of every row
        # Rows go to the places of lane 0 one after the other, then to those of lane 1, ...
        lanes = num_lanes(self.blocks)
        lane_of_place = self._lane_of_place(lanes)
        place = np.argsort(lane_of_place, kind="stable")
        lane = lane_of_place[place]
        first_block = block[np.searchsorted(lane, lane)]
        window = (block - first_block) // max(1, blocks_per_window(self.blocks) // lanes)
        order = np.empty_like(rows)
        order[place] = rows[np.lexsort((random.random(len(rows)), window, lane))]
        return order

    def _lane_of_place(self, lanes: int) -> Rows:
        """Lanes that fill the places of an epoch: l for places [B l / L, B (l + 1) / L) of each batch."""
        place, left = np.arange(self.num_images), self.num_images % self.batch_size
        full, cuts = self.num_images - left, np.arange(1, lanes)
        in_batch = np.searchsorted(
            self.batch_size * cuts // lanes, place[:full] % self.batch_size, side="right"
        )
        in_short = np.searchsorted(left * cuts // lanes, place[:left], side="right")
        return np.concatenate([in_batch, in_short])


def num_lanes(blocks: tuple[int, ...]) -> int:
    """Parts of an epoch that are read side by side, each with a block of its own in memory.

    As many as there are blocks in a window at most, so that lanes take no more memory than shuffling does.
    """
    return next(lanes for lanes in _LANES if lanes <= min(len(blocks), blocks_per_window(blocks)))


def blocks_per_window(blocks: tuple[int, ...]) -> int:
    """Blocks that are shuffled together: enough for about 4096 rows."""
    return max(1, round(_WINDOW_ROWS * len(blocks) / max(1, sum(blocks))))
