"""Rotation, scale and shift."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from falcon_ssl.views.draw import Random, uniform


def warp_affine(images: Tensor, *, angle: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Rotate and scale about the image centre, then shift; bilinear, black outside.

    Args:
        images: [N, C, H, W], floating point.
        angle: [N], degrees, clockwise.
        scale: [N], > 1 enlarges.
        shift: [N, 2], pixels to the right and down.

    Returns:
        [N, C, H, W].
    """
    from kornia.geometry.transform import get_affine_matrix2d
    from kornia.geometry.transform import warp_affine as kornia_warp_affine

    height, width = images.shape[-2:]
    centre = images.new_tensor([(width - 1) / 2, (height - 1) / 2]).expand(len(images), 2)
    matrix = get_affine_matrix2d(shift, centre, scale[:, None].expand(-1, 2), angle)[:, :2]
    warped: Tensor = kornia_warp_affine(images, matrix, (height, width), align_corners=True)
    return warped


@dataclass(frozen=True)
class RandomAffine:
    """Rotation, scale and shift, each uniform and drawn for every image.

    Args:
        degrees: Largest rotation either way.
        scale: Smallest and largest factor.
        shift: Largest shift either way, as a share of the image's side.
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
