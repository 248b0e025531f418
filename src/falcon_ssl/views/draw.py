"""Random numbers for views: all from one CPU generator that the caller passes.

Parameters are a few numbers per image, so they are drawn on the CPU and sent to the device: the
same generator state gives the same parameters on every device, and the host knows which rows an
operation touches without waiting for the device.
"""

from __future__ import annotations

import torch
from torch import Tensor


def uniform(count: int, low: float, high: float, *, generator: torch.Generator) -> Tensor:
    """Draw float32 [count] on the CPU, uniform in [low, high)."""
    return torch.rand(count, generator=generator) * (high - low) + low


def normal_like(images: Tensor, *, generator: torch.Generator) -> Tensor:
    """Draw standard normal noise of the shape, type and device of ``images``.

    Numerics: on another device than the CPU the noise comes from a generator of that device,
    seeded by one draw: repeatable there, but not the CPU's numbers.
    """
    if images.device.type == "cpu":
        return torch.randn(images.shape, generator=generator, dtype=images.dtype)
    seed = int(torch.randint(2**62, (), generator=generator))
    local = torch.Generator(images.device).manual_seed(seed)
    return torch.randn(images.shape, generator=local, dtype=images.dtype, device=images.device)
