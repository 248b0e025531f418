"""Small pictures for a page."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from falcon_ssl.core.pixels import displayed

THUMBNAIL_PIXELS = 32
UNKNOWN = -1  # label or code of a sample that has none

Arrays = dict[str, NDArray[np.generic]]


def thumbnails(images: Tensor, *, pixels: int = THUMBNAIL_PIXELS) -> NDArray[np.generic]:
    """Small pictures for a page, area-averaged.

    Args:
        images: uint8 or uint16 [M, C, H, W]; the first three channels are color, of one or two the first is
            shown as gray.
        pixels: Most of a side.

    Returns:
        uint8 [M, h, w] or [M, h, w, 3].
    """
    _, channels, height, width = images.shape
    shown = displayed(images)
    shrink = max(height, width) / pixels
    if shrink > 1:
        size = (max(1, round(height / shrink)), max(1, round(width / shrink)))
        shown = interpolate(shown.float(), size=size, mode="area").round().to(torch.uint8)
    by_pixel = shown.cpu().permute(0, 2, 3, 1).contiguous().numpy()
    return by_pixel if channels >= 3 else by_pixel[..., 0]
