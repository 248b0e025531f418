"""Blur, solarization and noise.

The functions may write to their argument: pass a tensor that nobody else needs.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from falcon_ssl.views.apply import RandomApply
from falcon_ssl.views.draw import Change, Random, change_rows, chosen_rows, normal_like, uniform
from falcon_ssl.views.separable import apply_separable, gaussian_matrix


def gaussian_blur(images: Tensor, sigma: Tensor) -> Tensor:
    """Blur every image with its own width; at the border, the weights of inside pixels sum to 1.

    Args:
        images: [N, C, H, W], floating point.
        sigma: [N], in pixels, > 0.

    Returns:
        [N, C, H, W].
    """
    height, width = images.shape[2:]
    columns = gaussian_matrix(sigma, size=width)
    rows = columns if height == width else gaussian_matrix(sigma, size=height)
    return apply_separable(images, rows, columns)


def solarize(images: Tensor) -> Tensor:
    """Invert the brighter half of the range, x <- min(x, 1 - x); [N, C, H, W] in [0, 1]."""
    return torch.minimum(images, 1 - images)


@dataclass(frozen=True)
class RandomBlur:
    """Blur some images.

    Args:
        probability: Of touching an image.
        sigma: Smallest and largest width, as a fraction of the image's side: Pillow's radius 0.1 to 2
            on 224 pixels is 0.00045 to 0.009.
    """

    probability: float
    sigma: tuple[float, float] = (0.1 / 224, 2 / 224)

    def __call__(self, images: Tensor, *, generator: Random) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        rows = chosen_rows(len(images), self.probability, generator=generator)
        side = images.shape[3]
        low, high = side * self.sigma[0], side * self.sigma[1]
        sigma = uniform(len(images), low, high, generator=generator)[rows]
        sigma = sigma.to(images.device, non_blocking=True)
        return change_rows(images, rows, lambda chosen: gaussian_blur(chosen, sigma))


@dataclass(frozen=True)
class RandomSolarize(RandomApply):
    """Invert the bright pixels of some images; arguments as `RandomApply`."""

    change: Change = field(default=solarize, kw_only=True, repr=False, compare=False)


@dataclass(frozen=True)
class RandomNoise:
    """Add independent normal noise to every pixel; clamp to [0, 1].

    Args:
        std: Standard deviation, in units of the pixel range.
    """

    std: float

    def __call__(self, images: Tensor, *, generator: Random) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        noise = normal_like(images, generator=generator)
        return images.add_(noise, alpha=self.std).clamp_(0, 1)
