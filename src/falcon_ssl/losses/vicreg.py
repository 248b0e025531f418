"""VICReg: variance, invariance, covariance (Bardes, Ponce, LeCun, 2022, arXiv 2105.04906).

    s(Z, Z') = (1/NF) sum_n |z_n - z'_n|^2                                    the mean square of the paper's listing
    v(Z)     = (1/F) sum_j max(0, gamma - sqrt(Var(z_j) + eps))               (eq. 1)
    c(Z)     = (1/F) sum_{i != j} Cov(Z)_ij^2                                 (eq. 4), Cov and Var with 1/(N - 1)
    loss     = lambda s(Z, Z') + mu [v(Z) + v(Z')] + nu [c(Z) + c(Z')]        (eq. 6)

The authors' released code halves the variance term: mu = 12.5 reproduces it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from falcon_ssl.core.checks import check_at_least, check_positive
from falcon_ssl.core.distributed import all_reduce_sum
from falcon_ssl.core.numerics import at_least_float32
from falcon_ssl.losses.rows import centered, check_views, global_count, off_diagonal

TARGET_STD, EPS = 1.0, 1e-4  # gamma and epsilon of the paper


class VICRegTerms(NamedTuple):
    """The loss and what it is made of: 0-dim tensors, equal on every rank; only ``total`` carries a gradient.

    Args:
        total: Weighted sum of the other three.
        invariance: s(Z, Z').
        variance: v(Z) + v(Z'); 2 gamma when all rows are equal.
        covariance: c(Z) + c(Z').
    """

    total: Tensor
    invariance: Tensor
    variance: Tensor
    covariance: Tensor


def vicreg_loss(
    z1: Tensor,
    z2: Tensor,
    *,
    invariance_weight: float = 25.0,
    variance_weight: float = 25.0,
    covariance_weight: float = 1.0,
    target_std: float = TARGET_STD,
    eps: float = EPS,
) -> VICRegTerms:
    """VICReg loss of two views.

    Args:
        z1: [N, F], output of the head for the first view (this rank's rows).
        z2: [N, F], row by row the same samples.
        invariance_weight: lambda.
        variance_weight: mu.
        covariance_weight: nu.
        target_std: gamma, below which a standard deviation is penalized.
        eps: Added to the variance under the root.

    Returns:
        VICRegTerms.

    Raises:
        InputError: Views that do not fit each other, fewer than two rows, an option out of range, or ranks that
            disagree.

    Distributed:
        All statistics run over the rows of all ranks, with gradient; shards may differ in size.

    Numerics:
        Statistics in float32, float64 for float64. The gradient is cubic in the inputs: rows beyond about 100 in
        float16 can have one that float16 cannot hold, which is infinite then, as a gradient scaler expects.

    Example:
        >>> z = torch.ones(8, 4)
        >>> round(float(vicreg_loss(z, z).variance), 2)  # collapsed: 2 (1 - sqrt(eps))
        1.98
    """
    check_views(("z1", "z2"), (z1, z2))
    weights = {
        "invariance_weight": invariance_weight,
        "variance_weight": variance_weight,
        "covariance_weight": covariance_weight,
    }
    for name, weight in weights.items():
        check_at_least(name, weight, 0)
    check_positive("target_std", target_std, fix="the paper's is 1")
    check_positive("eps", eps, fix="the paper's is 1e-4")
    num_rows = global_count(
        z1, lambda: f"vicreg_loss, {weights}, target_std={target_std}, eps={eps}", least=2
    )
    with torch.autocast(z1.device.type, enabled=False):
        z1_NF, z2_NF = at_least_float32(z1), at_least_float32(z2)
        width = z1_NF.shape[1]
        invariance = all_reduce_sum((z1_NF - z2_NF).square().sum()) / (num_rows * width)
        variance = covariance = z1_NF.new_zeros(())
        for z_NF in (z1_NF, z2_NF):
            centered_NF = centered(z_NF, num_rows)
            cov_FF = all_reduce_sum(centered_NF.T @ centered_NF) / (num_rows - 1)
            std_F = (cov_FF.diagonal() + eps).sqrt()
            variance = variance + (target_std - std_F).relu().mean()
            covariance = covariance + off_diagonal(cov_FF).square().sum() / width
        total = (
            invariance_weight * invariance
            + variance_weight * variance
            + covariance_weight * covariance
        )
    return VICRegTerms(total, invariance.detach(), variance.detach(), covariance.detach())
