"""Pixel values: unsigned integers of 8 or 16 bits as they are stored, [0, 1] as they are computed with."""

from __future__ import annotations

import torch
from torch import Tensor

DTYPES = (torch.uint8, torch.uint16)
LUMA = (0.299, 0.587, 0.114)  # of red, green, blue in gray: ITU-R BT.601, as Pillow converts


def full_scale(dtype: torch.dtype) -> int:
    """The value that stands for 1: 255, or 65535 for 16 bits."""
    return torch.iinfo(dtype).max


def unit_range(images: Tensor) -> Tensor:
    """float32 in [0, 1] of stored pixels, same shape; a copy."""
    scale = 1 / full_scale(images.dtype)
    if images.device.type == "cpu":  # where a product of two dtypes is slow
        return images.float().mul_(scale)
    return images * scale  # one launch


def displayed(images: Tensor) -> Tensor:
    """What a screen can show: uint8 [..., 3, H, W] of the first three channels, or [..., 1, H, W] of the first.

    Example:
        >>> displayed(torch.zeros(5, 8, 8, dtype=torch.uint16)).shape
        torch.Size([3, 8, 8])
    """
    shown = images[..., :3, :, :] if images.shape[-3] >= 3 else images[..., :1, :, :]
    return shown if shown.dtype == torch.uint8 else (unit_range(shown) * 255).round().byte()


def take_rows(images: Tensor, rows: Tensor) -> Tensor:
    """``images[rows]``, also where a device cannot index 16 unsigned bits."""
    if images.dtype == torch.uint16:
        return images.view(torch.int16)[rows].view(torch.uint16)
    return images[rows]
