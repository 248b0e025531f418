"""The FALCON loss on CUDA with fused kernels: launch sizes, saved tensors, and the one product left to the library.

    row_sums       lse_i                                    one product of N F C a view
    column_sums    m_j, and with it the divergence, a_j     one a target
    row_terms      rho_i, H_i, CE_i                         one a view, and beyond two views one more a target
    fused_gradient dU += dS W, two views, F <= FUSED_WIDTH  two a view; dS stays in registers
    gradient       dS of a block of codes, then dU += dS W  one a view, two beyond two views; and a library product
                   (backward)

Of two views both tiles of logits stay in registers; of more, a first walk sums over the views what a second one needs,
and of several places a view, a walk over each view's places what it takes off that sum. In the backward pass the sums
of all features of both views fit in registers up to `FUSED_WIDTH`. Where they do not, writing dS, 16 bytes an entry
whose products take 4 F operations, costs less than computing the logits again for every part of F or every view.

Marginals and slopes are vectors of C, made by torch in between, where ranks also meet.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any

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
    fused_gradient_kernel,
    gradient_kernel,
    row_sums_kernel,
    row_terms_kernel,
)
from falcon_ssl.losses.falcon.triton_tiles import LARGEST_CODES
from falcon_ssl.losses.rows import sums_of_others

if TYPE_CHECKING:
    from falcon_ssl.losses.falcon.backends import InputPrecision

ROWS = 64  # of a typical tile, to choose the number of splits
PROGRAMS = 1024  # enough to fill a device; rows alone are too few, so codes are split
FUSED_PROGRAMS = 512  # each with its sums in memory
FUSED_WIDTH = 512  # float32 sums of 64 rows and so many features: half of the registers of 8 warps
CHUNK = 128  # features of one such sum
GRADIENT_ELEMENTS = 2**24  # of dS, or of those sums, that exist at a time
OF_HALF = {torch.bfloat16: "bf16x1", torch.float16: "bf16x2"}  # how dS is multiplied
PARTS = {
    "bf16x3": 3,
    "tf32": 2,
    "bf16x2": 2,
    "bf16x1": 1,
}  # bfloat16 that dS is split into for library products

logger = logging.getLogger(__name__)


def falcon_loss_triton(
    u_VNF: Tensor,
    dictionary: StreamedDictionary,
    objective: Objective,
    *,
    input_precision: InputPrecision,
) -> tuple[LossTerms, Tensor]:
    """The loss by Triton kernels; arguments and results as `falcon_loss_reference`.

    Embeddings whose logits are too large for plain exponentials take the chunked back end, which shifts them.

    Args:
        u_VNF: Embeddings of V views.
        dictionary: C codes of width F.
        objective: The options.
        input_precision: How float32 embeddings are multiplied, see `FalconLoss`.

    Raises:
        InputError: float64, a dictionary that is not made of independent bits.

    Memory:
        O(V N F + K C) and `GRADIENT_ELEMENTS`.

    Numerics:
        Products in the dtype of the embeddings, sums and everything else in float32. Of dS, bfloat16 embeddings take
        8 significant bits, float16 take 16, float32 as many as ``input_precision`` and no fewer than 11.
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
    precision = OF_HALF.get(u_VNF.dtype, input_precision)
    *terms, log_m_MC = _apply(u_VNF, dictionary, objective, precision)
    return LossTerms(*terms), log_m_MC


@outside_graphs
def _apply(
    u_VNF: Tensor, dictionary: RademacherDictionary, objective: Objective, precision: str
) -> tuple[Tensor, ...]:
    outputs: tuple[Tensor, ...] = _Kernels.apply(u_VNF, dictionary, objective, precision)  # type: ignore[no-untyped-call]
    return outputs


