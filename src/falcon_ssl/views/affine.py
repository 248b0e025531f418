"""Rotation, scale and shift."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from falcon_ssl.views.draw import Random, uniform


def warp_affine(images: Tensor, *, angle: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Rotate and scale about the image center, then shift; bilinear, black outside.

    With the center as origin, a pixel p of the result shows the place q of the image:

        p = s R(a) q + t  <=>  q = R(-a) (p - t) / s

    Args:
        images: [N, C, H, W], floating point.
        angle: a [N], degrees, clockwise.
        scale: s [N], > 1 enlarges.
        shift: t [N, 2], pixels to the right and down.

    Returns:
        [N, C, H, W].
    """
    N, _, H, W = images.shape
    radians = torch.deg2rad(angle)
    cos, sin = torch.cos(radians) / scale, torch.sin(radians) / scale
    cos, sin = cos[:, None, None], sin[:, None, None]
    right = (centered(W, images) - shift[:, :1])[:, None, :]
    down = (centered(H, images) - shift[:, 1:])[:, :, None]
    grid = images.new_empty(N, H, W, 2)  # grid_sample counts in halves of the sides
    torch.add(cos * right, sin * down, out=grid[..., 0]).mul_(2 / W)
    torch.sub(cos * down, sin * right, out=grid[..., 1]).mul_(2 / H)
    return F.grid_sample(images, grid, align_corners=False)


def centered(count: int, images: Tensor) -> Tensor:
    """Places of the pixels of an axis, from its center: (1 - count) / 2, ..., (count - 1) / 2."""
    return torch.arange(count, device=images.device, dtype=images.dtype) - (count - 1) / 2


@dataclass(frozen=True)
class RandomAffine:
    """Rotation, scale and shift, each uniform and drawn for every image.

    Args:
        degrees: Largest rotation either way.
        scale: Smallest and largest factor.
        shift: Largest shift either way, as a fraction of the image's side.
    """

    degrees: float
    scale: tuple[float, float]
    shift: float

    def __call__(self, images: Tensor, *, generator: Random) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        count, _, height, width = images.shape
        angle = uniform(count, -self.degrees, self.degrees, generator=generator)
        scale = uniform(count, *self.scale, generator=generator)
        right = uniform(count, -self.shift * width, self.shift * width, generator=generator)
        down = uniform(count, -self.shift * height, self.shift * height, generator=generator)
        return warp_affine(
            images,
            angle=angle.to(images.device, non_blocking=True),
            scale=scale.to(images.device, non_blocking=True),
            shift=torch.stack([right, down], dim=1).to(images.device, non_blocking=True),
        )
