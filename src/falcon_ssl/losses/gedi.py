"""GEDI: agree across views, use all classes alike, and model the images (Sansone and Manhaeve, arXiv 2212.13425).

p_i         = softmax_j(s_ij / T)
invariance  = mean over (o, v) of -(1/N) sum_ij p_oij log p_vij      o a target, v any other view
prior       = mean over o of -(1/C) sum_j log m_oj,   m_oj = (1/N) sum_i p_oij     cross-entropy of uniform and marginal
energy      = mean E(x) - mean E(x~),   E(x) = -log sum_j exp(s_j(x) / T_e)   x~ drawn from the model by SGLD
loss        = beta * invariance + prior [+ energy_weight * energy]

The authors' code for their later paper (arXiv 2410.04959) takes one order of the views, the sum over j in place of the
mean, and half of it all: its beta divided by C is beta here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from falcon_ssl.core.checks import check_at_least, check_matrix, check_positive
from falcon_ssl.core.numerics import at_least_float32
from falcon_ssl.losses.rows import (
    check_targets,
    check_views,
    global_count,
    logsumexp_rows,
    mean_rows,
    numbered,
    sums_of_others,
)


class GEDITerms(NamedTuple):
    """The discriminative loss and its parts: 0-dim tensors in nats, equal on every rank; only ``total`` has a gradient.

    Args:
        total: beta * invariance + prior_matching; (1 + beta) log C when assignments are uniform.
        invariance: entropy + consistency.
        prior_matching: Averaged over the targets; at least log C.
        entropy: mean H(p_oi) over targets and samples.
        consistency: mean KL(p_oi || p_vi) over pairs and samples.
    """

    total: Tensor
    invariance: Tensor
    prior_matching: Tensor
    entropy: Tensor
    consistency: Tensor


def gedi_loss(
    scores: Sequence[Tensor],
    *,
    num_targets: int | None = None,
    temperature: float = 0.1,
    beta: float = 0.1,
) -> GEDITerms:
    """Discriminative part of the GEDI loss of V views, at a cost linear in V.

    Args:
        scores: V >= 2 tensors [N, C], outputs of the head (this rank's rows); row i of each from the same sample.
        num_targets: The first views that are targets of all others; None: all.
        temperature: T.
        beta: Weight of the invariance.

    Returns:
        GEDITerms.

    Raises:
        InputError: Views that do not fit each other, an option out of range, or ranks that disagree.

    Distributed:
        The marginal runs over the rows of all ranks, with gradient; shards may differ in size.

    Numerics:
        Everything in the log domain, in float32, float64 for float64.

    Example:
        >>> s = torch.zeros(16, 10)
        >>> round(float(gedi_loss([s, s], beta=1.0).total), 3)  # uniform assignments: 2 log 10
        4.605
    """
    check_views(numbered("scores", scores), scores)
    num_targets = check_targets(len(scores), num_targets)
    check_positive("temperature", temperature, fix="0.1 is usual")
    check_at_least("beta", beta, 0)
    num_rows = global_count(
        scores[0],
        lambda: (
            f"gedi_loss, C={scores[0].shape[1]}, temperature={temperature}, beta={beta}, "
            f"num_views={len(scores)}, num_targets={num_targets}"
        ),
    )
    with torch.autocast(scores[0].device.type, enabled=False):
        s_VNC = at_least_float32(torch.stack([*scores]))
        log_p_VNC = (s_VNC / temperature).log_softmax(dim=2)
        invariance = prior = entropy = log_p_VNC.new_zeros(())
        for log_p_NC, others_NC in zip(
            log_p_VNC, sums_of_others(log_p_VNC, num_targets), strict=False
        ):
            p_NC = log_p_NC.exp()
            invariance = invariance - mean_rows((p_NC * others_NC).sum(dim=1), num_rows)
            entropy = entropy - mean_rows((p_NC * log_p_NC).detach().sum(dim=1), num_rows)
            log_m_C = logsumexp_rows(log_p_NC) - math.log(num_rows)
            prior = prior - log_m_C.mean()
        invariance = invariance / (num_targets * (len(scores) - 1))
        entropy, prior = entropy / num_targets, prior / num_targets
        total = beta * invariance + prior
    return GEDITerms(
        total,
        invariance.detach(),
        prior.detach(),
        entropy,
        invariance.detach() - entropy,
    )


def energy(scores: Tensor, *, temperature: float = 1.0) -> Tensor:
    """E(x) = -log sum_j exp(s_j(x) / T_e) of every sample: low where the model expects images.

    Args:
        scores: [N, C].
        temperature: T_e; a classifier's, and JEM's, is 1.

    Returns:
        [N], float32, float64 for float64.

    Raises:
        InputError: Scores that are not a floating matrix, or T that is not positive and finite.

    Example:
        >>> energy(torch.zeros(2, 4), temperature=1.0)
        tensor([-1.3863, -1.3863])
    """
    check_matrix("scores", scores)
    check_positive("temperature", temperature, fix="JEM's is 1")
    return -(at_least_float32(scores) / temperature).logsumexp(dim=1)


def energy_loss(data: Tensor, drawn: Tensor) -> Tensor:
    """mean E(x) - mean E(x~): its gradient is that of the negative log-likelihood of the images.

    Args:
        data: Energies [N] of images (this rank's rows).
        drawn: Energies [M] of samples of the model (this rank's rows).

    Returns:
        0-dim, with gradient, equal on every rank.

    Distributed:
        Each mean runs over the rows of all ranks.

    Example:
        >>> energy_loss(torch.tensor([1.0, 3.0]), torch.tensor([0.0]))
        tensor(2.)
    """
    means = (
        mean_rows(rows, global_count(rows, lambda: "energy_loss"))
        for rows in (at_least_float32(data), at_least_float32(drawn))
    )
    return next(means) - next(means)
