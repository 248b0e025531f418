"""How fast a step multiplies, beside how fast the machine can: FLOP of a model, and of a plain matrix product."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from falcon_ssl.core.devices import multiplies_bf16
from falcon_ssl.losses import LossTerms
from falcon_ssl.methods import Falcon
from timeline import Spent, Timeline

SIDE, TIMES = 2048, 7  # of the matrix product


class Product(NamedTuple):
    """A matrix product in the precision that the machine multiplies faster."""

    precision: str
    per_second: Spent  # FLOP a second, by the wall clock and of the processor's time


class _Sum(nn.Module):
    """In place of a loss: one addition a number."""

    def forward(self, *views: Tensor, **_: object) -> LossTerms:
        total = torch.stack([view.sum() for view in views]).sum()
        return LossTerms(*[total] * len(LossTerms._fields))


def model_flop(method: Falcon, views: Sequence[Tensor]) -> int:
    """Floating point operations of the products of one step in encoder and projector, forward and backward.

    The method has no loss afterwards.
    """
    method.loss = _Sum()  # type: ignore[assignment]
    with FlopCounterMode(display=False) as counter:
        method.train()(list(views)).loss.backward()
    return counter.get_total_flops()


def matrix_product(device: torch.device) -> Product:
    """The machine's own rate, by as many threads as torch has; medians."""
    dtypes = [torch.float32]
    if multiplies_bf16(device):  # without instructions for it a product takes minutes
        dtypes.append(torch.bfloat16)
    return max(
        (_timed(dtype, device) for dtype in dtypes), key=lambda product: product.per_second.cpu
    )


def _timed(dtype: torch.dtype, device: torch.device) -> Product:
    a, b = (torch.randn(SIDE, SIDE, device=device, dtype=dtype) for _ in range(2))
    timeline, spent = Timeline(device), []
    for _ in range(TIMES):
        timeline.start()
        a @ b
        timeline.mark("product")
        spent.append(timeline.parts()["product"])
    typical = [statistics.median(times) for times in zip(*spent, strict=True)]
    return Product(
        str(dtype).removeprefix("torch."), Spent(*(2 * SIDE**3 / seconds for seconds in typical))
    )
