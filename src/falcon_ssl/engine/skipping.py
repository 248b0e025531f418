"""Steps that a number on the device decides over: the host need not wait for it to know whether to take them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by bytes of an element


@torch.no_grad()
def assign_unless(skip: Tensor | None, old: list[Tensor], new: Sequence[Tensor]) -> None:
    """old = new, or nothing where ``skip`` is 1; exact also where either holds NaN.

        old = skip old + (1 - skip) new        in the integers that have the same bits: there 0 times NaN is 0

    Args:
        skip: 0-dim, 0 or 1, of any dtype; None is 0.
        old: Tensors on the device of ``skip``.
        new: Of the same shapes and dtypes; on an accelerator its values are lost.
    """
    if skip is None:
        torch._foreach_copy_(old, list(new))
        return
    if skip.device.type == "cpu":  # no launches to save: one walk through memory, not three
        keep = skip.bool()
        for before, after in zip(old, new, strict=True):
            torch.where(keep, before, after, out=before.detach())
        return
    pairs: dict[torch.dtype, tuple[list[Tensor], list[Tensor]]] = {}
    for before, after in zip(old, new, strict=True):
        bits = _BITS[before.element_size()]
        olds, news = pairs.setdefault(bits, ([], []))
        olds.append(before.detach().view(bits))
        news.append(after.detach().view(bits))
    for bits, (olds, news) in pairs.items():
        bad = skip.to(bits)
        torch._foreach_mul_(olds, bad)
        torch._foreach_mul_(news, 1 - bad)
        torch._foreach_add_(olds, news)


class SkippingOptimizer(Optimizer):
    """Moves all parameters of a group together; a step that the device skips changes nothing.

    Attributes:
        found_inf: 0-dim; where it is 1 a step changes nothing, as with torch's fused optimizers. None is 0.
    """

    found_inf: Tensor | None = None

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Move every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            self._move([w for w in group["params"] if w.grad is not None], group)
        return loss

    @abstractmethod
    def _move(self, w_K: list[Tensor], group: dict[str, Any]) -> None:
        """Move K parameters of a group, all of which have a gradient."""

    def _momentum(self, w_K: list[Tensor]) -> list[Tensor]:
        """v of every parameter, zero before its first step."""
        for w in w_K:
            if "v" not in self.state[w]:
                self.state[w]["v"] = torch.zeros_like(w)
        return [self.state[w]["v"] for w in w_K]
