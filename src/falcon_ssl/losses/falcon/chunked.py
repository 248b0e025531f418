"""The FALCON loss in three passes over blocks of codes: no N x C tensor exists, whatever C.

    A   per block    s, running sum_j exp s_ij                                   -> lse_i
    B   per block    P, column sums (summed over ranks while the next block runs) -> m_j, D, a_j = dD/dm_j / N
                     rho_i += sum_j P_ij a_j,   CE_i -= sum_j P_ij log P'_ij
    C   per block    dS_ij = P_ij (a_j - b log P'_ij - r_i + b) - b P'_ij,        r = rho + b CE,  b = beta / N
        (backward)   dU_i += sum_j dS_ij w_j

written for one order of the views; the symmetric loss is half of both orders. (Saving sum_j P_ij w_j instead of pass C
needs fewer products and cancels badly in half precision.)

Two things make it fast on a CPU: exponentials and logarithms are taken in base 2 (exp2 costs a third of exp), and the
first blocks' logits are kept, as many as fit in `KEEP_BYTES`, so that a small problem computes them once.

Where |s| <= L |u| is small, P_ij = w_i e_ij with e = 2^s and one weight a row. Where it is not, s is replaced by
s - lse = log2 P after pass A, and P_ij = e_ij v_j with e_ij = 2^(s_ij - top_j), v_j = 2^top_j: column sums then never
underflow, as in the log domain.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from falcon_ssl.core.distributed import (
    all_reduce_max,
    all_reduce_sum,
    all_reduce_sum_async,
)
from falcon_ssl.core.numerics import at_least_float32
from falcon_ssl.core.theory import LN2
from falcon_ssl.dictionary.base import StreamedDictionary
from falcon_ssl.dictionary.blocks import fitting_block_size
from falcon_ssl.losses.falcon.objective import Objective
from falcon_ssl.losses.falcon.streamed import (
    Marginals,
    Saved,
    check_first_derivative,
    finish,
    is_bounded,
)
from falcon_ssl.losses.falcon.terms import LossTerms

KEEP_BYTES = 64 * 2**20  # logits kept between passes


def falcon_loss_chunked(
    u1_NF: Tensor,
    u2_NF: Tensor,
    dictionary: StreamedDictionary,
    objective: Objective,
    *,
    block_size: int | None = None,
) -> tuple[LossTerms, Tensor]:
    """The loss without N x C tensors; arguments and results as `falcon_loss_reference`.

    Args:
        u1_NF: Embeddings of the first view; half precision multiplies matrices in that precision.
        u2_NF: Embeddings of the second view.
        dictionary: C codes of width F.
        objective: The options.
        block_size: Codes a block; None fits it to the cache.

    Memory:
        O(N F + C + N block) and at most `KEEP_BYTES` of kept logits.

    Numerics:
        Statistics in float32, float64 for float64. Products in half precision where the embeddings are.
    """
    u_MF = torch.cat([u1_NF, u2_NF])
    if block_size is None:
        block_size = fitting_block_size(dictionary, objective.num_rows, u_MF.device)
    *terms, log_m_VC = _apply(u_MF, dictionary, objective, block_size)
    return LossTerms(*terms), log_m_VC


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _apply(
    u_MF: Tensor, dictionary: StreamedDictionary, objective: Objective, block_size: int
) -> tuple[Tensor, ...]:
    """One graph break for a compiled caller, instead of a graph that repeats every block."""
    outputs: tuple[Tensor, ...] = _Streamed.apply(u_MF, dictionary, objective, block_size)  # type: ignore[no-untyped-call]
    return outputs


class _Logits:
    """s_ij = L / sqrt(F) <u_i, w_j> / ln 2, block by block: kept while they fit, computed again beyond."""

    def __init__(
        self, u_MF: Tensor, dictionary: StreamedDictionary, logit_scale: float, block_size: int
    ) -> None:
        self.u_MF = u_MF
        self.dictionary = dictionary
        self.scale = logit_scale / math.sqrt(dictionary.width)
        stops = range(block_size, dictionary.num_codes + block_size, block_size)
        self.blocks = [slice(k - block_size, min(k, dictionary.num_codes)) for k in stops]
        self.shift_M: Tensor | None = None  # subtracted from every row
        self._kept: dict[int, Tensor] = {}
        self._room = KEEP_BYTES

    def __call__(self, block: slice) -> Tensor:
        """[M, K] in the dtype of the statistics; not to be changed in place."""
        s_MK = self._unshifted(block)
        return s_MK if self.shift_M is None else s_MK - self.shift_M[:, None]

    def _unshifted(self, block: slice) -> Tensor:
        if block.start in self._kept:
            return self._kept[block.start]
        s_MK = self.dictionary.project(self.u_MF, block.start, block.stop).mul_(self.scale / LN2)
        size = s_MK.numel() * s_MK.element_size()
        if size <= self._room:
            self._room -= size
            self._kept[block.start] = s_MK
        return s_MK

    def adjoint(self, ds_MK: Tensor, block: slice) -> Tensor:
        """dU [M, F] of dS, both for logits in nats."""
        dtype = self.u_MF.dtype
        return self.dictionary.adjoint(ds_MK, block.start, block.stop, dtype=dtype) * self.scale


class _Streamed(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        u_MF: Tensor,
        dictionary: StreamedDictionary,
        objective: Objective,
        block_size: int,
    ) -> tuple[Tensor, ...]:
        logits = _Logits(u_MF.detach(), dictionary, objective.logit_scale, block_size)
        bounded = is_bounded(u_MF, objective.logit_scale)
        lse_M = _pass_a(logits, bounded)
        if not bounded:
            # Large logits are known to few digits: from here on they are log p, and nothing large cancels.
            logits.shift_M, lse_M = lse_M, torch.zeros_like(lse_M)
        terms, log_m_VC, saved = _pass_b(logits, lse_M, objective, bounded)
        ctx.logits, ctx.objective, ctx.saved = logits, objective, saved
        ctx.mark_non_differentiable(*terms[1:], log_m_VC)
        ctx.set_materialize_grads(False)
        return (*terms, log_m_VC)

    @staticmethod
    def backward(ctx: Any, grad_total: Tensor, *_: Tensor | None) -> tuple[Tensor | None, ...]:
        check_first_derivative("chunked")
        # Every rank computed the same total, and each runs this once: their gradients add up.
        grad = all_reduce_sum(grad_total)
        with torch.autocast(grad.device.type, enabled=False):
            du_MF = _pass_c(ctx.logits, ctx.objective, ctx.saved)
        return (du_MF * grad).to(ctx.logits.u_MF.dtype), None, None, None


def _pass_a(logits: _Logits, bounded: bool) -> Tensor:
    """lse_i = log2 sum_j 2^s_ij."""
    z_M = at_least_float32(logits.u_MF).new_zeros(len(logits.u_MF))
    if bounded:
        for block in logits.blocks:
            z_M += logits(block).exp2().sum(dim=1)
        return z_M.log2()
    top_M = z_M - math.inf
    for block in logits.blocks:
        s_MK, old_M = logits(block), top_M
        top_M = torch.maximum(old_M, s_MK.amax(dim=1))
        z_M = z_M * (old_M - top_M).exp2() + (s_MK - top_M[:, None]).exp2().sum(dim=1)
    return z_M.log2() + top_M


def _exponentials(s_MK: Tensor, top_VK: Tensor | None) -> Tensor:
    """e_ij of the module's docstring."""
    if top_VK is None:
        return s_MK.exp2()
    e_MK = torch.empty_like(s_MK)
    torch.sub(_by_view(s_MK), top_VK[:, None], out=_by_view(e_MK))
    return e_MK.exp2_()


