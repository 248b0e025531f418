"""The FALCON loss over all 2^F codes in closed form: a cost that does not depend on C.

With x = L / sqrt(F) u and t = tanh(x) the assignment is a product of F bits, p(w) = prod_f (1 + t_f w_f) / 2, so

    I  = mean over pairs, mean_i sum_f [ log 2cosh(x_vif) - x_vif t_oif ]      F binary cross-entropies, O(V N F)
    D2 = log 2^F sum_w m(w)^2 = log (1/N^2) sum_ik exp K_ik                    renyi2, exact, O(N^2 F)
    K_ik = sum_f log(1 + t_if t_kf)
    Dr = E_{w ~ m} [ log m(w) ] + F log 2                                      reverse, from drawn codes

o runs over the targets and v over all other views; a cross-entropy is linear in x_v and log cosh x_v, so that a target
meets their sums, and of views of many places the sum over places meets the sum over places. The matrix K would take
N^2 F logarithms. But with t = tan angle

    1 + t_i t_k = cos(angle_i - angle_k) / (cos angle_i cos angle_k)

and a product of such cosines over g features is an inner product of unit vectors of length 2^g:

    exp K_ik = rho_i rho_k prod_groups <phi_i, phi_k>,   phi = (x) (cos, sin) over a group,   rho = prod 1 / cos

so that a matrix product a group does it, without a single logarithm, and nothing exceeds 1 but rho.

Where all |t| are small, a few terms of the series of the logarithm are enough and need one product of width n F:

    K_ik ~ sum_(k<=n) (-1)^(k+1) / k <t_i^k, t_k^k>        n odd: never below the truth, see `kernel_error`

A pooled marginal takes the rows of all target views together, and leaves out pairs of rows of one sample (places of a
view, views of a sample): a U-statistic, D2 = log mean_(i != k) exp K, without bias before the logarithm.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad, softplus

from falcon_ssl.core.checks import check_at_least
from falcon_ssl.core.constants import constant
from falcon_ssl.core.distributed import (
    all_gather_rows,
    all_reduce_max,
    all_reduce_sum,
    rank,
    row_counts,
)
from falcon_ssl.core.errors import InputError
from falcon_ssl.core.numerics import at_least_float32
from falcon_ssl.core.theory import LN2, PriorMatching
from falcon_ssl.dictionary.complete import CompleteDictionary
from falcon_ssl.losses.falcon.streamed import check_first_derivative
from falcon_ssl.losses.falcon.terms import LossTerms
from falcon_ssl.losses.rows import sums_of_others

HALVES = (torch.bfloat16, torch.float16)
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
    num_places: int = 1,
    pooled: bool = False,
) -> LossTerms:
    """The loss over all 2^F codes; arguments as `falcon_ssl.falcon_loss`.

    The terms mean what they mean for a finite dictionary, so log C = F log 2 is part of invariance and entropy;
    subtract it to compare dictionaries of different size.

    Args:
        u_VNF: Embeddings of V views, this rank's rows; places as views in succession, see objective.py.
        dictionary: All codes of width F.
        logit_scale: L.
        beta: Weight of the invariance.
        prior_matching: "renyi2", exact, or "reverse", sampled with torch's default generator.
        num_targets: K; the first K views are the targets of all others.
        num_rows: N over all ranks.
        num_places: S; every S views in succession are places of one view, which do not meet each other.
        pooled: One marginal of all targets; renyi2 takes pairs of rows of different samples alone.

    Raises:
        InputError: Forward matching, whose expectation under the prior nothing but all codes can give; pairs of
            different samples of which there is one.

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
    x_KNF, t_VNF = x_VNF[:num_targets], x_VNF.tanh()
    t_KNF = t_VNF[:num_targets]
    log_cosh_V = _LogCosh.apply(x_VNF, t_VNF.detach()).sum(dim=(1, 2))  # type: ignore[no-untyped-call]
    x_of_views, t_of_targets = (_sum_places(x, num_places) for x in (x_VNF, t_KNF))
    others = torch.stack([*sums_of_others(x_of_views, num_targets // num_places)])
    # Targets that a view meets.
    meets = (num_targets - num_places,) * num_targets + (num_targets,) * (len(u_VNF) - num_targets)
    meets_V = constant(meets, u_VNF.device, log_cosh_V.dtype)
    cross = log_cosh_V @ meets_V - (t_of_targets * others).sum()
    cross = cross / (len(u_VNF) - num_places)
    own = log_cosh_V[:num_targets].sum() - (x_KNF * t_KNF).detach().sum()
    means = all_reduce_sum(torch.stack([cross, own])) / (num_targets * num_rows)
    per_marginal = num_targets if pooled else num_places
    if prior_matching == "renyi2":
        if dictionary.kernel_places is not None and dictionary.kernel_places < num_places:
            t_KNF = _some_places(t_KNF, num_places, dictionary.kernel_places)
            per_marginal = per_marginal // num_places * dictionary.kernel_places
        prior = renyi2(
            t_KNF.view(-1, per_marginal, *t_KNF.shape[1:]),
            num_rows,
            order=dictionary.kernel_order,
            dtype=u_VNF.dtype if u_VNF.dtype in HALVES else None,
            same_sample=not pooled,
        ).mean()
    else:
        samples = dictionary.samples_per_row
        priors = [
            _sampled_kl(x_GNF.flatten(0, 1), per_marginal * num_rows, samples)
            for x_GNF in torch.split(x_KNF, per_marginal)
        ]
        prior = torch.stack(priors).mean()
    invariance = means[0] + dictionary.log_num_codes
    return LossTerms(
        total=beta * invariance + prior,
        invariance=invariance.detach(),
        prior_matching=prior.detach(),
        entropy=means[1].detach() + dictionary.log_num_codes,
        consistency=(means[0] - means[1]).detach(),
    )


def _sum_places(x_VNF: Tensor, num_places: int) -> Tensor:
    """Sums over the S places of every view, [V / S, N, F]."""
    if num_places == 1:
        return x_VNF
    return x_VNF.view(-1, num_places, *x_VNF.shape[1:]).sum(dim=1)


def _some_places(t_KNF: Tensor, num_places: int, kept: int) -> Tensor:
    """R of the S places of every view: place n + j S / R mod S of sample n, j < R; [K R / S, N, F].

    Samples come in random order, so that each of their places has the same chance, on any number of ranks.
    """
    t_VSNF = t_KNF.view(-1, num_places, *t_KNF.shape[1:])
    first = sum(row_counts(t_KNF.shape[1], t_KNF.device)[: rank()])
    n_N = torch.arange(first, first + t_KNF.shape[1], device=t_KNF.device)
    j_R = torch.arange(kept, device=t_KNF.device) * num_places // kept
    place_RN = (n_N + j_R[:, None]) % num_places
    return t_VSNF.take_along_dim(place_RN[None, :, :, None], dim=1).flatten(0, 1)


def renyi2(
    t: Tensor,
    num_rows: int,
    *,
    order: int | None = None,
    dtype: torch.dtype | None = None,
    same_sample: bool = True,
) -> Tensor:
    """D2 = log mean over pairs of rows of prod_f (1 + t_if t_kf), over the rows of all ranks, with gradient.

    Args:
        t: tanh(L / sqrt(F) u), this rank's rows of G views or places, float32 or float64: [G, N, F], or
            [M, G, N, F] of M marginals.
        num_rows: N over all ranks.
        order: Terms of the series of the logarithm; None is exact.
        dtype: In which the products of the series are computed; None is that of ``t``.
        same_sample: Whether pairs of rows of one sample take part. Without them it is a U-statistic.

    Returns:
        0-dim, or [M]; >= 0 up to rounding where all pairs take part.
    """
    if t.dim() == 3:
        return renyi2(t[None], num_rows, order=order, dtype=dtype, same_sample=same_sample)[0]
    _, per_sample, num_local, _ = t.shape
    sample_R = None
    if not same_sample:
        check_at_least("number of samples", num_rows, 2, fix="pairs of different ones are needed")
        first = sum(row_counts(num_local, t.device)[: rank()])
        sample_N = torch.arange(first, first + num_local, device=t.device, dtype=torch.int32)
        sample_R = sample_N.repeat(per_sample)
    t_MRF = t.flatten(1, 2)
    if order is None:
        d2 = torch.stack([_exact(t_RF, sample_R) for t_RF in t_MRF])
    else:
        d2 = _LogSumExpSeries.apply(t_MRF, sample_R, order, dtype or t.dtype)  # type: ignore[no-untyped-call]
    others = num_rows if same_sample else num_rows - 1
    return d2 - math.log(per_sample**2 * num_rows * others)


def _exact(t_RF: Tensor, sample_R: Tensor | None) -> Tensor:
    log_rho_R = 0.5 * torch.log1p(t_RF.square()).sum(dim=1)
    log_sum: Tensor = _LogSumExpKernel.apply(_states(t_RF), log_rho_R, sample_R)  # type: ignore[no-untyped-call]
    return log_sum


def kernel_error(t_NF: Tensor, order: int) -> Tensor:
    """Bound of what `renyi2` with the series of an odd order n is too large by, 0-dim; it is never too small.

        0 <= K_n - K <= sum_f |t_if t_kf|^(n+1) / ((n+1) (1 - |t_if t_kf|))
                     <= max_i sum_f t_if^(2n+2) / ((n+1) (1 - max t^2))

    by the remainder of the logarithm, which for odd n has one sign, and Cauchy-Schwarz; and D2 = log mean exp K exceeds
    the truth by at most as much. For n = 3 and Gaussian features, t^2 about 1 / (T F), it is 105 / (4 T^4 F^3).
    """
    most = t_NF.abs().max()
    return t_NF.pow(2 * order + 2).sum(dim=1).max() / ((order + 1) * (1 - most.square()))


def _log_cosh(x: Tensor) -> Tensor:
    """log cosh x, without overflow."""
    y: Tensor = x.abs()
    return y + softplus(-2 * y) - LN2


class _LogCosh(torch.autograd.Function):
    """log cosh x, with its derivative tanh x, which is there already."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, tanh_x: Tensor) -> Tensor:
        ctx.save_for_backward(tanh_x)
        return _log_cosh(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        check_first_derivative("complete")
        (tanh_x,) = ctx.saved_tensors
        return grad * tanh_x, None


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
    """log sum_ik rho_i rho_k prod_g <phi_gi, phi_gk>, i over this rank's rows and then over all ranks, k over all.

    Given the sample of each row, pairs of one sample are left out.
    """

    @staticmethod
    def forward(ctx: Any, phi_GMD: Tensor, log_rho_M: Tensor, sample_M: Tensor | None) -> Tensor:
        rows_GMD = phi_GMD.detach().contiguous()
        all_GND = all_gather_rows(rows_GMD.transpose(0, 1)).transpose(0, 1).contiguous()
        log_rho_N = all_gather_rows(log_rho_M.detach())
        top = all_reduce_max(log_rho_M.detach().amax())
        rho_M, rho_N = (log_rho_M - top).exp(), (log_rho_N - top).exp()
        sample_N = None if sample_M is None else all_gather_rows(sample_M)
        sum_M = torch.empty_like(rho_M)
        for block in _row_blocks(rows_GMD, all_GND):
            product_RN = _cosines(rows_GMD[:, block], all_GND).prod(dim=0)
            if sample_M is not None and sample_N is not None:
                product_RN.masked_fill_(sample_M[block, None] == sample_N, 0)
            sum_M[block] = product_RN @ rho_N
        total = all_reduce_sum(rho_M @ sum_M)
        ctx.save_for_backward(rows_GMD, all_GND, rho_M / total, rho_N, sum_M, sample_M, sample_N)
        return total.log() + 2 * top

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        check_first_derivative("complete")
        rows_GMD, all_GND, weight_M, rho_N, sum_M, sample_M, sample_N = ctx.saved_tensors
        d_GMD = torch.empty_like(rows_GMD)
        for block in _row_blocks(rows_GMD, all_GND):
            cos_GRN = _cosines(rows_GMD[:, block], all_GND)
            pi_RN = cos_GRN.prod(dim=0) * rho_N * weight_M[block, None]
            if sample_M is not None:
                pi_RN.masked_fill_(sample_M[block, None] == sample_N, 0)
            torch.bmm(pi_RN / cos_GRN, all_GND, out=d_GMD[:, block])
        # The kernel is symmetric: what row i does as a column, on whichever rank, equals what it does as a row.
        twice = 2 * all_reduce_sum(grad)
        return d_GMD.mul_(twice), weight_M * sum_M * twice, None


class _LogSumExpSeries(torch.autograd.Function):
    """log sum_ik exp K_ik of M marginals, i over this rank's rows and then over all ranks, k over all.

    By the series of order n, all marginals together:

        K_ik = sum_(k<=n) c_k <t_i^k, t_k^k>,  c_k = (-1)^(k+1) / k        dK_ik/dt_i = sum_k (-1)^(k+1) t_i^(k-1) t_k^k

    The derivative is computed with the value, block by block, so that no N x N matrix is kept.
    """

    @staticmethod
    def forward(
        ctx: Any, t_MRF: Tensor, sample_R: Tensor | None, order: int, dtype: torch.dtype
    ) -> Tensor:
        t_MRF = t_MRF.detach()
        powers = [t_MRF]
        while len(powers) < order:
            powers.append(powers[-1] * t_MRF)
        terms = [power * ((-1) ** k / (k + 1)) for k, power in enumerate(powers) if k]
        mine_MRD = torch.cat([t_MRF, *terms], dim=2).to(dtype)
        power_MRD = torch.cat(powers, dim=2).to(dtype)
        all_MND = all_gather_rows(power_MRD.transpose(0, 1)).transpose(0, 1)
        sample_N = None if sample_R is None else all_gather_rows(sample_R)
        log_sum_MR, mean_MRD = torch.empty_like(t_MRF[..., 0]), torch.empty_like(power_MRD)
        num_pairs = all_MND.shape[0] * all_MND.shape[1]  # of a row
        size = max(8, BLOCK_ELEMENTS.get(t_MRF.device.type, 2**25) // num_pairs)
        for block in (slice(i, i + size) for i in range(0, t_MRF.shape[1], size)):
            k_MBN = torch.bmm(mine_MRD[:, block], all_MND.mT).to(t_MRF.dtype)
            if sample_R is not None and sample_N is not None:
                k_MBN.masked_fill_(sample_R[block, None] == sample_N, -math.inf)
            top_MB1 = k_MBN.amax(dim=2, keepdim=True)
            sum_MB1 = k_MBN.sub_(top_MB1).exp_().sum(dim=2, keepdim=True)
            log_sum_MR[:, block] = (sum_MB1.log() + top_MB1)[..., 0]
            mean_MRD[:, block] = torch.bmm(k_MBN.to(dtype), all_MND) / sum_MB1.to(dtype)
        top_M = all_reduce_max(log_sum_MR.amax(dim=1))
        part_MR = (log_sum_MR - top_M[:, None]).exp()
        total_M = all_reduce_sum(part_MR.sum(dim=1))
        # The kernel is symmetric: what row i does as a column, on whichever rank, equals what it does as a row.
        weight_MR = part_MR / (total_M / 2)[:, None]
        *parts, slope_MRF = mean_MRD.to(t_MRF.dtype).chunk(order, dim=2)
        for part_MRF in reversed(parts):
            slope_MRF = torch.addcmul(part_MRF, t_MRF, slope_MRF, value=-1)
        ctx.save_for_backward(slope_MRF * weight_MR[..., None])
        return total_M.log() + top_M

    @staticmethod
    def backward(ctx: Any, grad_M: Tensor) -> tuple[Tensor, None, None, None]:
        check_first_derivative("complete")
        (slope_MRF,) = ctx.saved_tensors
        return slope_MRF * all_reduce_sum(grad_M)[:, None, None], None, None, None


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
