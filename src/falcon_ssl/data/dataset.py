"""A user's own torch.utils.data.Dataset as a source of images."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from operator import index
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from falcon_ssl.config.run import ReadingConfig
from falcon_ssl.core.errors import InputError
from falcon_ssl.core.parts import make_part
from falcon_ssl.data.decode import pixels_of
from falcon_ssl.data.source import Source, Splits, TensorSource, as_pixels, fits

logger = logging.getLogger(__name__)


class Dataset(Protocol):
    """What is asked of a data set, as `torch.utils.data.Dataset` and the sets of torchvision have it."""

    def __len__(self) -> int:
        """N."""

    def __getitem__(self, index: int, /) -> Any:
        """An image, or (image, label, ...)."""


class DatasetSource:
    """Images of a data set, read when they are asked for; by several threads at a time.

    Args:
        dataset: Item i is an image, or a tuple (image, label, ...): a Pillow image, or a tensor [C, H, W] or array
            [H, W, C], uint8, uint16 or floating point in [0, 1]. The same one at every call: augmentation belongs into
            the views. Labels are its ``targets`` or ``labels``, where it has them; ``classes`` are their names.
        name: For logs and reports.
        image_size: Side of the square that Pillow images are brought to; None takes the size of the first image.
        channels: 1 or 3, for Pillow images; None takes those of the first.

    Raises:
        InputError: An empty set, an item that is no image, images of other shapes.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        name: str,
        image_size: int | None = None,
        channels: int | None = None,
    ) -> None:
        for needed in ("__len__", "__getitem__"):
            if not hasattr(dataset, needed):
                raise InputError(
                    f"{name} is not a data set",
                    received=f"{type(dataset).__name__} without {needed}",
                    expected="a torch.utils.data.Dataset with a length, or two of them: (train, test)",
                )
        if len(dataset) == 0:
            raise InputError(f"{name} is empty", received="0 images", expected="at least 1")
        self._dataset, self.name = dataset, name
        first = _image_of(dataset[0])
        shape = _shape_of(first, name)
        side = (image_size, image_size) if image_size else shape[1:]
        self.image_shape: tuple[int, int, int] = (channels or shape[0], *side)
        is_pillow = hasattr(first, "convert")
        self.dtype = (
            torch.uint8 if is_pillow else as_pixels(_tensor_of(first, name), name=name).dtype
        )
        found = (getattr(dataset, own, None) for own in ("targets", "labels"))
        self.labels = _as_labels(
            next((one for one in found if one is not None), None), len(dataset)
        )
        classes = getattr(dataset, "classes", None)
        self.class_names = None if classes is None else [str(one) for one in classes]

    def __len__(self) -> int:
        return len(self._dataset)

    def images(self, indices: Tensor) -> Tensor:
        """Read images: int64 [B] -> uint8 or uint16 [B, C, H, W] on the CPU."""
        return torch.stack([self.item(row)[0] for row in indices.tolist()])

    def item(self, number: int) -> tuple[Tensor, int | None]:
        """Image [C, H, W], and label where the item has one."""
        item = self._dataset[number]
        name = f"image {number} of {self.name}"
        image = _image_of(item)
        if hasattr(image, "convert"):
            pixels = pixels_of(image, self.image_shape)
        else:
            pixels = as_pixels(_tensor_of(image, name), name=name)
        if tuple(pixels.shape) != self.image_shape:
            raise InputError(
                f"{name} has another shape",
                received=tuple(pixels.shape),
                expected=self.image_shape,
                fix="resize in the data set, or return Pillow images and set reading.image_size",
            )
        return pixels, _label_of(item)

    def decoded(self) -> TensorSource:
        """All images, in memory, with the labels that items have."""
        items = [self.item(row) for row in range(len(self))]
        known = _as_labels([label for _, label in items], len(items))
        return TensorSource(
            torch.stack([pixels for pixels, _ in items]),
            name=self.name,
            labels=known if self.labels is None else self.labels,
            class_names=self.class_names,
        )


def dataset_splits(name: str, reading: ReadingConfig) -> Splits:
    """Open "python:MODULE:FUNCTION": a data set, or (train, test).

    Raises:
        InputError: As `falcon_ssl.core.parts.make_part` and `DatasetSource`.
    """
    made = make_part("data", name)
    parts: Sequence[Any] = made if isinstance(made, tuple) else (made,)
    if len(parts) > 2:
        raise InputError(
            "too many data sets", received=len(parts), expected="one, or two: (train, test)"
        )
    sources: list[Source] = []
    size = reading.image_size
    for dataset, part in zip(parts, ("train", "test"), strict=False):
        source = DatasetSource(
            dataset, name=f"{name} {part}", image_size=size, channels=reading.channels
        )
        enough, words = fits(source)
        in_memory = enough if reading.in_memory is None else reading.in_memory
        logger.info("%s, %s", words, "read once and kept" if in_memory else "read on demand")
        sources.append(source.decoded() if in_memory else source)
    if len({source.image_shape for source in sources}) > 1:
        raise InputError(
            f"the parts of {name} differ in their images",
            received=" and ".join(str(source.image_shape) for source in sources),
            expected="one shape (channels, height, width)",
        )
    return Splits(sources[0], sources[1] if len(sources) > 1 else None, note=f"own data, {name}")


def _as_labels(values: Any, count: int) -> Tensor | None:
    """int64 [N] of one class number an image; None for anything else: several numbers, words, -1 for an unknown one."""
    try:
        labels = np.asarray(values)
    except ValueError:  # of different lengths
        return None
    if labels.shape != (count,) or labels.dtype.kind not in "iu" or labels.min() < 0:
        return None
    return torch.from_numpy(labels.astype(np.int64))


def _label_of(item: Any) -> int | None:
    """The whole number after the image; None where there is another thing, or nothing."""
    if not isinstance(item, (tuple, list)) or len(item) < 2:
        return None
    try:
        return index(item[1])
    except TypeError:
        return None


def _image_of(item: Any) -> Any:
    return item[0] if isinstance(item, (tuple, list)) else item


def _tensor_of(image: Any, name: str) -> Tensor:
    """[C, H, W] of a tensor, or of an array [H, W, C] or [H, W]."""
    if isinstance(image, np.ndarray) and image.ndim in (2, 3):
        return torch.from_numpy(image.reshape(*image.shape[:2], -1).copy()).permute(2, 0, 1)
    if isinstance(image, Tensor) and image.dim() in (2, 3):
        return image if image.dim() == 3 else image[None]
    shape = f" of shape {tuple(image.shape)}" if hasattr(image, "shape") else ""
    raise InputError(
        f"{name} is no image",
        received=f"{type(image).__name__}{shape}",
        expected="a Pillow image, a tensor [C, H, W] or an array [H, W, C]; or a tuple that begins with one",
    )


def _shape_of(image: Any, name: str) -> tuple[int, int, int]:
    if hasattr(image, "convert"):
        width, height = image.size
        return (1 if len(image.getbands()) == 1 and image.mode != "P" else 3, height, width)
    channels, height, width = _tensor_of(image, f"image 0 of {name}").shape
    return (channels, height, width)
