"""The FALCON loss over all 2^F codes in closed form: a cost that does not depend on C.

With x = L / sqrt(F) u and t = tanh(x) the assignment is a product of F bits, p(w) = prod_f (1 + t_f w_f) / 2, so

    I  = mean_i sum_f [ log 2cosh(x'_if) - x'_if t_if ]                        F binary cross-entropies, O(N F)
    D2 = log 2^F sum_w m(w)^2 = log (1/N^2) sum_ik exp K_ik                    renyi2, exact, O(N^2 F)
    K_ik = sum_f log(1 + t_if t_kf)
    Dr = E_{w ~ m} [ log m(w) ] + F log 2                                      reverse, from drawn codes

K would take N^2 F logarithms. The product over g features is a polynomial in t_i and t_k,

    prod_{f in group} (1 + t_if t_kf) - 1 = <phi(t_i), phi(t_k)>,    phi(t) = products of the 2^g - 1 nonempty subsets

so that a matrix product over each group and one log1p a group do, exactly and without cancellation for small t.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad, softplus

from falcon_ssl.checks import InputError
from falcon_ssl.dictionary_complete import CompleteDictionary
from falcon_ssl.distributed import all_gather_rows, all_reduce_max, all_reduce_sum
from falcon_ssl.losses.falcon_reference import at_least_float32
from falcon_ssl.losses.objective import PriorMatching
from falcon_ssl.losses.streamed import LN2, check_first_derivative
from falcon_ssl.losses.terms import LossTerms

GROUP = 4  # features a matrix product: 15 terms
BLOCK_ELEMENTS = {"cpu": 2**18, "cuda": 2**25}  # of one block of K over all groups


def falcon_loss_complete(
    u1_NF: Tensor,
    u2_NF: Tensor,
    dictionary: CompleteDictionary,
    *,
    logit_scale: float,
    beta: float,
    prior_matching: PriorMatching,
    symmetric: bool,
    num_rows: int,
) -> LossTerms:
    """The loss over all 2^F codes; arguments as `falcon_ssl.falcon_loss`.

    The terms mean what they mean for a finite dictionary, so log C = F log 2 is part of invariance and entropy;
    subtract it to compare dictionaries of different size.

    Args:
        u1_NF: Embeddings of the first view, this rank's rows.
        u2_NF: Embeddings of the second view.
        dictionary: All codes of width F.
        logit_scale: L.
        beta: Weight of the invariance.
        prior_matching: "renyi2", exact, or "reverse", sampled with torch's default generator.
        symmetric: Average both orders of the views.
        num_rows: N over all ranks.

    Raises:
        InputError: Forward matching, whose expectation under the prior nothing but all codes can give.

    Memory:
        O(N F + block) with renyi2, O(S N F) with S samples a row.

    Distributed:
        Rows of all ranks are gathered; the gradient needs no communication, because K is symmetric.
    """
    if prior_matching == "forward":
        raise InputError(
            "the complete dictionary has no forward prior matching",
            received="prior_matching='forward'",
            expected="'renyi2' or 'reverse'",
            fix="use renyi2, which is exact",
        )
    x_VNF = torch.stack([at_least_float32(u1_NF), at_least_float32(u2_NF)])
    x_VNF = x_VNF * (logit_scale / math.sqrt(dictionary.width))
    t_VNF = x_VNF.tanh()
    orders = ((0, 1), (1, 0)) if symmetric else ((0, 1),)
    weight = 1 / (len(orders) * num_rows)
    sums, priors = [], []
    for v, o in orders:
        own_NF = _log_cosh(x_VNF[v]) - x_VNF[v] * t_VNF[v]
        cross_NF = _log_cosh(x_VNF[o]) - x_VNF[o] * t_VNF[v]
        sums.append(torch.stack([cross_NF.sum(), own_NF.sum(), (cross_NF - own_NF).sum()]))
        if prior_matching == "renyi2":
            priors.append(renyi2(t_VNF[v], num_rows))
        else:
            priors.append(_sampled_kl(x_VNF[v], num_rows, dictionary.samples_per_row))
    means = weight * all_reduce_sum(torch.stack(sums).sum(dim=0))
    log_num_codes = dictionary.width * LN2
    invariance = means[0] + log_num_codes
    prior = torch.stack(priors).mean()
    return LossTerms(
        total=beta * invariance + prior,
        invariance=invariance.detach(),
        prior_matching=prior.detach(),
        entropy=means[1].detach() + log_num_codes,
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
    d2: Tensor = _LogSumExpKernel.apply(_monomials(t_NF))  # type: ignore[no-untyped-call]
    return d2 - 2 * math.log(num_rows)


def _log_cosh(x: Tensor) -> Tensor:
    """log cosh x, without overflow."""
    y: Tensor = x.abs() + softplus(-2 * x.abs()) - LN2
    return y


def _monomials(t_NF: Tensor) -> Tensor:
    """phi: products of all nonempty subsets of every `GROUP` features, [groups, N, 2^GROUP - 1]."""
    num_features = t_NF.shape[1]
    padded = pad(t_NF, (0, -num_features % GROUP))  # a feature t = 0 is a factor 1
    t_GNg = padded.view(len(t_NF), -1, GROUP).transpose(0, 1)
    phi = t_GNg[:, :, :1]
    for f in range(1, GROUP):
        t = t_GNg[:, :, f : f + 1]
        phi = torch.cat([phi, t, phi * t], dim=2)
    return phi


class _LogSumExpKernel(torch.autograd.Function):
    """log sum_ik exp K_ik with K_ik = sum_g log(1 + <phi_gi, phi_gk>), i over this rank's rows, then over all ranks."""

    @staticmethod
    def forward(ctx: Any, phi_GMD: Tensor) -> Tensor:
        rows_GMD = phi_GMD.detach().contiguous()
        all_GND = all_gather_rows(rows_GMD.transpose(0, 1)).transpose(0, 1).contiguous()
        tops, sums = [], []
        for block in _row_blocks(rows_GMD, all_GND):
            k_RN = _kernel(rows_GMD[:, block], all_GND).log1p_().sum(dim=0)
            tops.append(k_RN.amax())
            sums.append((k_RN - tops[-1]).exp_().sum())
        top = all_reduce_max(torch.stack(tops).amax())
        total = all_reduce_sum((torch.stack(sums) * (torch.stack(tops) - top).exp()).sum())
        result = total.log() + top
        ctx.save_for_backward(rows_GMD, all_GND, result)
        return result

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        check_first_derivative("complete")
        rows_GMD, all_GND, result = ctx.saved_tensors
        d_GMD = torch.empty_like(rows_GMD)
        for block in _row_blocks(rows_GMD, all_GND):
            x_GRN = _kernel(rows_GMD[:, block], all_GND)
            pi_RN = (x_GRN.log1p().sum(dim=0) - result).exp_()
            torch.bmm(x_GRN.add_(1).reciprocal_().mul_(pi_RN), all_GND, out=d_GMD[:, block])
        # K is symmetric: what row i does as a column, on whichever rank, equals what it does as a row.
        return d_GMD.mul_(2 * all_reduce_sum(grad))


def _row_blocks(rows_GMD: Tensor, all_GND: Tensor) -> list[slice]:
    groups, num_rows, _ = rows_GMD.shape
    most = BLOCK_ELEMENTS.get(rows_GMD.device.type, 2**25)
    size = max(1, most // (groups * all_GND.shape[1]))
    return [slice(i, min(i + size, num_rows)) for i in range(0, num_rows, size)]


def _kernel(rows_GRD: Tensor, all_GND: Tensor) -> Tensor:
    """prod over a group of (1 + t_if t_kf), minus 1: [groups, R, N]; above -1 also after rounding."""
    x_GRN = torch.bmm(rows_GRD, all_GND.transpose(1, 2))
    return x_GRN.clamp_(min=-1 + torch.finfo(x_GRN.dtype).eps)


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
