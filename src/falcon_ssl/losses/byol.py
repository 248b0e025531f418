"""BYOL: predict what a running average of the network sees in the other view (Grill et al., 2020, arXiv 2006.07733).

L(p, z) = |p/|p| - z/|z||^2 = 2 - 2 cos(p, z)    p: prediction of the online network; z: target, no gradient     (eq. 2)
loss    = mean_i L(p_i, z'_i) + L(p'_i, z_i)     each view is input and target                             (section 3.1)
spread  = 1 - |mean_i z_i / |z_i||^2             0 when all targets are alike

Nothing in the loss keeps samples apart: a network that gives every image the same embedding has loss 0, its least.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from falcon_ssl.core.distributed import all_reduce_sum
from falcon_ssl.core.numerics import at_least_float32
from falcon_ssl.losses.rows import check_views, global_count, mean_rows


class BYOLTerms(NamedTuple):
    """The loss, and what separates learning from collapse; 0-dim, equal on every rank; ``total`` has a gradient.

    Args:
        total: In [0, 8]; 4 when predictions have nothing to do with their targets, 0 when all are right: also when
            they are the same for every sample.
        spread: Of the targets, in [0, 1]; 0 when they are the same for every sample.
    """

    total: Tensor
    spread: Tensor


def byol_loss(p1: Tensor, p2: Tensor, z1: Tensor, z2: Tensor) -> BYOLTerms:
    """BYOL loss of two views.

    Args:
        p1: [N, F], predictions from the first view (this rank's rows).
        p2: [N, F], row by row the same samples, from the second view.
        z1: [N, F], targets of the first view, which ``p2`` is compared with; they carry no gradient.
        z2: [N, F], targets of the second view.

    Returns:
        BYOLTerms.

    Raises:
        InputError: Views that do not fit each other, or ranks that disagree.

    Distributed:
        Means run over the rows of all ranks; shards may differ in size.

    Numerics:
        Norms and cosines in float32, float64 for float64. A row of zeros has cosine 0 to all others.

    Example:
        >>> u = torch.ones(8, 4)
        >>> terms = byol_loss(u, u, u, u)  # collapsed
        >>> round(float(terms.total), 5), round(float(terms.spread), 5)
        (0.0, 0.0)
    """
    check_views(("p1", "p2", "z1", "z2"), (p1, p2, z1, z2))
    num_rows = global_count(p1, lambda: "byol_loss")
    with torch.autocast(p1.device.type, enabled=False):
        p1_NF, p2_NF = (_unit(p_NF) for p_NF in (p1, p2))
        z1_NF, z2_NF = (_unit(z_NF.detach()) for z_NF in (z1, z2))
        cosines_N = (p1_NF * z2_NF).sum(dim=1) + (p2_NF * z1_NF).sum(dim=1)
        total = 4 - 2 * mean_rows(cosines_N, num_rows)
        mean_F = all_reduce_sum((z1_NF + z2_NF).sum(dim=0)) / (2 * num_rows)
        spread = 1 - mean_F.square().sum()
    return BYOLTerms(total, spread)


def _unit(x_NF: Tensor) -> Tensor:
    return normalize(at_least_float32(x_NF), dim=1)
