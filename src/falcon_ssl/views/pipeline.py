"""From a batch of stored images to a list of augmented, normalized views."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from falcon_ssl.core.constants import constant
from falcon_ssl.core.errors import InputError
from falcon_ssl.core.pixels import DTYPES, unit_range
from falcon_ssl.views.crop import resize
from falcon_ssl.views.draw import BatchSlice, Random


class Operation(Protocol):
    """One augmentation of a batch of images in [0, 1]."""

    def __call__(self, images: Tensor, *, generator: Random) -> Tensor:
        """[N, C, H, W] -> [N, C, H', W']; may write to its argument."""


@dataclass(frozen=True)
class Normalization:
    """(x - mean) / std, per channel.

    Args:
        mean: One value per channel, or one for all.
        std: Likewise.

    Raises:
        InputError: A number that is not finite, or a standard deviation that is not above 0.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        finite = all(map(math.isfinite, (*self.mean, *self.std)))
        if not (finite and all(std > 0 for std in self.std)):
            raise InputError(
                "images cannot be normalized by these numbers",
                received=f"mean {list(self.mean)}, std {list(self.std)}",
                expected="finite numbers, each standard deviation above 0",
            )

    def __call__(self, images: Tensor) -> Tensor:
        """[N, C, H, W] in [0, 1] -> [N, C, H, W], in place. InputError: another number of channels."""
        channels = images.shape[1]
        if other := {len(self.mean), len(self.std)} - {1, channels}:
            raise InputError(
                "the views are made for other images",
                received=f"{channels} channels",
                expected=f"{max(other)}",
                fix="choose the views cifar or imagenet for color, grayscale or digits for gray, else bands",
            )
        means, stds = (one * (channels // len(one)) for one in (self.mean, self.std))
        offset = tuple(-mean / std for mean, std in zip(means, stds, strict=True))
        scale, shift = (
            constant(numbers, images.device, images.dtype)[:, None, None]
            for numbers in (tuple(1 / std for std in stds), offset)
        )
        return torch.addcmul(shift, images, scale, out=images)  # one launch


class Views:
    """Several augmented views of every image, computed where the images are.

    Args:
        views: For every view, its operations in order.
        normalization: Applied last.
        size: Side of the large views; None is that of the images.
        evaluate_size: Side that `evaluate` resizes to; None is ``size``.
        earlier: What to draw in the first parts of a training instead, in order; see `at`.

    Example:
        >>> import torch
        >>> from falcon_ssl.views import build_views
        >>> views = build_views("cifar")
        >>> images = torch.zeros(4, 3, 32, 32, dtype=torch.uint8)
        >>> view1, view2 = views(images, generator=torch.Generator().manual_seed(0))
        >>> view1.shape, view1.dtype
        (torch.Size([4, 3, 32, 32]), torch.float32)
    """

    def __init__(
        self,
        views: Sequence[Sequence[Operation]],
        *,
        normalization: Normalization,
        size: int | None = None,
        evaluate_size: int | None = None,
        earlier: Sequence[Views] = (),
    ) -> None:
        self.operations = tuple(tuple(operations) for operations in views)
        self.normalization = normalization
        self.size = size
        self.evaluate_size = size if evaluate_size is None else evaluate_size
        self._stages = (*earlier, self)

    @property
    def num_views(self) -> int:
        """V, the length of the list that a call returns."""
        return len(self.operations)

    def compile(self) -> None:
        """torch.compile what the operations do to pixels, those that have a method `compiled`."""
        for stage in self._stages:
            stage.operations = tuple(
                tuple(
                    operation.compiled() if hasattr(operation, "compiled") else operation
                    for operation in view
                )
                for view in stage.operations
            )

    def at(self, progress: float) -> Views:
        """The views of a moment of the training: small ones first, when there are ``earlier`` ones.

        What a network learns first can be seen in small images, which cost less (progressive
        resizing; Tan and Le 2021).

        Args:
            progress: Fraction of the training that is done, in [0, 1].
        """
        return self._stages[min(int(progress * len(self._stages)), len(self._stages) - 1)]

    def __call__(self, images: Tensor, *, generator: Random) -> list[Tensor]:
        """Draw the views of a batch.

        Args:
            images: uint8 or uint16 [N, C, H, W].
            generator: CPU generator, the only source of randomness: with its state restored, the
                same views come again. A `BatchSlice` of one where ranks share a global batch.

        Returns:
            V tensors, float32 [N, C, H', W'], normalized; row n of each comes from image n.

        Raises:
            InputError: Images that are not uint8 or uint16 [N, C, H, W] or have the wrong number of
                channels, or a generator that is not on the CPU.
        """
        _check_images(images)
        source = generator.generator if isinstance(generator, BatchSlice) else generator
        if source.device.type != "cpu":
            raise InputError(
                "the generator of the views is on the wrong device",
                received=source.device,
                expected="cpu (parameters are drawn there for every device)",
                fix="pass torch.Generator().manual_seed(seed)",
            )
        views = []
        for operations in self.operations:
            pixels = unit_range(images)
            for operation in operations:
                pixels = operation(pixels, generator=generator)
            views.append(self.normalization(pixels))
        return views

    def evaluate(self, images: Tensor) -> Tensor:
        """Resize and normalize, without any randomness.

        Args:
            images: uint8 or uint16 [N, C, H, W].

        Returns:
            float32 [N, C, evaluate_size, evaluate_size].

        Raises:
            InputError: Images of another type or shape, or with the wrong number of channels.
        """
        _check_images(images)
        pixels, size = unit_range(images), self.evaluate_size
        if size is not None and images.shape[2:] != (size, size):
            pixels = resize(pixels, size=size)
        return self.normalization(pixels)


def _check_images(images: Tensor) -> None:
    if images.dim() != 4 or images.dtype not in DTYPES or len(images) == 0:
        raise InputError(
            "images do not fit the views",
            received=f"{images.dtype} of shape {tuple(images.shape)}",
            expected="uint8 or uint16 [N, C, H, W] with N >= 1",
            fix="convert with falcon_ssl.data.as_pixels, which also rejects NaN",
        )
