"""Muon: momentum whose matrices are orthogonalized (Jordan et al., 2024, https://kellerjordan.github.io/posts/muon)."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from falcon_ssl.core.devices import multiplies_bf16
from falcon_ssl.core.sharding import Shard, gathered, rows_of, whole_shape
from falcon_ssl.engine.skipping import SkippingOptimizer, assign_unless

_A, _B, _C = 3.4445, -4.7750, 2.0315  # Jordan's: steep at 0; singular values end between .7 and 1.2
_RMS = 0.2  # of an update's entries, about that of AdamW's (Moonlight, arXiv 2502.16982)


class Muon(SkippingOptimizer):
    """Moves matrices and kernels along the orthogonal factor of their momentum, and everything else by AdamW.

        v = momentum v + (1 - momentum) g
        m = momentum v + (1 - momentum) g                       Nesterov's look ahead
        w = w - lr decay w - lr .2 sqrt(max(out, in)) U V^T     m = U S V^T, as a matrix [out, in]

    A kernel [out, in, height, width] is the matrix [out, in height width]. The factor .2 sqrt(max(out, in)) gives an
    update the size of AdamW's, whose learning rates and decays it then shares (Moonlight, arXiv 2502.16982).

    Args:
        params: Matrices and kernels, or groups; a group with ``orthogonal=False`` is moved by AdamW.
        lr: Learning rate.
        weight_decay: decay, decoupled.
        momentum: Of v.
        newton_schulz: Steps of the iteration for U V^T. Five bring its singular values near 1; fewer leave the small
            ones small.
        block_rows: Rows of a matrix that are orthogonalized together, each block alone; None is all (block-wise Muon,
            arXiv 2510.16981). A matrix of k blocks costs 1 / k, or less.
        betas: Of AdamW.
        eps: Of AdamW.
        bf16: Whether the iteration may run in bfloat16.

    Numerics:
        Where ``bf16`` and the device multiplies it in hardware, the iteration on float32 parameters runs in bfloat16.
        It amplifies what was rounded differently, some 500 times for the smallest singular values: runs on one and on
        two ranks, whose gradients differ by 1e-7, part by what bfloat16 resolves; in float32 they do not.

    Example:
        >>> w = torch.nn.Parameter(torch.zeros(2, 2))
        >>> w.grad = torch.tensor([[0.0, 3.0], [-0.1, 0.0]])
        >>> Muon([w], lr=1.0).step()  # both singular values of the update are about .2 sqrt(2)
        >>> (w.data.abs() > 0.15).tolist()
        [[False, True], [True, False]]
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        *,
        lr: float,
        weight_decay: float = 0.0,
        momentum: float = 0.9,
        newton_schulz: int = 5,
        block_rows: int | None = None,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        bf16: bool = True,
    ) -> None:
        self._bf16 = bf16
        super().__init__(
            params,
            {
                "lr": lr,
                "weight_decay": weight_decay,
                "orthogonal": True,
                "momentum": momentum,
                "newton_schulz": newton_schulz,
                "block_rows": block_rows,
                "betas": betas,
                "eps": eps,
                "fused": True,  # torch keeps AdamW's count of steps on the device when a checkpoint is loaded
            },
        )

    def _move(self, w_K: list[Tensor], group: dict[str, Any]) -> None:
        if not group["orthogonal"]:
            self._move_by_adamw(w_K, group)
            return
        alike: dict[tuple[Any, ...], list[Tensor]] = {}
        for w in w_K:  # matrices of one shape are orthogonalized together
            alike.setdefault((whole_shape(w), w.dtype, w.device), []).append(w)
        for same in alike.values():
            self._move_alike(same, group)

    def _move_alike(self, same: list[Tensor], group: dict[str, Any]) -> None:
        """Move matrices or kernels of one shape."""
        momentum: float = group["momentum"]
        g = [w.grad for w in same if w.grad is not None]
        old_v = self._momentum(same)
        new_v = torch._foreach_lerp(old_v, g, 1 - momentum)
        ahead = torch._foreach_lerp(g, new_v, momentum)
        m = [_as_matrix(gathered(one, w), w) for one, w in zip(ahead, same, strict=True)]
        update = functools.partial(
            _update,
            steps=group["newton_schulz"],
            block_rows=group["block_rows"] or len(m[0]),
            bf16=self._bf16,
        )
        if same[0].device.type == "cpu":  # one after the other is faster there
            updates = [update(one) for one in m]
        else:
            updates = list(update(torch.stack(m)))
        keep = 1 - group["lr"] * group["weight_decay"]
        new_w = torch._foreach_mul(same, keep)
        kernels = [rows_of(_as_kernel(one, w), w) for one, w in zip(updates, same, strict=True)]
        torch._foreach_sub_(new_w, kernels, alpha=group["lr"])
        assign_unless(self.found_inf, same, new_w)
        assign_unless(self.found_inf, old_v, new_v)

    def _move_by_adamw(self, moving: list[Tensor], group: dict[str, Any]) -> None:
        for w in moving:
            if not self.state[w]:
                self.state[w].update(
                    step=torch.zeros((), device=w.device),
                    exp_avg=torch.zeros_like(w),
                    exp_avg_sq=torch.zeros_like(w),
                )
        state = [self.state[w] for w in moving]
        beta1, beta2 = group["betas"]
        adamw(
            moving,
            [w.grad for w in moving if w.grad is not None],
            [one["exp_avg"] for one in state],
            [one["exp_avg_sq"] for one in state],
            [],
            [one["step"] for one in state],
            fused=True,
            found_inf=self.found_inf,
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )


