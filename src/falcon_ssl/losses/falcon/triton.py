"""The FALCON loss on CUDA with fused kernels: launch sizes, saved tensors, and the one product left to the library.

    row_sums       lse_i                                    one product of N F C a view
    column_sums    m_j, and with it the divergence, a_j     one a target
    row_terms      rho_i, H_i, CE_i                         one a view, and beyond two views one more a target
    gradient       dS of a block of codes, then dU += dS W  one a view, two beyond two views; and a library product
                   (backward)

Of two views both tiles of logits stay in registers; of more, a first walk sums over the views what a second one needs,
and of several places a view, a walk over each view's places what it takes off that sum.

Marginals and slopes are vectors of C, made by torch in between, where ranks also meet.
"""

from __future__ import annotations

import logging
import math
from typing import Any

import torch
import triton
from torch import Tensor

from falcon_ssl.core.compiling import outside_graphs
from falcon_ssl.core.distributed import all_reduce_sum
from falcon_ssl.core.errors import InputError
from falcon_ssl.core.theory import LN2
from falcon_ssl.dictionary.base import StreamedDictionary
from falcon_ssl.dictionary.rademacher import RademacherDictionary
from falcon_ssl.losses.falcon.chunked import falcon_loss_chunked
from falcon_ssl.losses.falcon.objective import Objective
from falcon_ssl.losses.falcon.streamed import (
    Marginals,
    Saved,
    check_first_derivative,
    finish,
    is_bounded,
)
from falcon_ssl.losses.falcon.terms import LossTerms
from falcon_ssl.losses.falcon.triton_kernels import (
    column_sums_kernel,
    gradient_kernel,
    row_sums_kernel,
    row_terms_kernel,
)
from falcon_ssl.losses.rows import sums_of_others

ROWS, CODES, FEATURES = 64, 64, 64  # of a tile
PROGRAMS = 1024  # enough to fill a device; rows alone are too few, so codes are split
GRADIENT_ELEMENTS = 2**24  # of dS that exist at a time

logger = logging.getLogger(__name__)


def falcon_loss_triton(
    u_VNF: Tensor, dictionary: StreamedDictionary, objective: Objective
) -> tuple[LossTerms, Tensor]:
    """The loss by Triton kernels; arguments and results as `falcon_loss_reference`.

    Embeddings whose logits are too large for plain exponentials take the chunked back end, which shifts them.

    Raises:
        InputError: float64, a dictionary that is not made of independent bits.

    Memory:
        O(V N F + K C) and `GRADIENT_ELEMENTS`.

    Numerics:
        Products in the dtype of the embeddings (full float32 for float32), everything else in float32.
    """
    if u_VNF.dtype == torch.float64 or not isinstance(dictionary, RademacherDictionary):
        raise InputError(
            "the triton back end does not compute this",
            received=f"{u_VNF.dtype} embeddings, {dictionary}",
            expected="float32, bfloat16 or float16 embeddings and a RademacherDictionary",
            fix="use backend='chunked'",
        )
    if not is_bounded(u_VNF.dtype, objective.logit_scale):
        logger.info(
            "logits exceed the range of plain exponentials: this loss runs as chunked PyTorch"
        )
        return falcon_loss_chunked(u_VNF, dictionary, objective)
    *terms, log_m_MC = _apply(u_VNF, dictionary, objective)
    return LossTerms(*terms), log_m_MC


