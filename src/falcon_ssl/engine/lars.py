"""LARS: layer-wise adaptive rate scaling (You, Gitman, Ginsburg, 2017, arXiv 1708.03888)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from falcon_ssl.core.constants import constant
from falcon_ssl.core.sharding import whole_norms
from falcon_ssl.engine.skipping import SkippingOptimizer, assign_unless


class LARS(SkippingOptimizer):
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

    Example:
        >>> w = torch.nn.Parameter(torch.tensor([[3.0, 4.0]]))
        >>> w.grad = torch.tensor([[0.0, 2.0]])
        >>> LARS([w], lr=1.0, trust=0.1).step()  # |w| = 5, |g| = 2: rate 0.25
        >>> w.data
        tensor([[3.0000, 3.5000]])
    """

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

    def _move(self, w_K: list[Tensor], group: dict[str, Any]) -> None:
        """Matrices and kernels, then vectors, all of them with every launch."""
        for some_K in ([w for w in w_K if w.ndim > 1], [w for w in w_K if w.ndim <= 1]):
            if some_K:
                v_K = self._momentum(some_K)
                new_v_K = torch._foreach_mul(v_K, group["momentum"])
                torch._foreach_add_(new_v_K, _changes(some_K, group))
                new_w_K = torch._foreach_sub(some_K, new_v_K)
                assign_unless(self.found_inf, v_K, new_v_K)
                assign_unless(self.found_inf, some_K, new_w_K)


def _changes(w_K: list[Tensor], group: dict[str, Any]) -> tuple[Tensor, ...]:
    """lr rate (g + decay w) of every parameter; everything stays on the device."""
    lr: float = group["lr"]
    decay: float = group["weight_decay"]
    g_K = [w.grad for w in w_K if w.grad is not None]
    if w_K[0].ndim <= 1:
        return torch._foreach_mul(g_K, lr)
    w_length_K, g_length_K = (
        torch.stack(whole_norms(torch._foreach_norm(x_K), w_K)) for x_K in (w_K, g_K)
    )
    rate_K = group["trust"] * w_length_K / (g_length_K + decay * w_length_K)
    step_K = rate_K.clamp(max=lr) if group["clip_trust"] else lr * rate_K
    step_K = step_K.where((w_length_K > 0) & (g_length_K > 0), lr)
    change_K = torch._foreach_add(g_K, torch._foreach_mul(w_K, decay))
    torch._foreach_mul_(change_K, _for_every_entry(step_K, w_K))
    return change_K


def _for_every_entry(step_K: Tensor, w_K: list[Tensor]) -> list[Tensor]:
    """Number k in the shape of tensor k: kernels over many tensors do not broadcast. A CPU has no such kernels."""
    if step_K.device.type == "cpu":
        return [*step_K.unbind()]
    sizes = [w.numel() for w in w_K]
    repeats_K = constant(tuple(sizes), step_K.device, torch.int64)
    flat = step_K.repeat_interleave(repeats_K, output_size=sum(sizes))
    steps = torch.split(flat, sizes)
    return [step.as_strided(w.shape, w.stride()) for step, w in zip(steps, w_K, strict=True)]