def _pass_b(
    logits: _Logits, lse_M: Tensor, objective: Objective, bounded: bool
) -> tuple[LossTerms, Tensor, Saved]:
    """Marginal, divergence and cross-entropies; and what pass C needs."""
    w_M = (-lse_M).exp2()  # 1 where the logits are log p already
    w_VN, lse_VN = w_M.view(2, -1), lse_M.view(2, -1)
    marginals = Marginals(objective, lse_M)
    top_VC = None if bounded else torch.empty_like(marginals.log_m_VC)
    rho_VN, own_VN, cross_VN = (
        torch.zeros_like(lse_VN),
        torch.zeros_like(lse_VN),
        torch.zeros_like(lse_VN),
    )

    def begin(block: slice) -> Callable[[], None]:
        """Send off the column sums; the function returned picks them up and does the rest."""
        s_MK = logits(block)
        top_VK = None
        if top_VC is not None:
            top_VK = all_reduce_max(_by_view(s_MK).amax(dim=1))
            top_VC[:, block] = top_VK
        e_MK = _exponentials(s_MK, top_VK)
        s_VNK, e_VNK = _by_view(s_MK), _by_view(e_MK)
        sums = all_reduce_sum_async(torch.stack([w @ e for w, e in zip(w_VN, e_VNK, strict=True)]))

        def collect() -> None:
            slope_VK = marginals.add(sums(), top_VK, block)
            for v in (0, 1):
                rho_VN[v] += e_VNK[v] @ slope_VK[v]
                if top_VK is not None:
                    e_VNK[v] *= top_VK[v].exp2()
                own_VN[v] += (e_VNK[v] * s_VNK[v]).sum(dim=1)
                cross_VN[v] += (e_VNK[v] * s_VNK[1 - v]).sum(dim=1)

        return collect

    collect_previous: Callable[[], None] | None = None
    for block in logits.blocks:
        collect_this = begin(block)
        if collect_previous is not None:
            collect_previous()
        collect_previous = collect_this
    assert collect_previous is not None
    collect_previous()

    return finish(
        marginals,
        lse_VN=lse_VN,
        w_VN=w_VN,
        top_VC=top_VC,
        rho_VN=rho_VN,
        own_VN=own_VN,
        cross_VN=cross_VN,
    )


