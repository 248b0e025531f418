"""Operations on brightness alone, for images with any number of channels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from falcon_ssl.views.draw import normal_like, uniform


@dataclass(frozen=True)
class RandomIntensity:
    """Multiply every image by its own factor, uniform in [low, high); clamp to [0, 1]."""

    low: float
    high: float

    def __call__(self, images: Tensor, *, generator: torch.Generator) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        factor = uniform(len(images), self.low, self.high, generator=generator).to(images.device)
        return (images * factor[:, None, None, None]).clamp_(0, 1)


@dataclass(frozen=True)
class RandomNoise:
    """Add independent normal noise to every pixel; clamp to [0, 1].

    Args:
        std: Standard deviation, in units of the pixel range.
    """

    std: float

    def __call__(self, images: Tensor, *, generator: torch.Generator) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        return (images + self.std * normal_like(images, generator=generator)).clamp_(0, 1)
