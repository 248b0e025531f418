"""Images that lie encoded somewhere, in files or tables, and are decoded when they are read."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import torch
from torch import Tensor

from falcon_ssl.data.decode import Shape, decode
from falcon_ssl.data.memory import num_workers
from falcon_ssl.data.skipped import Skipped
from falcon_ssl.data.source import TensorSource

_CHUNK = 256  # images that one thread decodes at a time


class Records(Protocol):
    """Encoded images by index."""

    def __len__(self) -> int:
        """N."""
        ...

    def read(self, index: int) -> bytes:
        """Content of one image file; OSError when it cannot be had."""
        ...

    def place(self, index: int) -> str:
        """Where the image lies, for people."""
        ...


def blocks_of(records: Records) -> tuple[int, ...] | None:
    """Rows of every block of records that can only be read block by block; None for others."""
    return getattr(records, "blocks", None)


class EncodedSource:
    """A source that decodes on demand, for sets that do not fit in memory.

    An unreadable image is found when it is decoded. It is then noted in ``skipped`` and returned
    black; loaders leave such rows out.

    Args:
        records: The encoded images.
        shape: What images are brought to.
        name: For people.
        labels: int64 [N], or None.
        class_names: Name of every label, or None.
        skipped: Counts the unreadable ones.
        told: Whether their size in memory has been told to people already.
    """

    def __init__(
        self,
        records: Records,
        *,
        shape: Shape,
        name: str,
        labels: Tensor | None,
        class_names: list[str] | None,
        skipped: Skipped,
        told: bool = False,
    ) -> None:
        self.name = name
        self.labels = labels
        self.class_names = class_names
        self.skipped = skipped
        self.told = told
        self._records = records
        self._shape = shape

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        return self._shape.channels, self._shape.height, self._shape.width

    @property
    def blocks(self) -> tuple[int, ...] | None:
        """Rows of every block when images can only be read block by block; else None."""
        return blocks_of(self._records)

    def __len__(self) -> int:
        return len(self._records)

    def images(self, indices: Tensor) -> Tensor:
        """Decode images: int64 [B] -> uint8 [B, C, H, W] on the CPU.

        Raises:
            InputError: More unreadable images than tolerated.
        """
        images = torch.zeros(len(indices), *self.image_shape, dtype=torch.uint8)
        for row, index in enumerate(indices.tolist()):
            try:
                images[row] = decode(self._records.read(index), self._shape)
            except Exception as error:  # a broken file can make Pillow raise anything
                self.skipped.add(index, place=self._records.place(index), reason=error)
        return images

    def readable(self, indices: Tensor) -> Tensor:
        """Which images have not been found unreadable so far: int64 [B] -> bool [B]."""
        return torch.tensor([index not in self.skipped.indices for index in indices.tolist()])


def decode_all(source: EncodedSource) -> TensorSource:
    """Decode a whole source with several threads, leaving unreadable images out.

    Raises:
        InputError: More unreadable images than tolerated.
    """
    images = torch.empty(len(source), *source.image_shape, dtype=torch.uint8)
    chunks = torch.split(torch.arange(len(source)), _CHUNK)

    def fill(indices: Tensor) -> None:
        images[indices[0] : indices[-1] + 1] = source.images(indices)

    run_in_threads(fill, chunks)
    labels, rows = source.labels, None
    if source.skipped.indices:
        rows = torch.nonzero(source.readable(torch.arange(len(source)))).flatten()
        images = images[rows]
        labels = None if labels is None else labels[rows]
    return TensorSource(
        images,
        name=source.name,
        labels=labels,
        class_names=source.class_names,
        rows=rows,
        told=source.told,
    )


def run_in_threads(function: Callable[[Tensor], None], items: Iterable[Tensor]) -> None:
    """Call a function on every item from several threads; the first error stops the rest."""
    pool = ThreadPoolExecutor(num_workers())
    try:
        for future in [pool.submit(function, item) for item in items]:
            future.result()
    finally:
        pool.shutdown(cancel_futures=True)
