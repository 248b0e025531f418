"""What a data set is to the library: images by index, labels that only evaluation reads.

Pixels are uint8, or uint16 where 16 bits are kept; the full range of either is [0, 1] to all that computes on them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from falcon_ssl.core.checks import check_finite
from falcon_ssl.core.errors import InputError
from falcon_ssl.core.machine import available_memory, bytes_text
from falcon_ssl.core.pixels import DTYPES
from falcon_ssl.data.skipped import Skipped

RESIDENT_FRACTION = 0.4  # of the free memory that images may take


class Source(Protocol):
    """A fixed, finite set of equally shaped images.

    Attributes:
        name: For logs and reports: "digits train (scikit-learn, 1437 images of 8x8)".
        image_shape: (channels, height, width).
        labels: int64 [N], or None; only evaluation reads it.
        class_names: Name of every label, or None.
    """

    name: str
    image_shape: tuple[int, int, int]
    labels: Tensor | None
    class_names: list[str] | None

    def __len__(self) -> int:
        """N."""

    def images(self, indices: Tensor) -> Tensor:
        """Read images: int64 [B] -> uint8 or uint16 [B, C, H, W] on the CPU."""


@runtime_checkable
class Fallible(Protocol):
    """A source that may meet unreadable images only when it reads them; it returns them black."""

    def readable(self, indices: Tensor) -> Tensor:
        """Which images have not been found unreadable so far: int64 [B] -> bool [B]."""


def fits(source: Source, device: torch.device | str = "cpu") -> tuple[bool, str]:
    """Whether all images of a source, decoded, may be kept on a device; and the comparison in words."""
    dtype: torch.dtype = getattr(source, "dtype", torch.uint8)
    needed = len(source) * math.prod(source.image_shape) * dtype.itemsize
    available = available_memory(device)
    words = f"{source.name}: {bytes_text(needed)} of {bytes_text(available)} free memory"
    return needed <= RESIDENT_FRACTION * available, words


def read_images(source: Source, indices: Tensor) -> tuple[Tensor, Tensor]:
    """Read images and leave the unreadable ones out: to be called by all that computes on images.

    int64 [B] -> the indices that are left, int64 [B'], and their images [B', C, H, W] on the CPU.
    """
    images = source.images(indices)
    if isinstance(source, Fallible):  # asked afterwards: they are found by reading
        readable = source.readable(indices)
        if not readable.all():
            return indices[readable], images[readable]
    return indices, images


def data_rows(source: Source, indices: Tensor) -> Tensor:
    """Rows of images in the stored data, of which a source may leave some out: int64 [B] -> int64 [B].

    The place among all files of a folder in the order of their paths, or the row of a table's split. ``rows`` [N] of
    the source, if it has them, are the part of the data that it holds.
    """
    rows: Tensor | None = getattr(source, "rows", None)
    return indices if rows is None else rows[indices]


def num_stored(source: Source) -> int:
    """Images of the stored data, those among them that a source leaves out."""
    return getattr(source, "num_stored", None) or len(source)


def data_paths(source: Source, indices: Tensor) -> list[str | None]:
    """Paths of images, where they are files or their table names some: int64 [B] -> B of them."""
    paths = getattr(source, "paths", None)
    return [None] * len(indices) if paths is None else list(paths(indices))


@dataclass(frozen=True)
class Splits:
    """The two parts of a data set.

    Attributes:
        train: What pretraining sees.
        test: What figures are reported on; None when the data has no such part.
        note: One line for reports: which split, and how faithful the pixels are.
        skipped: The unreadable images of either part; read on demand, they are found while they are read.
        sources: Of encoded images, how many every source holds, by its name.
        resized_to: Side that images of several sizes are brought to, where nobody chose one.
    """

    train: Source
    test: Source | None
    note: str
    skipped: tuple[Skipped, ...] = ()
    sources: Mapping[str, int] = field(default_factory=dict)
    resized_to: int | None = None

    @property
    def num_classes(self) -> int | None:
        """How many classes a classifier has; None where a part has no labels, or train is of one class."""
        labels = self._labels
        if labels is None or len(torch.unique(labels[0])) < 2:
            return None
        return int(torch.cat(labels).max()) + 1

    @property
    def num_unseen(self) -> int:
        """How many labeled test images are of a class that no labeled training image has."""
        labels = self._labels
        return 0 if labels is None else int((~torch.isin(labels[1], labels[0])).sum())

    @property
    def _labels(self) -> tuple[Tensor, Tensor] | None:
        """Labels of train and test, where both parts have some."""
        train, test = self.train.labels, None if self.test is None else self.test.labels
        return None if train is None or test is None else (train.cpu(), test.cpu())


class TensorSource:
    """Images that are already in memory.

    Args:
        images: [N, C, H, W], uint8, uint16 or floating point in [0, 1].
        labels: int64 [N], or None.
        name: For logs and reports.
        class_names: Name of every label, or None.
        rows: Which rows of the data these images are, int64 [N]; None when they are all of it.
        paths: Path of every image, where it has one.
        num_stored: How many images the data has; None when these are all.

    Attributes:
        tensor: All images, uint8 or uint16 [N, C, H, W]; not a copy.
        dtype: Of the images.

    Raises:
        InputError: Wrong shape, no images, NaN or values outside [0, 1], labels of another length.

    Example:
        >>> source = TensorSource(torch.zeros(4, 1, 8, 8), name="four black squares")
        >>> source.images(torch.tensor([2, 0])).shape, len(source)
        (torch.Size([2, 1, 8, 8]), 4)
    """

    def __init__(
        self,
        images: Tensor,
        *,
        name: str,
        labels: Tensor | None = None,
        class_names: list[str] | None = None,
        rows: Tensor | None = None,
        paths: Sequence[str | None] | None = None,
        num_stored: int | None = None,
    ) -> None:
        if images.dim() != 4 or len(images) == 0:
            raise InputError(
                f"images of {name} have the wrong shape",
                received=tuple(images.shape),
                expected="[N, C, H, W] with N >= 1",
            )
        if labels is not None and labels.shape != (len(images),):
            raise InputError(
                f"labels of {name} do not fit its images",
                received=f"shape {tuple(labels.shape)}",
                expected=f"one label for each of {len(images)} images",
            )
        self.name = name
        self.labels = None if labels is None else labels.long()
        self.class_names = class_names
        self.rows, self.num_stored = rows, num_stored
        self._paths = paths
        self.tensor = as_pixels(images, name=name)
        self.dtype = self.tensor.dtype
        _, channels, height, width = images.shape
        self.image_shape = (channels, height, width)

    def __len__(self) -> int:
        return len(self.tensor)

    def images(self, indices: Tensor) -> Tensor:
        """Read images: int64 [B] -> uint8 or uint16 [B, C, H, W] on the CPU."""
        return self.tensor[indices]

    def paths(self, indices: Tensor) -> list[str | None]:
        """Paths of images, where there are some: int64 [B] -> B of them."""
        found = self._paths
        return [None if found is None else found[index] for index in indices.tolist()]


def as_pixels(images: Tensor, *, name: str) -> Tensor:
    """Bring pixel values to uint8: rounded when floating point in [0, 1], unchanged when uint8 or uint16.

    Args:
        images: Any shape; uint8, uint16, or floating point in [0, 1].
        name: What the images are called in an error.

    Returns:
        uint8 or uint16, same shape.

    Raises:
        InputError: NaN or infinity, values outside [0, 1], or another dtype.
    """
    if images.dtype in DTYPES:
        return images
    if not images.is_floating_point():
        raise InputError(
            f"images of {name} have the wrong type",
            received=images.dtype,
            expected="uint8, uint16 or floating point in [0, 1]",
        )
    check_finite(f"images of {name}", images, fix="drop or repair the broken images")
    low, high = float(images.min()), float(images.max())
    if low < 0 or high > 1:
        raise InputError(
            f"pixel values of {name} are out of range",
            received=f"{low:.3g} to {high:.3g}",
            expected="0 to 1 for floating point images",
            fix="rescale them, before any normalization",
        )
    return (images * 255).round().to(torch.uint8)
