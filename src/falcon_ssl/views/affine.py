"""Rotation, scale and shift."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from falcon_ssl.core.constants import pixel_centers
from falcon_ssl.views.draw import Random, uniform


def warp_affine(images: Tensor, *, angle: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Rotate and scale about the image center, then shift; bilinear, black outside.

    With the center as origin, a pixel p of the result shows the place q of the image:

        p = s R(a) q + t  <=>  q = R(-a) (p - t) / s

    Args:
        images: [N, C, H, W], floating point.
        angle: a [N], degrees, clockwise; on the CPU, as what follows, whatever the device of the images.
        scale: s [N], > 1 enlarges.
        shift: t [N, 2], pixels to the right and down.

    Returns:
        [N, C, H, W].
    """
    N, _, H, W = images.shape
    radians = torch.deg2rad(angle)
    cos, sin = torch.cos(radians) / scale, torch.sin(radians) / scale
    right, down = W / 2 + shift[:, 0], H / 2 + shift[:, 1]  # where the center comes to lie
    # q = A p - A (center + t), in halves of the sides, as grid_sample counts: [x and y; factors of x and y, constant]
    rows = torch.stack([cos, sin, -cos * right - sin * down, -sin, cos, sin * right - cos * down])
    halves = torch.tensor([2 / W, 2 / H]).view(2, 1, 1)
    maps = (rows.view(2, 3, N) * halves).to(images, non_blocking=True)
    x, y = pixel_centers(W, images.device), pixel_centers(H, images.device)[:, None]
    grid = images.new_empty(N, H, W, 2)
    for axis, (by_x, by_y, start) in enumerate(maps[..., None, None]):
        torch.addcmul(torch.addcmul(start, by_y, y), by_x, x, out=grid[..., axis])
    return F.grid_sample(images, grid, align_corners=False)


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
        shift = torch.stack([right, down], dim=1)
        return warp_affine(images, angle=angle, scale=scale, shift=shift)
