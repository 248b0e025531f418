"""The FALCON loss on CUDA with fused kernels: launch sizes, saved tensors, and the one product left to the library.

    row_sums       lse_i                                    one product of N F C a view
    column_sums    m_j, and with it the divergence, a_j     one
    row_terms      rho_i, H_i, CE_i                         one
    gradient       dS of a block of codes, then dU += dS W  two, the second a library product
                   (backward)

Marginals and slopes are vectors of C, made by torch in between, where ranks also meet.
"""

from __future__ import annotations

import logging
import math
from typing import Any

import torch
from torch import Tensor

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

ROWS, CODES, FEATURES = 64, 64, 64  # of a tile
PROGRAMS = 1024  # enough to fill a device; rows alone are too few, so codes are split
GRADIENT_ELEMENTS = 2**24  # of dS that exist at a time

logger = logging.getLogger(__name__)


def falcon_loss_triton(
    u1_NF: Tensor, u2_NF: Tensor, dictionary: StreamedDictionary, objective: Objective
) -> tuple[LossTerms, Tensor]:
    """The loss by Triton kernels; arguments and results as `falcon_loss_reference`.

    Embeddings whose logits are too large for plain exponentials take the chunked back end, which shifts them.

    Raises:
        InputError: float64, a dictionary that is not made of independent bits.

    Memory:
        O(N F + C) and `GRADIENT_ELEMENTS`.

    Numerics:
        Products in the dtype of the embeddings (full float32 for float32), everything else in float32.
    """
    if u1_NF.dtype == torch.float64 or not isinstance(dictionary, RademacherDictionary):
        raise InputError(
            "the triton back end does not compute this",
            received=f"{u1_NF.dtype} embeddings, {dictionary}",
            expected="float32, bfloat16 or float16 embeddings and a RademacherDictionary",
            fix="use backend='chunked'",
        )
    u_MF = torch.cat([u1_NF, u2_NF])
    if not is_bounded(u_MF, objective.logit_scale):
        logger.info(
            "logits exceed the range of plain exponentials: this loss runs as chunked PyTorch"
        )
        return falcon_loss_chunked(u1_NF, u2_NF, dictionary, objective)
    *terms, log_m_VC = _apply(u_MF, dictionary, objective)
    return LossTerms(*terms), log_m_VC


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _apply(
    u_MF: Tensor, dictionary: RademacherDictionary, objective: Objective
) -> tuple[Tensor, ...]:
    outputs: tuple[Tensor, ...] = _Fused.apply(u_MF, dictionary, objective)  # type: ignore[no-untyped-call]
    return outputs


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, u_MF: Tensor, dictionary: RademacherDictionary, objective: Objective
    ) -> tuple[Tensor, ...]:
        u_MF = u_MF.detach().contiguous()
        scale = objective.logit_scale / math.sqrt(dictionary.width)
        bits_CB = dictionary.bits(u_MF.device)
        terms, log_m_VC, saved = _forward(u_MF, bits_CB, objective, scale / LN2)
        ctx.save_for_backward(u_MF, bits_CB)
        ctx.dictionary, ctx.objective, ctx.saved, ctx.scale = dictionary, objective, saved, scale
        ctx.mark_non_differentiable(*terms[1:], log_m_VC)
        return (*terms, log_m_VC)

    @staticmethod
    def backward(ctx: Any, grad_total: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        check_first_derivative("triton")
        u_MF, bits_CB = ctx.saved_tensors
        du_MF = _backward(u_MF, bits_CB, ctx.dictionary, ctx.objective, ctx.saved, ctx.scale)
        return (du_MF * (ctx.scale * all_reduce_sum(grad_total))).to(u_MF.dtype), None, None


def _forward(
    u_MF: Tensor, bits_CB: Tensor, objective: Objective, scale: float
) -> tuple[LossTerms, Tensor, Saved]:
    (num_stacked, width), num_codes = u_MF.shape, len(bits_CB)
    num_rows = num_stacked // 2
    sizes = (num_codes, width, bits_CB.shape[1], scale)
    tile = {"ROWS": ROWS, "CODES": CODES, "FEATURES": FEATURES}

    splits, codes_per_split = _split_codes(num_stacked, num_codes)
    z_SM = torch.empty(splits, num_stacked, device=u_MF.device)
    row_sums_kernel[(_tiles(num_stacked, ROWS), splits)](
        u_MF, bits_CB, z_SM, num_stacked, *sizes, codes_per_split, **tile
    )
    lse_VN = z_SM.sum(dim=0).log2().view(2, num_rows)

    sum_VC = torch.empty(2, num_codes, device=u_MF.device)
    column_sums_kernel[(_tiles(num_codes, CODES), 2)](
        u_MF, bits_CB, lse_VN, sum_VC, num_rows, *sizes, **tile
    )
    marginals = Marginals(objective, lse_VN)
    slope_VC = marginals.add(all_reduce_sum(sum_VC), None, slice(0, num_codes))

    splits, codes_per_split = _split_codes(num_rows, num_codes)
    terms_STVN = torch.empty(splits, 3, 2, num_rows, device=u_MF.device)
    row_terms_kernel[(_tiles(num_rows, ROWS), splits)](
        u_MF, bits_CB, lse_VN, slope_VC, terms_STVN, num_rows, *sizes, codes_per_split, **tile
    )
    rho_VN, own_VN, cross_VN = terms_STVN.sum(dim=0)
    return finish(
        marginals,
        lse_VN=lse_VN,
        w_VN=torch.ones_like(lse_VN),  # the kernels sum over P itself
        top_VC=None,
        rho_VN=rho_VN,
        own_VN=own_VN,
        cross_VN=cross_VN,
    )


def _backward(
    u_MF: Tensor,
    bits_CB: Tensor,
    dictionary: RademacherDictionary,
    objective: Objective,
    saved: Saved,
    scale: float,
) -> Tensor:
    """dU / scale [M, F]."""
    (num_stacked, width), num_codes = u_MF.shape, len(bits_CB)
    num_rows = num_stacked // 2
    b = objective.beta / objective.num_rows
    omega1, omega2 = saved.order_weights
    lse_VN, r_VN = saved.lse_M.view(2, -1), saved.r_M.view(2, -1)
    c_VN = torch.stack(
        [
            omega1 * (b * LN2 * lse_VN[1] - r_VN[0]) + omega2 * b,
            omega2 * (b * LN2 * lse_VN[0] - r_VN[1]) + omega1 * b,
        ]
    )
    weight_V1 = lse_VN.new_tensor(saved.order_weights)[:, None]
    slope_VC = (weight_V1 * saved.slope_VC).contiguous()
    factors = (omega1 * b * LN2, omega2 * b, omega2 * b * LN2, omega1 * b)
    block_size = max(CODES, GRADIENT_ELEMENTS // num_stacked // CODES * CODES)
    du_MF = torch.zeros(num_stacked, width, device=u_MF.device)
    for first in range(0, num_codes, block_size):
        size = min(block_size, num_codes - first)
        ds_MK = torch.empty(num_stacked, size, device=u_MF.device)
        gradient_kernel[(_tiles(num_rows, ROWS), _tiles(size, CODES))](
            u_MF, bits_CB, lse_VN, slope_VC, c_VN, ds_MK, num_rows, num_codes, width, bits_CB.shape[1],
            scale / LN2, first, size, *factors, ROWS=ROWS, CODES=CODES, FEATURES=FEATURES,
        )  # fmt: skip
        du_MF += dictionary.adjoint(ds_MK, first, first + size, dtype=u_MF.dtype)
    return du_MF


def _tiles(size: int, tile: int) -> int:
    return -(-size // tile)


def _split_codes(num_rows: int, num_codes: int) -> tuple[int, int]:
    """(number of splits, codes in each, a multiple of the tile) that make about `PROGRAMS` programs."""
    wanted = max(1, PROGRAMS // _tiles(num_rows, ROWS))
    codes_per_split = _tiles(_tiles(num_codes, wanted), CODES) * CODES
    return _tiles(num_codes, codes_per_split), codes_per_split