@outside_graphs
def _apply(
    u_VNF: Tensor, dictionary: RademacherDictionary, objective: Objective
) -> tuple[Tensor, ...]:
    outputs: tuple[Tensor, ...] = _Fused.apply(u_VNF, dictionary, objective)  # type: ignore[no-untyped-call]
    return outputs


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, u_VNF: Tensor, dictionary: RademacherDictionary, objective: Objective
    ) -> tuple[Tensor, ...]:
        u_VNF = u_VNF.detach().contiguous()
        scale = objective.logit_scale / math.sqrt(dictionary.width)
        bits_CB = dictionary.bits(u_VNF.device)
        terms, log_m_MC, saved = _forward(u_VNF, bits_CB, objective, scale / LN2)
        ctx.save_for_backward(u_VNF, bits_CB)
        ctx.dictionary, ctx.objective, ctx.saved, ctx.scale = dictionary, objective, saved, scale
        ctx.mark_non_differentiable(*terms[1:], log_m_MC)
        return (*terms, log_m_MC)

    @staticmethod
    def backward(ctx: Any, grad_total: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        check_first_derivative("triton")
        u_VNF, bits_CB = ctx.saved_tensors
        du_VNF = _backward(u_VNF, bits_CB, ctx.dictionary, ctx.objective, ctx.saved, ctx.scale)
        return (du_VNF * (ctx.scale * all_reduce_sum(grad_total))).to(u_VNF.dtype), None, None


def _forward(
    u_VNF: Tensor, bits_CB: Tensor, objective: Objective, scale: float
) -> tuple[LossTerms, Tensor, Saved]:
    (num_views, num_rows, width), num_codes = u_VNF.shape, len(bits_CB)
    num_targets, num_stacked = objective.num_targets, num_views * num_rows
    sizes = (num_codes, width, bits_CB.shape[1], scale)
    tile = {"ROWS": ROWS, "CODES": CODES, "FEATURES": FEATURES}

    splits, codes_per_split = _split_codes(num_stacked, num_codes)
    z_SM = torch.empty(splits, num_stacked, device=u_VNF.device)
    row_sums_kernel[(_tiles(num_stacked, ROWS), splits)](
        u_VNF, bits_CB, z_SM, num_stacked, *sizes, codes_per_split, **tile
    )
    lse_VN = z_SM.sum(dim=0).log2().view(num_views, num_rows)

    sum_KC = torch.empty(num_targets, num_codes, device=u_VNF.device)
    column_sums_kernel[(_tiles(num_codes, CODES), num_targets)](
        u_VNF, bits_CB, lse_VN, sum_KC, num_rows, *sizes, **tile
    )
    marginals = Marginals(objective, lse_VN)
    slope_MC = marginals.add(all_reduce_sum(sum_KC), None, slice(0, num_codes))

    splits, codes_per_split = _split_codes(num_rows, num_codes)
    terms_STKN = torch.empty(splits, 3, num_targets, num_rows, device=u_VNF.device)
    row_terms_kernel[(_tiles(num_rows, ROWS), splits)](
        u_VNF, bits_CB, lse_VN, slope_MC, terms_STKN, num_rows, *sizes, codes_per_split,
        VIEWS=num_views, TARGETS=num_targets, PADDED=triton.next_power_of_2(num_targets),
        PLACES=objective.num_places, PER_MARGINAL=objective.per_marginal, **tile,
    )  # fmt: skip
    rho_KN, own_KN, cross_KN = terms_STKN.sum(dim=0)
    return finish(
        marginals,
        lse_VN=lse_VN,
        w_VN=torch.ones_like(lse_VN),  # the kernels sum over P itself
        top_VC=None,
        rho_KN=rho_KN,
        own_KN=own_KN,
        cross_KN=cross_KN,
    )


def _backward(
    u_VNF: Tensor,
    bits_CB: Tensor,
    dictionary: RademacherDictionary,
    objective: Objective,
    saved: Saved,
    scale: float,
) -> Tensor:
    """dU / scale [V, N, F]."""
    (num_views, num_rows, width), num_codes = u_VNF.shape, len(bits_CB)
    num_targets, num_stacked, b = len(saved.r_KN), num_views * num_rows, saved.b
    others = sums_of_others(saved.lse_VN, num_targets, objective.num_places)
    lse_of_others_KN = torch.stack([*others])
    c_KN = b * LN2 * lse_of_others_KN - saved.r_KN
    block_size = max(CODES, GRADIENT_ELEMENTS // num_stacked // CODES * CODES)
    du_MF = torch.zeros(num_stacked, width, device=u_VNF.device)
    for first in range(0, num_codes, block_size):
        size = min(block_size, num_codes - first)
        ds_MB = torch.empty(num_stacked, size, device=u_VNF.device)
        gradient_kernel[(_tiles(num_rows, ROWS), _tiles(size, CODES))](
            u_VNF, bits_CB, saved.lse_VN, saved.slope_MC, c_KN, ds_MB, num_rows, num_codes, width, bits_CB.shape[1],
            scale / LN2, first, size, b, b * LN2,
            VIEWS=num_views, TARGETS=num_targets, PLACES=objective.num_places, PER_MARGINAL=objective.per_marginal,
            ROWS=ROWS, CODES=CODES, FEATURES=FEATURES,
        )  # fmt: skip
        du_MF += dictionary.adjoint(ds_MB, first, first + size, dtype=u_VNF.dtype)
    return du_MF.view_as(u_VNF)


def _tiles(size: int, tile: int) -> int:
    return -(-size // tile)


def _split_codes(num_rows: int, num_codes: int) -> tuple[int, int]:
    """(number of splits, codes in each, a multiple of the tile) that make about `PROGRAMS` programs."""
    wanted = max(1, PROGRAMS // _tiles(num_rows, ROWS))
    codes_per_split = _tiles(_tiles(num_codes, wanted), CODES) * CODES
    return _tiles(num_codes, codes_per_split), codes_per_split
