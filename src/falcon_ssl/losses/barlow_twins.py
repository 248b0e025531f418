"""Barlow Twins: make the cross-correlation of two views the identity (Zbontar et al., 2021, arXiv 2103.03230).

c_ij = (1/N) sum_n z_ni z'_nj        both views standardized feature by feature over the batch
loss = sum_i (1 - c_ii)^2  +  lambda sum_{i != j} c_ij^2                                        (eq. 1)
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from falcon_ssl.core.checks import check_at_least, check_positive
from falcon_ssl.core.distributed import all_reduce_sum
from falcon_ssl.core.numerics import at_least_float32
from falcon_ssl.losses.rows import centered, check_views, global_count, off_diagonal


class BarlowTwinsTerms(NamedTuple):
    """The loss and what it is made of: 0-dim tensors, equal on every rank; only ``total`` carries a gradient.

    Args:
        total: invariance + redundancy_weight * redundancy.
        invariance: sum_i (1 - c_ii)^2; 0 when every feature is the same in both views, F when none is related.
        redundancy: sum_{i != j} c_ij^2; 0 when no feature repeats another.
    """

    total: Tensor
    invariance: Tensor
    redundancy: Tensor


def barlow_twins_loss(
    z1: Tensor, z2: Tensor, *, redundancy_weight: float = 5e-3, eps: float = 1e-5
) -> BarlowTwinsTerms:
    """Barlow Twins loss of two views.

    Args:
        z1: [N, F], output of the head for the first view (this rank's rows).
        z2: [N, F], row by row the same samples.
        redundancy_weight: lambda, weight of the off-diagonal entries.
        eps: Added to the variances, as batch normalization does in the authors' code; the paper's formula has none.

    Returns:
        BarlowTwinsTerms.

    Raises:
        InputError: Views that do not fit each other, fewer than two rows, an option out of range, or ranks that
            disagree.

    Distributed:
        Mean, variance and correlation run over the rows of all ranks, with gradient; shards may differ in size.

    Numerics:
        Statistics in float32, float64 for float64. A feature that is constant correlates with nothing: c = 0.

    Example:
        >>> z = torch.randn(64, 16)
        >>> bool(barlow_twins_loss(z, z).invariance < 1e-6)
        True
    """
    check_views(("z1", "z2"), (z1, z2))
    check_at_least("redundancy_weight", redundancy_weight, 0, fix="the paper's is 5e-3")
    check_positive("eps", eps, fix="use 1e-5, as batch normalization does")
    num_rows = global_count(
        z1, lambda: f"barlow_twins_loss, redundancy_weight={redundancy_weight}, eps={eps}", least=2
    )
    with torch.autocast(z1.device.type, enabled=False):
        # Both views side by side: one sum over ranks for two.
        y_N2F = _standardized(at_least_float32(torch.cat([z1, z2], dim=1)), num_rows, eps)
        y1_NF, y2_NF = y_N2F.chunk(2, dim=1)
        c_FF = all_reduce_sum(y1_NF.T @ y2_NF) / num_rows
        invariance = (1 - c_FF.diagonal()).square().sum()
        redundancy = off_diagonal(c_FF).square().sum()
        total = invariance + redundancy_weight * redundancy
    return BarlowTwinsTerms(total, invariance.detach(), redundancy.detach())


def _standardized(x_NF: Tensor, num_rows: int, eps: float) -> Tensor:
    """Mean 0 and variance 1 in every column."""
    centered_NF = centered(x_NF, num_rows)
    var_F = all_reduce_sum(centered_NF.square().sum(dim=0)) / num_rows
    return centered_NF * torch.rsqrt(var_F + eps)
