"""LARS: layer-wise adaptive rate scaling (You, Gitman, Ginsburg, 2017, arXiv 1708.03888)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class LARS(Optimizer):
    """Gradient descent with momentum and a rate of its own for every matrix and kernel.

        rate = trust |w| / (|g| + decay |w|)              algorithm 1 of the paper; 1 where |w| or |g| is 0
        v    = momentum v + lr rate (g + decay w)
        w    = w - v

    Vectors and scalars (norms, biases, tokens) have rate = 1 and decay = 0, as in the large-batch recipes of
    self-supervised learning.

    Args:
        params: Parameters, or groups of them with options of their own.
        lr: Learning rate.
        weight_decay: decay.
        momentum: Of v.
        trust: eta, the trust coefficient.
        clip_trust: min(rate, lr) in place of lr rate. This is LARC: LARS with the trust ratio clipped.

    Attributes:
        found_inf: 0-dim; where it is 1 a step changes nothing, as with torch's fused optimizers. None is 0.

    Example:
        >>> w = torch.nn.Parameter(torch.tensor([[3.0, 4.0]]))
        >>> w.grad = torch.tensor([[0.0, 2.0]])
        >>> LARS([w], lr=1.0, trust=0.1).step()  # |w| = 5, |g| = 2: rate 0.25
        >>> w.data
        tensor([[3.0000, 3.5000]])
    """

    found_inf: Tensor | None = None

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        *,
        lr: float,
        weight_decay: float = 0.0,
        momentum: float = 0.9,
        trust: float = 1e-3,
        clip_trust: bool = False,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "weight_decay": weight_decay,
                "momentum": momentum,
                "trust": trust,
                "clip_trust": clip_trust,
            },
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Move every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for w in group["params"]:
                if w.grad is None:
                    continue
                state = self.state[w]
                if "v" not in state:
                    state["v"] = torch.zeros_like(w)
                v = group["momentum"] * state["v"] + _change(w, w.grad, group)
                self._assign(state["v"], v)
                self._assign(w, w - v)
        return loss

    def _assign(self, old: Tensor, new: Tensor) -> None:
        """old = new, except where the step is skipped."""
        skip = self.found_inf
        old.copy_(new if skip is None else torch.where(skip.bool(), old, new))


def _change(w: Tensor, g: Tensor, group: dict[str, Any]) -> Tensor:
    """lr rate (g + decay w); everything stays on the device."""
    lr: float = group["lr"]
    decay: float = group["weight_decay"]
    if w.ndim <= 1:
        return lr * g
    w_length, g_length = torch.linalg.vector_norm(w), torch.linalg.vector_norm(g)
    rate: Tensor = group["trust"] * w_length / (g_length + decay * w_length)
    step = rate.clamp(max=lr) if group["clip_trust"] else lr * rate
    moves = (w_length > 0) & (g_length > 0)
    return step.where(moves, lr) * (g + decay * w)
