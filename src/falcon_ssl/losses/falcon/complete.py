"""The FALCON loss over all 2^F codes in closed form: a cost that does not depend on C.

With x = L / sqrt(F) u and t = tanh(x) the assignment is a product of F bits, p(w) = prod_f (1 + t_f w_f) / 2, so

    I  = mean over pairs, mean_i sum_f [ log 2cosh(x_vif) - x_vif t_oif ]      F binary cross-entropies, O(V N F)
    D2 = log 2^F sum_w m(w)^2 = log (1/N^2) sum_ik exp K_ik                    renyi2, exact, O(N^2 F)
    K_ik = sum_f log(1 + t_if t_kf)
    Dr = E_{w ~ m} [ log m(w) ] + F log 2                                      reverse, from drawn codes

o runs over the targets and v over all other views; a cross-entropy is linear in x_v and log cosh x_v, so that a target
meets their sums. The matrix K would take N^2 F logarithms. But with t = tan angle

    1 + t_i t_k = cos(angle_i - angle_k) / (cos angle_i cos angle_k)

and a product of such cosines over g features is an inner product of unit vectors of length 2^g:

    exp K_ik = rho_i rho_k prod_groups <phi_i, phi_k>,   phi = (x) (cos, sin) over a group,   rho = prod 1 / cos

so that a matrix product a group does it, without a single logarithm, and nothing exceeds 1 but rho.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad, softplus

from falcon_ssl.core.distributed import all_gather_rows, all_reduce_max, all_reduce_sum
from falcon_ssl.core.errors import InputError
from falcon_ssl.core.numerics import at_least_float32
from falcon_ssl.core.theory import LN2, PriorMatching
from falcon_ssl.dictionary.complete import CompleteDictionary
from falcon_ssl.losses.falcon.streamed import check_first_derivative
from falcon_ssl.losses.falcon.terms import LossTerms
from falcon_ssl.losses.rows import sums_of_others

GROUP = 4  # features a matrix product: vectors of 16
BLOCK_ELEMENTS = {"cpu": 2**18, "cuda": 2**25}  # of inner products that exist at a time


def falcon_loss_complete(
    u_VNF: Tensor,
    dictionary: CompleteDictionary,
    *,
    logit_scale: float,
    beta: float,
    prior_matching: PriorMatching,
    num_targets: int,
    num_rows: int,
) -> LossTerms:
    """The loss over all 2^F codes; arguments as `falcon_ssl.falcon_loss`.

    The terms mean what they mean for a finite dictionary, so log C = F log 2 is part of invariance and entropy;
    subtract it to compare dictionaries of different size.

    Args:
        u_VNF: Embeddings of V views, this rank's rows.
        dictionary: All codes of width F.
        logit_scale: L.
        beta: Weight of the invariance.
        prior_matching: "renyi2", exact, or "reverse", sampled with torch's default generator.
        num_targets: K; the first K views are the targets of all others.
        num_rows: N over all ranks.

    Raises:
        InputError: Forward matching, whose expectation under the prior nothing but all codes can give.

    Memory:
        O(V N F + block) with renyi2, O(S N F) with S samples a row.

    Distributed:
        Rows of all ranks are gathered; the gradient needs no communication, because the kernel is symmetric.
    """
    if prior_matching == "forward":
        raise InputError(
            "the complete dictionary has no forward prior matching",
            received="prior_matching='forward'",
            expected="'renyi2' or 'reverse'",
            fix="use renyi2, which is exact",
        )
    x_VNF = at_least_float32(u_VNF) * (logit_scale / math.sqrt(dictionary.width))
    x_KNF = x_VNF[:num_targets]
    t_KNF = x_KNF.tanh()
    log_cosh_VNF = _log_cosh(x_VNF)
    own_KNF = log_cosh_VNF[:num_targets] - x_KNF * t_KNF
    others = sums_of_others(torch.stack([x_VNF, log_cosh_VNF], dim=1), num_targets)
    cross_KNF = torch.stack(
        [other[1] - other[0] * t for t, other in zip(t_KNF, others, strict=True)]
    )
    cross_KNF = cross_KNF / (len(u_VNF) - 1)
    sums = torch.stack([cross_KNF.sum(), own_KNF.sum(), (cross_KNF - own_KNF).sum()])
    means = all_reduce_sum(sums) / (num_targets * num_rows)
    if prior_matching == "renyi2":
        priors = [renyi2(t_NF, num_rows) for t_NF in t_KNF]
    else:
        priors = [_sampled_kl(x_NF, num_rows, dictionary.samples_per_row) for x_NF in x_KNF]
    invariance = means[0] + dictionary.log_num_codes
    prior = torch.stack(priors).mean()
    return LossTerms(
        total=beta * invariance + prior,
        invariance=invariance.detach(),
        prior_matching=prior.detach(),
        entropy=means[1].detach() + dictionary.log_num_codes,
        consistency=means[2].detach(),
    )


def renyi2(t_NF: Tensor, num_rows: int) -> Tensor:
    """D2 = log (1/N^2) sum_ik prod_f (1 + t_if t_kf) over the rows of all ranks, with gradient.

    Args:
        t_NF: tanh(L / sqrt(F) u), this rank's rows, float32 or float64.
        num_rows: N over all ranks.

    Returns:
        0-dim, >= 0 up to rounding.
    """
    log_rho_N = 0.5 * torch.log1p(t_NF.square()).sum(dim=1)
    d2: Tensor = _LogSumExpKernel.apply(_states(t_NF), log_rho_N)  # type: ignore[no-untyped-call]
    return d2 - 2 * math.log(num_rows)


def _log_cosh(x: Tensor) -> Tensor:
    """log cosh x, without overflow."""
    y: Tensor = x.abs() + softplus(-2 * x.abs()) - LN2
    return y


def _states(t_NF: Tensor) -> Tensor:
    """phi: Kronecker product of (cos, sin) over every `GROUP` features, unit vectors [groups, N, 2^GROUP]."""
    padded = pad(t_NF, (0, -t_NF.shape[1] % GROUP))  # a feature t = 0 is a factor 1
    t_GNf = padded.view(len(t_NF), -1, GROUP).transpose(0, 1)
    cos_GNf = torch.rsqrt(1 + t_GNf.square())
    sin_GNf = t_GNf * cos_GNf
    phi = torch.ones_like(t_GNf[:, :, :1])
    for f in range(GROUP):
        phi = torch.cat([phi * cos_GNf[:, :, f : f + 1], phi * sin_GNf[:, :, f : f + 1]], dim=2)
    return phi


class _LogSumExpKernel(torch.autograd.Function):
    """log sum_ik rho_i rho_k prod_g <phi_gi, phi_gk>, i over this rank's rows and then over all ranks, k over all."""

    @staticmethod
    def forward(ctx: Any, phi_GMD: Tensor, log_rho_M: Tensor) -> Tensor:
        rows_GMD = phi_GMD.detach().contiguous()
        all_GND = all_gather_rows(rows_GMD.transpose(0, 1)).transpose(0, 1).contiguous()
        log_rho_N = all_gather_rows(log_rho_M.detach())
        top = all_reduce_max(log_rho_M.detach().amax())
        rho_M, rho_N = (log_rho_M - top).exp(), (log_rho_N - top).exp()
        sum_M = torch.empty_like(rho_M)
        for block in _row_blocks(rows_GMD, all_GND):
            sum_M[block] = _cosines(rows_GMD[:, block], all_GND).prod(dim=0) @ rho_N
        total = all_reduce_sum(rho_M @ sum_M)
        ctx.save_for_backward(rows_GMD, all_GND, rho_M / total, rho_N, sum_M)
        return total.log() + 2 * top

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        check_first_derivative("complete")
        rows_GMD, all_GND, weight_M, rho_N, sum_M = ctx.saved_tensors
        d_GMD = torch.empty_like(rows_GMD)
        for block in _row_blocks(rows_GMD, all_GND):
            cos_GRN = _cosines(rows_GMD[:, block], all_GND)
            pi_RN = cos_GRN.prod(dim=0) * rho_N * weight_M[block, None]
            torch.bmm(pi_RN / cos_GRN, all_GND, out=d_GMD[:, block])
        # The kernel is symmetric: what row i does as a column, on whichever rank, equals what it does as a row.
        twice = 2 * all_reduce_sum(grad)
        return d_GMD.mul_(twice), weight_M * sum_M * twice


