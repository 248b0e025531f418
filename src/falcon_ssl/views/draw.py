"""Random numbers and random rows for views: all from one CPU generator that the caller passes.

Parameters are a few numbers per image, so they are drawn on the CPU and sent to the device: the
same generator state gives the same parameters on every device, and the host knows which rows an
operation touches without waiting for the device.

Over several ranks the numbers are drawn for all rows of the global batch, and each rank keeps those
of its own rows: an image gets the same views however many ranks share the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor


class BatchSlice(NamedTuple):
    """Some rows of a global batch, and the generator that all of its ranks have in the same state.

    Args:
        generator: CPU generator.
        first: First row of this rank.
        total: Rows of the global batch.
    """

    generator: torch.Generator
    first: int
    total: int


Random: TypeAlias = torch.Generator | BatchSlice  # a plain generator: the batch is all there is
Change: TypeAlias = Callable[[Tensor], Tensor]  # images to images; may write to its argument


def uniform(count: int, low: float, high: float, *, generator: Random, tries: int = 0) -> Tensor:
    """Draw float32 [count], or [count, tries], on the CPU, uniform in [low, high)."""
    batch = _batch_slice(generator, count)
    shape = (batch.total, tries) if tries else (batch.total,)
    drawn = torch.rand(shape, generator=batch.generator)[batch.first : batch.first + count]
    return drawn.mul_(high - low).add_(low)


def uniform_each(count: int, ranges: Sequence[tuple[float, float]], *, generator: Random) -> Tensor:
    """Draw float32 [K, count] on the CPU, row k uniform in range k, K being their number."""
    batch = _batch_slice(generator, count)
    drawn = torch.rand((len(ranges), batch.total), generator=batch.generator)
    low, high = torch.tensor(ranges).view(len(ranges), 2, 1).unbind(dim=1)
    return drawn[:, batch.first : batch.first + count] * (high - low) + low


def permutation(count: int, *, generator: Random) -> list[int]:
    """Draw an order of ``count`` things, the same for all rows and ranks."""
    source = _batch_slice(generator, 1).generator
    return list(torch.randperm(count, generator=source).tolist())


def normal_like(images: Tensor, *, generator: Random) -> Tensor:
    """Draw standard normal noise of the shape, type and device of ``images``.

    Numerics: on another device than the CPU the noise comes from a generator of that device,
    seeded by one draw: repeatable there, but not the CPU's numbers.
    """
    batch = _batch_slice(generator, len(images))
    source = batch.generator
    if images.device.type != "cpu":
        seed = int(torch.randint(2**62, (), generator=source))
        source = torch.Generator(images.device).manual_seed(seed)
    shape = (batch.total, *images.shape[1:])
    noise = torch.randn(shape, generator=source, dtype=images.dtype, device=images.device)
    return noise[batch.first : batch.first + len(images)]


def chosen_rows(count: int, probability: float, *, generator: Random) -> Tensor:
    """Choose every row with the same probability, independently: int64 [K] on the CPU, ascending."""
    return torch.nonzero(uniform(count, 0, 1, generator=generator) < probability).flatten()


def change_rows(images: Tensor, rows: Tensor, change: Change) -> Tensor:
    """Replace the images [N, ...] at ``rows`` (int64 [K] on the CPU) by ``change`` of them, in place.

    ``change`` maps [K, ...] to [K, ...].
    """
    if len(rows) == 0:
        return images
    if len(rows) == len(images):
        return change(images)
    rows = rows.to(images.device, non_blocking=True)
    return images.index_copy_(0, rows, change(images.index_select(0, rows)))


def _batch_slice(random: Random, count: int) -> BatchSlice:
    return random if isinstance(random, BatchSlice) else BatchSlice(random, 0, count)