class _Kernels(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        u_VNF: Tensor,
        dictionary: RademacherDictionary,
        objective: Objective,
        precision: str,
    ) -> tuple[Tensor, ...]:
        u_VNF = u_VNF.detach().contiguous()
        problem = _Problem(u_VNF, dictionary, objective, precision)
        terms, log_m_MC, saved = _forward(problem)
        ctx.save_for_backward(u_VNF)
        ctx.arguments, ctx.saved = (dictionary, objective, precision), saved
        ctx.mark_non_differentiable(*terms[1:], log_m_MC)
        return (*terms, log_m_MC)

    @staticmethod
    def backward(ctx: Any, grad_total: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        check_first_derivative("triton")
        (u_VNF,) = ctx.saved_tensors
        problem = _Problem(u_VNF, *ctx.arguments)
        factor = problem.scale * all_reduce_sum(grad_total)
        return (_backward(problem, ctx.saved) * factor).to(u_VNF.dtype), None, None, None


class _Problem:
    """What all kernels take."""

    def __init__(
        self,
        u_VNF: Tensor,
        dictionary: RademacherDictionary,
        objective: Objective,
        precision: str,
    ) -> None:
        self.u_VNF, self.dictionary, self.objective = u_VNF, dictionary, objective
        self.num_views, self.num_rows, self.width = u_VNF.shape
        self.num_stacked = self.num_views * self.num_rows
        self.num_codes = dictionary.num_codes
        self.bits_CB = dictionary.bits(u_VNF.device)
        self.precision = precision
        self.scale = objective.logit_scale / math.sqrt(dictionary.width)

    @property
    def sizes(self) -> tuple[int, int, int, float]:
        """C, F, bytes of a code, and the scale of logits in base 2."""
        return self.num_codes, self.width, self.bits_CB.shape[1], self.scale / LN2

    def split_codes(self, rows: int, programs: int = PROGRAMS) -> tuple[int, int]:
        """(number of splits, codes in each, a multiple of every tile's) that make about so many programs."""
        wanted = max(1, programs // triton.cdiv(rows, ROWS))
        largest = triton.cdiv(triton.cdiv(self.num_codes, wanted), LARGEST_CODES) * LARGEST_CODES
        return triton.cdiv(self.num_codes, largest), largest


def _forward(problem: _Problem) -> tuple[LossTerms, Tensor, Saved]:
    u_VNF, bits_CB, objective, sizes = (
        problem.u_VNF,
        problem.bits_CB,
        problem.objective,
        problem.sizes,
    )
    num_views, num_rows, num_codes = problem.num_views, problem.num_rows, problem.num_codes
    num_targets, num_stacked = objective.num_targets, problem.num_stacked

    splits, codes_per_split = problem.split_codes(num_stacked)
    z_SM = torch.empty(splits, num_stacked, device=u_VNF.device)
    row_sums_kernel[lambda tile: (triton.cdiv(num_stacked, tile["ROWS"]), splits)](
        u_VNF, bits_CB, z_SM, num_stacked, *sizes, codes_per_split, PRECISION=problem.precision
    )
    lse_VN = z_SM.sum(dim=0).log2().view(num_views, num_rows)

    sum_KC = torch.empty(num_targets, num_codes, device=u_VNF.device)
    column_sums_kernel[lambda tile: (triton.cdiv(num_codes, tile["CODES"]), num_targets)](
        u_VNF, bits_CB, lse_VN, sum_KC, num_rows, *sizes, PRECISION=problem.precision
    )
    marginals = Marginals(objective, lse_VN)
    slope_MC = marginals.add(all_reduce_sum(sum_KC), None, slice(0, num_codes))

    splits, codes_per_split = problem.split_codes(num_rows)
    terms_STKN = torch.empty(splits, 3, num_targets, num_rows, device=u_VNF.device)
    row_terms_kernel[lambda tile: (triton.cdiv(num_rows, tile["ROWS"]), splits)](
        u_VNF, bits_CB, lse_VN, slope_MC, terms_STKN, num_rows, *sizes, codes_per_split,
        VIEWS=num_views, TARGETS=num_targets, PADDED=triton.next_power_of_2(num_targets),
        PLACES=objective.num_places, PER_MARGINAL=objective.per_marginal, PRECISION=problem.precision,
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


def _backward(problem: _Problem, saved: Saved) -> Tensor:
    """dU / scale [V, N, F]."""
    objective, b = problem.objective, saved.b
    others = sums_of_others(saved.lse_VN, objective.num_targets, objective.num_places)
    c_KN = b * LN2 * torch.stack([*others]) - saved.r_KN
    if problem.num_views == 2 and problem.width <= FUSED_WIDTH:
        return _fused(problem, saved, c_KN)
    u_VNF, bits_CB, num_rows = problem.u_VNF, problem.bits_CB, problem.num_rows
    block_size = max(CHUNK, GRADIENT_ELEMENTS // problem.num_stacked // CHUNK * CHUNK)
    du_MF = torch.zeros(problem.num_stacked, problem.width, device=u_VNF.device)
    for first in range(0, problem.num_codes, block_size):
        size = min(block_size, problem.num_codes - first)
        ds_MB = torch.empty(problem.num_stacked, size, device=u_VNF.device)
        gradient_kernel[
            lambda tile, size=size: (triton.cdiv(num_rows, tile["ROWS"]), triton.cdiv(size, tile["CODES"]))
        ](
            u_VNF, bits_CB, saved.lse_VN, saved.slope_MC, c_KN, ds_MB, num_rows, *problem.sizes, first, size,
            b, b * LN2,
            VIEWS=problem.num_views, TARGETS=objective.num_targets, PLACES=objective.num_places,
            PER_MARGINAL=objective.per_marginal, PRECISION=problem.precision,
        )  # fmt: skip
        du_MF += _adjoint(problem, ds_MB, first)
    return du_MF.view_as(u_VNF)


def _fused(problem: _Problem, saved: Saved, c_KN: Tensor) -> Tensor:
    """dU / scale of two views, dS never in memory."""
    objective, num_rows, b = problem.objective, problem.num_rows, saved.b
    least = left_out(problem.u_VNF.dtype) * b
    most = GRADIENT_ELEMENTS // problem.u_VNF.numel() * triton.cdiv(problem.num_stacked, ROWS)
    splits, codes_per_split = problem.split_codes(problem.num_stacked, min(FUSED_PROGRAMS, most))
    chunk = min(CHUNK, max(16, triton.next_power_of_2(problem.width)))
    du_SVNF = torch.empty(splits, *problem.u_VNF.shape, device=c_KN.device)
    fused_gradient_kernel[lambda tile: (triton.cdiv(2 * num_rows, tile["ROWS"]), splits)](
        problem.u_VNF, problem.bits_CB, saved.lse_VN, saved.slope_MC, c_KN, du_SVNF, num_rows, *problem.sizes,
        codes_per_split, b, b * LN2, least, TARGETS=objective.num_targets, PER_MARGINAL=objective.per_marginal,
        PRECISION=problem.precision, CHUNKS=triton.cdiv(problem.width, chunk), CHUNK=chunk,
    )  # fmt: skip
    return du_SVNF.sum(dim=0)


def left_out(dtype: torch.dtype) -> float:
    """Most of sum_j |dS_ij| / b of a row that is left out of dU, where whole tiles are small: the dtype's epsilon.

    Leaving out every tile whose largest P is below epsilon, as apple/ml-cross-entropy does, would here leave out all of
    the gradient of diffuse assignments, P = 1 / C: rows have no label, whose entry is large whatever P is.
    """
    return torch.finfo(dtype).eps


def _adjoint(problem: _Problem, ds_MB: Tensor, first: int) -> Tensor:
    """sum_j dS_ij w_j over codes from ``first`` on, by the library's products."""
    dictionary, stop = problem.dictionary, first + ds_MB.shape[1]
    if problem.precision == "ieee":
        return dictionary.adjoint(ds_MB, first, stop, dtype=torch.float32)
    # A CPU rounds products in bfloat16 once more.
    dtype = torch.bfloat16 if ds_MB.is_cuda else torch.float32
    du_MF = torch.zeros((), device=ds_MB.device)
    for _ in range(PARTS[problem.precision]):
        part_MB = ds_MB.bfloat16()
        du_MF = du_MF + dictionary.adjoint(part_MB.to(dtype), first, stop, dtype=dtype)
        ds_MB = ds_MB - part_MB
    return du_MF
