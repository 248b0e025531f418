"""GEDI: agree across views, use all classes alike, and model the images (Sansone and Manhaeve, arXiv 2212.13425).

p_i         = softmax_j(s_ij / T)
invariance  = -(1/N) sum_ij p_ij log p'_ij
prior       = -(1/C) sum_j log m_j,   m_j = (1/N) sum_i p_ij      cross-entropy of the uniform prior and the marginal
energy      = mean E(x) - mean E(x~),   E(x) = -log sum_j exp(s_j(x) / T_e)   x~ drawn from the model by SGLD
loss        = beta * invariance + prior [+ energy_weight * energy]

The authors' code for their later paper (arXiv 2410.04959) takes one order of the views, the sum over j in place of the
mean, and half of it all: beta / C here is its beta.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from falcon_ssl.core.checks import check_at_least, check_matrix, check_positive
from falcon_ssl.core.numerics import at_least_float32
from falcon_ssl.losses.rows import check_views, global_count, logsumexp_rows, mean_rows


class GEDITerms(NamedTuple):
    """The discriminative loss and its parts: 0-dim tensors in nats, equal on every rank; only ``total`` has a gradient.

    Args:
        total: beta * invariance + prior_matching; (1 + beta) log C when assignments are uniform.
        invariance: entropy + consistency, averaged over both orders of the views.
        prior_matching: Averaged over both views; at least log C.
        entropy: mean_i H(p_i).
        consistency: mean_i KL(p_i || p'_i).
    """

    total: Tensor
    invariance: Tensor
    prior_matching: Tensor
    entropy: Tensor
    consistency: Tensor


def gedi_loss(
    scores1: Tensor, scores2: Tensor, *, temperature: float = 0.1, beta: float = 0.1
) -> GEDITerms:
    """Discriminative part of the GEDI loss of two views.

    Args:
        scores1: [N, C], outputs of the head for the first view (this rank's rows).
        scores2: [N, C], row by row the same samples.
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
        >>> round(float(gedi_loss(s, s, beta=1.0).total), 3)  # uniform assignments: 2 log 10
        4.605
    """
    check_views(("scores1", "scores2"), (scores1, scores2))
    check_positive("temperature", temperature, fix="0.1 is usual")
    check_at_least("beta", beta, 0)
    num_rows = global_count(
        scores1, lambda: f"gedi_loss, C={scores1.shape[1]}, temperature={temperature}, beta={beta}"
    )
    with torch.autocast(scores1.device.type, enabled=False):
        log_p1_NC, log_p2_NC = (
            (at_least_float32(s_NC) / temperature).log_softmax(dim=1) for s_NC in (scores1, scores2)
        )
        invariance = prior = entropy = log_p1_NC.new_zeros(())
        for log_p_NC, log_other_NC in ((log_p1_NC, log_p2_NC), (log_p2_NC, log_p1_NC)):
            p_NC = log_p_NC.exp()
            invariance = invariance - mean_rows((p_NC * log_other_NC).sum(dim=1), num_rows) / 2
            entropy = entropy - mean_rows((p_NC * log_p_NC).detach().sum(dim=1), num_rows) / 2
            log_m_C = logsumexp_rows(log_p_NC) - math.log(num_rows)
            prior = prior - log_m_C.mean() / 2
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
