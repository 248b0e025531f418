"""Batches of uint8 images on the device: from memory, or decoded ahead by threads."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from typing import TypeAlias

import torch
from torch import Tensor

from falcon_ssl.core import distributed
from falcon_ssl.core.machine import num_workers
from falcon_ssl.core.pixels import take_rows
from falcon_ssl.data.order import BatchPlan
from falcon_ssl.data.source import Source, TensorSource, fits, read_images

logger = logging.getLogger(__name__)

Batch: TypeAlias = tuple[Tensor, Tensor]
Device: TypeAlias = torch.device | str


class Loader:
    """Batches of a source, in the order of a `BatchPlan`.

    Args:
        source: What to read.
        batch_size: Rows of a global batch, over all ranks together; an epoch leaves out a last one that is short.
        seed: Seed of the order; see BatchPlan.
        device: Where the batches appear.
    """

    def __init__(self, source: Source, *, batch_size: int, seed: int, device: Device) -> None:
        self.plan = BatchPlan(
            num_images=len(source),
            batch_size=batch_size,
            seed=seed,
            rank=distributed.rank(),
            world_size=distributed.world_size(),
            blocks=getattr(source, "blocks", None),
        )
        self._source = source
        self._device = torch.device(device)

    @property
    def batches_per_epoch(self) -> int:
        """Number of global batches in an epoch."""
        return self.plan.batches_per_epoch


class ResidentLoader(Loader):
    """The whole source as one uint8 tensor on the device; a batch is one gather. Arguments as `Loader`.

    Memory: N C H W bytes on the device of every rank; none beside the source's own on a CPU.

    Example:
        >>> from falcon_ssl.data import DigitsSource
        >>> loader = ResidentLoader(DigitsSource("train"), batch_size=256, seed=0, device="cpu")
        >>> indices, images = next(loader.epoch_batches(epoch=0))
        >>> loader.batches_per_epoch, images.shape, images.dtype
        (5, torch.Size([256, 1, 8, 8]), torch.uint8)
    """

    @cached_property
    def _images(self) -> Tensor:
        if isinstance(self._source, TensorSource):
            return self._source.tensor.to(self._device)
        return self._source.images(torch.arange(len(self._source))).to(self._device)

    def epoch_batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Batches of one epoch, from batch ``start`` on.

        Args:
            epoch: From 0; the order is a function of (seed, epoch) alone.
            start: First batch to yield: a run resumes at position (epoch, batch).

        Yields:
            Indices int64 [B_r] and images uint8 [B_r, C, H, W], this rank's part, on the device.
        """
        for indices in self.plan.epoch_indices(epoch, start):
            indices = indices.to(self._device, non_blocking=True)
            yield indices, take_rows(self._images, indices)


class StreamingLoader(Loader):
    """The same batches in the same order, read by threads a few batches ahead.

    Images that turn out to be unreadable are left out of their batch.

    Args:
        workers: Threads that read, one batch each; None for one a core. The others as `Loader`.

    Memory: ``workers`` batches on the host.
    """

    def __init__(
        self,
        source: Source,
        *,
        batch_size: int,
        seed: int,
        device: Device,
        workers: int | None = None,
    ) -> None:
        super().__init__(source, batch_size=batch_size, seed=seed, device=device)
        self._workers = workers

    def epoch_batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Batches of one epoch, from batch ``start`` on; as `ResidentLoader.epoch_batches`.

        Raises:
            InputError: More unreadable images than the source tolerates.
        """
        wanted = self.plan.epoch_indices(epoch, start)
        yield from map(self._to_device, read_ahead(self._read, wanted, workers=self._workers))

    def _read(self, indices: Tensor) -> Batch:
        indices, images = read_images(self._source, indices)
        if self._device.type == "cuda":
            indices, images = indices.pin_memory(), images.pin_memory()
        return indices, images

    def _to_device(self, batch: Batch) -> Batch:
        indices, images = (part.to(self._device, non_blocking=True) for part in batch)
        return indices, images


def read_ahead(
    read: Callable[[Tensor], Batch], batches: Iterable[Tensor], *, workers: int | None = None
) -> Iterator[Batch]:
    """Read batches by threads, a few ahead of the one that is asked for, in their order.

    Args:
        read: Indices of a batch -> the indices that could be read, and their images.
        batches: Indices, batch by batch.
        workers: Threads, one batch each; None for one a core.
    """
    workers = workers or num_workers()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="read")
    try:
        ahead: deque[Future[Batch]] = deque()
        for indices in batches:
            ahead.append(pool.submit(read, indices))
            if len(ahead) > workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:  # also when the consumer stops early
        pool.shutdown(cancel_futures=True)


def build_loader(
    source: Source, *, batch_size: int, seed: int, device: Device
) -> ResidentLoader | StreamingLoader:
    """Choose the loader: resident when the source is decoded and fits on the device.

    Args:
        source: What to read.
        batch_size: Rows of a global batch, over all ranks together.
        seed: Seed of the order of the images.
        device: Where the batches appear.

    Raises:
        InputError: A batch larger than the source, or with fewer rows than ranks.
    """
    device = torch.device(device)
    resident = isinstance(source, TensorSource)
    if device.type != "cpu":  # on a CPU the images are where they are
        enough, words = fits(source, device)
        resident = resident and enough
        how = "resident there" if resident else "streamed to it"
        logger.info("%s on %s, %s", words, device, how)
    make = ResidentLoader if resident else StreamingLoader
    loader = make(source, batch_size=batch_size, seed=seed, device=device)
    if left := len(source) % batch_size:
        logger.info(
            "batches of %d leave out %d of %d images, other ones in every epoch",
            batch_size,
            left,
            len(source),
        )
    return loader