def _update(m: Tensor, *, steps: int, block_rows: int, bf16: bool) -> Tensor:
    """.2 sqrt(max(out, in)) U V^T of a matrix, or of several [count, out, in]; of each block of rows on its own."""
    blocks = torch.split(m, block_rows, dim=-2)
    sizes = [_RMS * math.sqrt(max(block.shape[-2:])) for block in blocks]
    parts = [
        orthogonal(block, steps, bf16=bf16) * size
        for block, size in zip(blocks, sizes, strict=True)
    ]
    return torch.cat(parts, dim=-2) if len(parts) > 1 else parts[0]


def orthogonal(g: Tensor, steps: int, *, bf16: bool = True) -> Tensor:
    """About U V^T of a matrix g = U S V^T, or of several [count, out, in], in the dtype of g.

        x = g / |g|_F      then, so many times:      x = a x + (b (x x^T) + c (x x^T)^2) x

    This is an odd polynomial of the singular values alone, which brings those above 1e-3 or so near 1 in five steps.
    """
    add_product = torch.addmm if g.ndim == 2 else torch.baddbmm
    wide = g if g.shape[-2] <= g.shape[-1] else g.mT
    rounds = bf16 and g.dtype == torch.float32
    x = wide.to(_dtype_of_products(g.device) if rounds else g.dtype)
    x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp(min=1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = add_product(x, add_product(gram, gram, gram, beta=_B, alpha=_C), x, beta=_A)
    return (x if wide is g else x.mT).to(g.dtype)


def _as_matrix(m: Tensor, w: Tensor) -> Tensor:
    """[out, rest] of ``m``, the columns as ``w`` has them in memory: U V^T permutes its columns as the matrix does."""
    return (m.movedim(1, -1) if _channels_last(w) else m).flatten(1)


def _as_kernel(matrix: Tensor, w: Tensor) -> Tensor:
    """The inverse of `_as_matrix`, in the shape and the order of ``w``."""
    if not _channels_last(w):
        return matrix.reshape(len(matrix), *w.shape[1:])
    return matrix.reshape(w.movedim(1, -1).shape).movedim(-1, 1)


def _channels_last(w: Tensor) -> bool:
    if isinstance(w, Shard):  # ranks agree, those too that have no rows
        return False
    return w.ndim == 4 and w.is_contiguous(memory_format=torch.channels_last)


@functools.cache
def _dtype_of_products(device: torch.device) -> torch.dtype:
    return torch.bfloat16 if multiplies_bf16(device) else torch.float32