def _pass_c(logits: _Logits, objective: Objective, saved: Saved) -> Tensor:
    """dU [M, F] of the total, in nats, for the rows of this rank."""
    b = objective.beta / objective.num_rows
    lse_VN, w_VN, r_VN = (x.view(2, -1) for x in (saved.lse_M, saved.w_M, saved.r_M))
    du_MF: Tensor | float = 0.0
    for block in logits.blocks:
        s_MK = logits(block)
        top_VK = None if saved.top_VC is None else saved.top_VC[:, block]
        e_MK = _exponentials(s_MK, top_VK)
        ds_MK = torch.empty_like(e_MK)
        s_VNK, e_VNK, ds_VNK = _by_view(s_MK), _by_view(e_MK), _by_view(ds_MK)
        # dS_ij / w_i, own part: e_ij (omega v_j a_j + v_j (c_i - omega b ln2 s'_ij))
        for v, o in ((0, 1), (1, 0)):
            omega, omega_o = saved.order_weights[v], saved.order_weights[o]
            c_N = omega * (b * LN2 * lse_VN[o] - r_VN[v]) + omega_o * b
            torch.add(c_N[:, None], s_VNK[o], alpha=-omega * b * LN2, out=ds_VNK[v])
            if top_VK is not None:
                ds_VNK[v] *= top_VK[v].exp2()
            ds_VNK[v] += omega * saved.slope_VC[v, block]
        ds_MK *= e_MK
        # ... and as the other view: -omega' b P'_ij
        for v, o in ((0, 1), (1, 0)):
            p_NK = e_VNK[o] if top_VK is None else e_VNK[o] * top_VK[o].exp2()
            factor_N = -saved.order_weights[o] * b * w_VN[o] / w_VN[v]
            ds_VNK[v].addcmul_(p_NK, factor_N[:, None])
        du_MF = du_MF + logits.adjoint(ds_MK, block)
    assert isinstance(du_MF, Tensor)
    return du_MF * saved.w_M[:, None]


def _by_view(x_MK: Tensor) -> Tensor:
    """[2N, K] as [2, N, K], without copying."""
    return x_MK.view(2, x_MK.shape[0] // 2, x_MK.shape[1])
