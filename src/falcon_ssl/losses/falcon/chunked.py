"""The FALCON loss in three passes over blocks of codes: no N x C tensor exists, whatever C.

    A   per block    s, running sum_j exp s_ij                                   -> lse_i
    B   per block    P, column sums (summed over ranks while the next block runs) -> m_j, D, a_j = dD/dm_j / N
                     rho_i += sum_j P_ij a_j,   CE_i -= sum_j P_ij log P'_ij
    C   per block    dS_ij = P_ij (a_j / M - b log P'_ij - r_i) + b (n P_ij - T_ij)
        (backward)   dU_i += sum_j dS_ij w_j

for V views of which K are targets with M marginals, one pair of one sample weighing b = beta / (N K (V - S)). The first
part of dS is a view's as a target: log P' is the sum over all other views, r = rho / M + b CE. The second is its part
as a prediction: T is the sum of P over its n targets, all targets but itself; the S places of a view count as views
that do not meet each other. (Saving sum_j P_ij w_j instead of pass C needs fewer
products and cancels badly in half precision.)

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

from falcon_ssl.core.compiling import outside_graphs
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
from falcon_ssl.losses.rows import sums_of_others

KEEP_BYTES = 64 * 2**20  # logits kept between passes


def falcon_loss_chunked(
    u_VNF: Tensor,
    dictionary: StreamedDictionary,
    objective: Objective,
    *,
    block_size: int | None = None,
) -> tuple[LossTerms, Tensor]:
    """The loss without N x C tensors; arguments and results as `falcon_loss_reference`.

    Args:
        u_VNF: Embeddings of V views; half precision multiplies matrices in that precision.
        dictionary: C codes of width F.
        objective: The options.
        block_size: Codes per block; None fits it to the cache.

    Memory:
        O(V N F + M C + V N block) and at most `KEEP_BYTES` of kept logits.

    Numerics:
        Statistics in float32, float64 for float64. Products in half precision where the embeddings are.
    """
    if block_size is None:
        rows_of_two_views = len(u_VNF) * objective.num_rows // 2
        block_size = fitting_block_size(dictionary, rows_of_two_views, u_VNF.device)
    *terms, log_m_MC = _apply(u_VNF, dictionary, objective, block_size)
    return LossTerms(*terms), log_m_MC


@outside_graphs
def _apply(
    u_VNF: Tensor, dictionary: StreamedDictionary, objective: Objective, block_size: int
) -> tuple[Tensor, ...]:
    """One graph break for a compiled caller, instead of a graph that repeats every block."""
    outputs: tuple[Tensor, ...] = _Streamed.apply(u_VNF, dictionary, objective, block_size)  # type: ignore[no-untyped-call]
    return outputs


class _Logits:
    """s_ij = L / sqrt(F) <u_i, w_j> / ln 2, block by block: kept while they fit, computed again beyond."""

    def __init__(
        self, u_VNF: Tensor, dictionary: StreamedDictionary, logit_scale: float, block_size: int
    ) -> None:
        self.num_views = len(u_VNF)
        self.u_MF = u_VNF.flatten(0, 1)  # M = V N
        self.dictionary = dictionary
        self.scale = logit_scale / math.sqrt(dictionary.width)
        stops = range(block_size, dictionary.num_codes + block_size, block_size)
        self.blocks = [slice(k - block_size, min(k, dictionary.num_codes)) for k in stops]
        self.shift_VN: Tensor | None = None  # subtracted from every row
        self._kept: dict[int, Tensor] = {}
        self._room = KEEP_BYTES

    def __call__(self, block: slice) -> Tensor:
        """[V, N, B] in the dtype of the statistics; not to be changed in place."""
        s_VNB = self._unshifted(block)
        return s_VNB if self.shift_VN is None else s_VNB - self.shift_VN[:, :, None]

    def _unshifted(self, block: slice) -> Tensor:
        if block.start in self._kept:
            return self._kept[block.start]
        s_MB = self.dictionary.project(self.u_MF, block.start, block.stop).mul_(self.scale / LN2)
        s_VNB = s_MB.view(self.num_views, -1, s_MB.shape[1])
        size = s_VNB.numel() * s_VNB.element_size()
        if size <= self._room:
            self._room -= size
            self._kept[block.start] = s_VNB
        return s_VNB

    def adjoint(self, ds_VNB: Tensor, block: slice) -> Tensor:
        """dU [V, N, F] of dS, both for logits in nats."""
        du_MF = self.dictionary.adjoint(
            ds_VNB.flatten(0, 1), block.start, block.stop, dtype=self.u_MF.dtype
        )
        return (du_MF * self.scale).view(self.num_views, -1, du_MF.shape[1])


class _Streamed(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        u_VNF: Tensor,
        dictionary: StreamedDictionary,
        objective: Objective,
        block_size: int,
    ) -> tuple[Tensor, ...]:
        logits = _Logits(u_VNF.detach(), dictionary, objective.logit_scale, block_size)
        bounded = is_bounded(u_VNF.dtype, objective.logit_scale)
        lse_VN = _pass_a(logits, bounded)
        if not bounded:
            # Large logits are known to few digits: from here on they are log p, and nothing large cancels.
            logits.shift_VN, lse_VN = lse_VN, torch.zeros_like(lse_VN)
        terms, log_m_MC, saved = _pass_b(logits, lse_VN, objective, bounded)
        ctx.logits, ctx.objective, ctx.saved = logits, objective, saved
        ctx.mark_non_differentiable(*terms[1:], log_m_MC)
        ctx.set_materialize_grads(False)
        return (*terms, log_m_MC)

    @staticmethod
    def backward(ctx: Any, grad_total: Tensor, *_: Tensor | None) -> tuple[Tensor | None, ...]:
        check_first_derivative("chunked")
        # Every rank computed the same total, and each runs this once: their gradients add up.
        grad = all_reduce_sum(grad_total)
        with torch.autocast(grad.device.type, enabled=False):
            du_VNF = _pass_c(ctx.logits, ctx.objective, ctx.saved)
        return (du_VNF * grad).to(ctx.logits.u_MF.dtype), None, None, None


def _pass_a(logits: _Logits, bounded: bool) -> Tensor:
    """lse_i = log2 sum_j 2^s_ij."""
    z_VN = at_least_float32(logits.u_MF).new_zeros(len(logits.u_MF)).view(logits.num_views, -1)
    if bounded:
        for block in logits.blocks:
            z_VN += logits(block).exp2().sum(dim=2)
        return z_VN.log2()
    top_VN = z_VN - math.inf
    for block in logits.blocks:
        s_VNB, old_VN = logits(block), top_VN
        top_VN = torch.maximum(old_VN, s_VNB.amax(dim=2))
        z_VN = z_VN * (old_VN - top_VN).exp2() + (s_VNB - top_VN[:, :, None]).exp2().sum(dim=2)
    return z_VN.log2() + top_VN


def _pass_b(
    logits: _Logits, lse_VN: Tensor, objective: Objective, bounded: bool
) -> tuple[LossTerms, Tensor, Saved]:
    """Marginals, divergences and cross-entropies of the targets; and what pass C needs."""
    num_targets, num_places = objective.num_targets, objective.num_places
    w_VN = (-lse_VN).exp2()  # 1 where the logits are log p already
    marginals = Marginals(objective, lse_VN)
    top_VC = None if bounded else lse_VN.new_empty(len(lse_VN), len(objective.log_prior_C))
    rho_KN, own_KN, cross_KN = lse_VN.new_zeros(3, num_targets, lse_VN.shape[1])

    def begin(block: slice) -> Callable[[], None]:
        """Send off the column sums; the function returned picks them up and does the rest."""
        s_VNB = logits(block)
        top_VB = None
        if top_VC is not None:
            top_VB = all_reduce_max(s_VNB.amax(dim=1))
            top_MGB = objective.by_marginal(top_VB[:num_targets])
            top_MGB.copy_(top_MGB.amax(dim=1, keepdim=True))  # sums of one marginal, on one scale
            top_VC[:, block] = top_VB
        top_KB = None if top_VB is None else top_VB[:num_targets]
        e_KNB = _exponentials(s_VNB[:num_targets], top_KB)
        sums = all_reduce_sum_async(
            torch.stack([w @ e for w, e in zip(w_VN[:num_targets], e_KNB, strict=True)])
        )

        def collect() -> None:
            slope_MB = marginals.add(sums(), top_KB, block)
            for o, others_NB in enumerate(sums_of_others(s_VNB, num_targets, num_places)):
                rho_KN[o] += e_KNB[o] @ slope_MB[o // objective.per_marginal]
                if top_KB is not None:
                    e_KNB[o] *= top_KB[o].exp2()
                own_KN[o] += (e_KNB[o] * s_VNB[o]).sum(dim=1)
                cross_KN[o] += (e_KNB[o] * others_NB).sum(dim=1)

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
        rho_KN=rho_KN,
        own_KN=own_KN,
        cross_KN=cross_KN,
    )


def _pass_c(logits: _Logits, objective: Objective, saved: Saved) -> Tensor:
    """dU [V, N, F] of the total, in nats, for the rows of this rank."""
    w_VN, b = saved.w_VN, saved.b
    num_targets, num_places = objective.num_targets, objective.num_places
    lse_of_others = [*sums_of_others(saved.lse_VN, num_targets, num_places)]
    du_VNF: Tensor | float = 0.0
    for block in logits.blocks:
        s_VNB = logits(block)
        top_VB = None if saved.top_VC is None else saved.top_VC[:, block]
        e_VNB = _exponentials(s_VNB, top_VB)
        ds_VNB = torch.zeros_like(e_VNB)
        others = sums_of_others(s_VNB, num_targets, num_places)
        # dS_ij / w_i as a target: e_ij (v_j a_j / M + v_j (c_i - b ln2 s'_ij)) ...
        for o, (others_NB, lse_N) in enumerate(zip(others, lse_of_others, strict=True)):
            c_N = b * LN2 * lse_N - saved.r_KN[o]
            torch.add(c_N[:, None], others_NB, alpha=-b * LN2, out=ds_VNB[o])
            if top_VB is not None:
                ds_VNB[o] *= top_VB[o].exp2()
            ds_VNB[o] += saved.slope_MC[o // objective.per_marginal, block]
        # ... and as a prediction: b (n P_ij - T_ij) = b (K P_ij - S_ij), S the sum of P over all targets.
        p_VNB = e_VNB if top_VB is None else e_VNB * top_VB[:, None].exp2()
        ds_VNB *= e_VNB
        ds_VNB.add_(p_VNB, alpha=b * num_targets)
        sum_NB = torch.zeros_like(p_VNB[0])
        for first in range(0, num_targets, num_places):
            places = range(first, first + num_places)
            own_NB = sum_NB if num_places == 1 else torch.zeros_like(sum_NB)
            for o in places:
                own_NB.addcmul_(p_VNB[o], w_VN[o][:, None])
            if num_places > 1:  # a target's own places are in K P and in S, and differ
                sum_NB += own_NB
                for o in places:
                    ds_VNB[o].addcdiv_(own_NB, w_VN[o][:, None], value=b)
                    ds_VNB[o].sub_(p_VNB[o], alpha=b * num_places)
        for v in range(len(w_VN)):
            ds_VNB[v].addcdiv_(sum_NB, w_VN[v][:, None], value=-b)
        du_VNF = du_VNF + logits.adjoint(ds_VNB, block)
    assert isinstance(du_VNF, Tensor)
    return du_VNF * w_VN[:, :, None]


def _exponentials(s_VNB: Tensor, top_VB: Tensor | None) -> Tensor:
    """e_ij of the module's docstring."""
    return s_VNB.exp2() if top_VB is None else (s_VNB - top_VB[:, None]).exp2_()