def _row_blocks(rows_GMD: Tensor, all_GND: Tensor) -> list[slice]:
    groups, num_rows, _ = rows_GMD.shape
    most = BLOCK_ELEMENTS.get(rows_GMD.device.type, 2**25)
    size = max(8, most // (groups * all_GND.shape[1]))  # products of fewer rows waste the caches
    return [slice(i, min(i + size, num_rows)) for i in range(0, num_rows, size)]


def _cosines(rows_GRD: Tensor, all_GND: Tensor) -> Tensor:
    """<phi_gi, phi_gk> [groups, R, N]: at least 0 in truth, and kept above it so that one may divide by it."""
    return torch.bmm(rows_GRD, all_GND.transpose(1, 2)).clamp_(min=1e-20)


def _sampled_kl(x_NF: Tensor, num_rows: int, samples_per_row: int) -> Tensor:
    """KL(m || uniform) = E_{w ~ m} log m(w) + F log 2 from codes drawn from every row's assignment.

    log m(w) = logsumexp_k sum_f [x_kf w_f - log 2cosh x_kf] - log N. Its value is the mean over samples; its gradient,
    E [log m(w) grad log m(w)], takes the mean of the other samples as a baseline, which leaves it unbiased.
    """
    all_NF = all_gather_rows(x_NF)
    with torch.no_grad():
        up_NF = torch.sigmoid(2 * x_NF)
        draws_SNF = torch.rand(samples_per_row, *x_NF.shape, dtype=x_NF.dtype, device=x_NF.device)
        w_SF = torch.where(draws_SNF < up_NF, 1.0, -1.0).to(x_NF.dtype).flatten(0, 1)
    log_2cosh_N = (_log_cosh(all_NF) + LN2).sum(dim=1)
    log_m_S = (w_SF @ all_NF.T - log_2cosh_N).logsumexp(dim=1) - math.log(num_rows)
    num_samples = num_rows * samples_per_row
    mean = all_reduce_sum(log_m_S.detach().sum()) / num_samples
    advantage_S = (log_m_S.detach() - mean) / (num_samples - 1)
    score = all_reduce_sum((advantage_S * log_m_S).sum())
    # The value of the mean with the gradient of the score.
    return mean + x_NF.shape[1] * LN2 + score - score.detach()
