"""Numbers that are the same at every step, on the device since the first one: a copy to it would make the host wait."""

from __future__ import annotations

import functools

import torch
from torch import Tensor


def constant(
    numbers: tuple[float, ...], device: torch.device, dtype: torch.dtype = torch.float32
) -> Tensor:
    """``numbers`` as a tensor [n], copied once a process and device; not to be written to.

    Example:
        >>> device = torch.device("cpu")
        >>> constant((1.0, 2.0), device) is constant((1.0, 2.0), device)
        True
    """
    if torch.compiler.is_compiling():
        return _chosen_by_place(numbers, device, dtype)
    return _copied(numbers, device, dtype)


def _chosen_by_place(
    numbers: tuple[float, ...], device: torch.device, dtype: torch.dtype
) -> Tensor:
    """As an expression of the index, which a compiler writes into its kernel; a tensor would get one of its own."""
    place = torch.arange(len(numbers), device=device)
    chosen = torch.full((len(numbers),), numbers[-1], dtype=dtype, device=device)
    for k, number in enumerate(numbers[:-1]):
        chosen = torch.where(place == k, torch.full_like(chosen, number), chosen)
    return chosen


@functools.lru_cache(maxsize=256)
def _copied(numbers: tuple[float, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    with torch.inference_mode(False):  # one made inside could not be used outside
        return torch.tensor(numbers, dtype=dtype, device=device)


@functools.lru_cache(maxsize=64)
def pixel_centers(count: int, device: torch.device) -> Tensor:
    """1/2, 3/2, ..., count - 1/2, [count] float32; not to be written to."""
    with torch.inference_mode(False):
        return torch.arange(count, device=device) + 0.5
