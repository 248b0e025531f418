"""Images that are stored encoded, in files or tables, and decoded when they are read."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from falcon_ssl.config.run import ReadingConfig
from falcon_ssl.core.extras import MissingExtraError
from falcon_ssl.core.machine import num_workers
from falcon_ssl.data.bands import decode_bands
from falcon_ssl.data.decode import Shape, decode
from falcon_ssl.data.skipped import Skipped
from falcon_ssl.data.source import TensorSource

TEST_NAMES = ("test", "validation", "valid", "val")  # of a part to report on; the first there is
_CHUNK = 256  # images that one thread decodes at a time


class Records(Protocol):
    """Encoded images by index.

    Attributes:
        blocks: Rows of every block when images can only be read block by block; else None.
    """

    blocks: tuple[int, ...] | None = None

    def __len__(self) -> int:
        """N."""

    def read(self, index: int) -> bytes:
        """Content of one image file; OSError when it cannot be had."""

    def place(self, index: int) -> str:
        """Path, or table and row: for logs and lists."""

    def path(self, index: int) -> str | None:
        """Path of an image, where it is a file or its table names one."""
        return None


class EncodedSplit(NamedTuple):
    """A part of a data set before its images are read.

    Args:
        name: For logs and reports.
        records: The encoded images.
        labels: int64 [N], or None.
        class_names: Name of every label, or None.
        in_words: Whether the labels are words where they are stored, and were numbered here.
    """

    name: str
    records: Records
    labels: Tensor | None = None
    class_names: list[str] | None = None
    in_words: bool = False


class EncodedSource:
    """A source that decodes on demand, for sets that do not fit in memory.

    Images are brought to ``shape``. An unreadable one is found when it is decoded. It is then recorded in ``skipped``
    and returned black; loaders leave such rows out. ``dtype`` is uint8, or uint16 where the reading keeps 16 bits.
    """

    def __init__(
        self, split: EncodedSplit, *, shape: Shape, skipped: Skipped, reading: ReadingConfig
    ) -> None:
        self.name = f"{split.name} ({len(split.records)} images of {shape[1]}x{shape[2]})"
        self.image_shape = shape
        self.labels = split.labels
        self.class_names = split.class_names
        self.skipped = skipped
        self.blocks = split.records.blocks
        self.dtype = torch.uint16 if reading.keep_16bit else torch.uint8
        self._records, self._decode = split.records, decoder(shape, reading)

    def __len__(self) -> int:
        return len(self._records)

    def images(self, indices: Tensor) -> Tensor:
        """Decode images: int64 [B] -> uint8 or uint16 [B, C, H, W] on the CPU.

        Raises:
            InputError: More unreadable images than tolerated.
        """
        images = torch.zeros(len(indices), *self.image_shape, dtype=self.dtype)
        for row, index in enumerate(indices.tolist()):
            try:
                images[row] = self._decode(self._records.read(index))
            except MissingExtraError:
                raise
            except Exception as error:  # a broken file can make Pillow raise anything
                self.skipped.add(index, place=self._records.place(index), reason=error)
        return images

    def paths(self, indices: Tensor) -> list[str | None]:
        """Paths of images, where they are files or their table names some: int64 [B] -> B of them."""
        return [self._records.path(index) for index in indices.tolist()]

    def readable(self, indices: Tensor) -> Tensor:
        """Which images have not been found unreadable so far: int64 [B] -> bool [B]."""
        return torch.tensor([index not in self.skipped.indices for index in indices.tolist()])


def decoder(shape: Shape, reading: ReadingConfig) -> Callable[[bytes], Tensor]:
    """From the content of an image file to its pixels [C, H, W]; 8 bits of gray or color are Pillow's own ground."""
    most = 1e6 * reading.max_megapixels
    if shape[0] in (1, 3) and not reading.keep_16bit and reading.value_range is None:
        return lambda data: decode(data, shape, max_pixels=most)
    return lambda data: decode_bands(
        data,
        shape,
        keep_16bit=reading.keep_16bit,
        value_range=reading.value_range,
        max_pixels=most,
    )


def decode_all(source: EncodedSource) -> TensorSource:
    """Decode a whole source with several threads, leaving unreadable images out.

    Raises:
        InputError: More unreadable images than tolerated.
    """
    images = torch.empty(len(source), *source.image_shape, dtype=source.dtype)

    def fill(indices: Tensor) -> None:
        images[indices[0] : indices[-1] + 1] = source.images(indices)

    pool = ThreadPoolExecutor(num_workers())
    try:  # the first error stops the rest
        for _ in pool.map(fill, torch.split(torch.arange(len(source)), _CHUNK)):
            pass
    finally:
        pool.shutdown(cancel_futures=True)
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
        paths=source.paths(torch.arange(len(source)) if rows is None else rows),
        num_stored=len(source),
    )
