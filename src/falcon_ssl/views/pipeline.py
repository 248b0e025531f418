"""From a batch of uint8 images to a list of augmented, normalised views."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from falcon_ssl.checks import InputError


class Operation(Protocol):
    """One augmentation of a batch of images in [0, 1]."""

    def __call__(self, images: Tensor, *, generator: torch.Generator) -> Tensor:
        """[N, C, H, W] -> [N, C, H', W']."""
        ...


@dataclass(frozen=True)
class Normalisation:
    """(x - mean) / std, per channel.

    Args:
        mean: One value per channel, or one for all.
        std: Likewise.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, images: Tensor) -> Tensor:
        """[N, C, H, W] in [0, 1] -> [N, C, H, W]."""
        mean = images.new_tensor(self.mean)[:, None, None]
        std = images.new_tensor(self.std)[:, None, None]
        return (images - mean) / std


class Views:
    """Several augmented views of every image, computed where the images are.

    Args:
        views: For every view, its operations in order.
        normalisation: Applied last, and alone in `evaluate`.
    """

    def __init__(
        self, views: Sequence[Sequence[Operation]], *, normalisation: Normalisation
    ) -> None:
        self._views = [list(operations) for operations in views]
        self._normalisation = normalisation

    @property
    def num_views(self) -> int:
        """V, the length of the list that a call returns."""
        return len(self._views)

    def __call__(self, images: Tensor, *, generator: torch.Generator) -> list[Tensor]:
        """Draw the views of a batch.

        Args:
            images: uint8 [N, C, H, W].
            generator: CPU generator, the only source of randomness: with its state restored, the
                same views come again.

        Returns:
            V tensors, float32 [N, C, H', W'], normalised; row n of each comes from image n.

        Raises:
            InputError: Images that are not uint8 [N, C, H, W], or a generator that is not on the
                CPU.
        """
        if generator.device.type != "cpu":
            raise InputError(
                "the generator of the views is on the wrong device",
                received=generator.device,
                expected="cpu (parameters are drawn there for every device)",
                fix="pass torch.Generator().manual_seed(seed)",
            )
        pixels = _unit_range(images)
        views = []
        for operations in self._views:
            view = pixels
            for operation in operations:
                view = operation(view, generator=generator)
            views.append(self._normalisation(view))
        return views

    def evaluate(self, images: Tensor) -> Tensor:
        """Normalise without any randomness.

        Args:
            images: uint8 [N, C, H, W].

        Returns:
            float32 [N, C, H, W].

        Raises:
            InputError: Images that are not uint8 [N, C, H, W].
        """
        return self._normalisation(_unit_range(images))


def _unit_range(images: Tensor) -> Tensor:
    if images.dim() != 4 or images.dtype != torch.uint8:
        raise InputError(
            "images do not fit the views",
            received=f"{images.dtype} of shape {tuple(images.shape)}",
            expected="uint8 [N, C, H, W]",
            fix="convert with falcon_ssl.data.as_uint8, which also rejects NaN",
        )
    return images.float().div_(255)
