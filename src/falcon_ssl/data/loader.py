"""Batches of uint8 images on the device, from a source that is kept there."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from falcon_ssl import distributed
from falcon_ssl.data.order import BatchPlan
from falcon_ssl.data.source import Source


class ResidentLoader:
    """The whole source as one uint8 tensor on the device; a batch is one gather.

    Args:
        source: What to read, once, here.
        batch_size: Rows of a global batch, over all ranks together.
        seed: Seed of the order; see BatchPlan.
        device: Where the images are kept and the batches appear.
        drop_last: Leave out the last batch of an epoch when it is short.

    Memory: N C H W bytes on the device of every rank.

    Example:
        >>> from falcon_ssl.data import DigitsSource
        >>> loader = ResidentLoader(DigitsSource("train"), batch_size=256, seed=0, device="cpu")
        >>> indices, images = next(loader.epoch_batches(epoch=0))
        >>> loader.batches_per_epoch, images.shape, images.dtype
        (5, torch.Size([256, 1, 8, 8]), torch.uint8)
    """

    def __init__(
        self,
        source: Source,
        *,
        batch_size: int,
        seed: int,
        device: torch.device | str,
        drop_last: bool = True,
    ) -> None:
        self.plan = BatchPlan(
            num_images=len(source),
            batch_size=batch_size,
            seed=seed,
            drop_last=drop_last,
            rank=distributed.rank(),
            world_size=distributed.world_size(),
        )
        self._images = source.images(torch.arange(len(source))).to(device)

    @property
    def batches_per_epoch(self) -> int:
        """Number of global batches in an epoch."""
        return self.plan.batches_per_epoch

    def epoch_batches(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of one epoch, from batch ``start`` on.

        Args:
            epoch: From 0; the order is a function of (seed, epoch) alone.
            start: First batch to yield: a run resumes at position (epoch, batch).

        Yields:
            Indices int64 [B_r] and images uint8 [B_r, C, H, W], this rank's part, on the device.
        """
        for indices in self.plan.epoch_indices(epoch, start):
            indices = indices.to(self._images.device, non_blocking=True)
            yield indices, self._images[indices]
