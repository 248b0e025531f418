"""Self-Classifier: classify all views alike under a uniform prior over classes (Amrani et al., 2022, arXiv 2103.10994).

p(j | i)  = softmax over classes j of  s_ij / T_row          prediction, from view v
p(i | j)  = softmax over samples i of  s_ij / T_col          from view o
target_ij = p(i | j) / sum_k p(i | k)                        Bayes' rule with p(j) = 1/C
loss      = -(1/N) sum_ij target_ij log[ (N/C) p(j | i) / sum_n p(j | n) ]
            averaged over pairs of a target o and any other view v; the gradient flows through both factors
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from falcon_ssl.core.checks import check_positive
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


class SelfClassifierTerms(NamedTuple):
    """The loss and what it is made of: 0-dim tensors in nats, equal on every rank; only ``total`` carries a gradient.

    Args:
        total: entropy + consistency; log C when all samples are classified alike.
        entropy: mean_i H(target_i).
        consistency: mean_i of sum_j target_ij log(target_ij / prediction_ij); the prediction is balanced over samples,
            not normalized over classes, so this may be negative.
    """

    total: Tensor
    entropy: Tensor
    consistency: Tensor


def self_classifier_loss(
    scores: Sequence[Tensor],
    *,
    num_targets: int | None = None,
    row_temperature: float = 0.1,
    column_temperature: float = 0.05,
) -> SelfClassifierTerms:
    """Self-Classifier loss of V views, at a cost linear in V.

    Args:
        scores: V >= 2 tensors [N, C], cosines of embeddings and class weights (this rank's rows); row i of each from
            the same sample.
        num_targets: The first views that are targets of all others; None: all.
        row_temperature: T_row, of the softmax over classes.
        column_temperature: T_col, of the softmax over samples.

    Returns:
        SelfClassifierTerms.

    Raises:
        InputError: Views that do not fit each other, a temperature that is not positive and finite, or ranks that
            disagree.

    Distributed:
        Both normalizations over samples run over the rows of all ranks, with gradient; shards may differ in size.

    Numerics:
        Everything in the log domain, in float32, float64 for float64.

    Example:
        >>> s = torch.zeros(16, 10)
        >>> round(float(self_classifier_loss([s, s]).total), 3)  # all alike: log 10
        2.303
    """
    check_views(numbered("scores", scores), scores)
    num_targets = check_targets(len(scores), num_targets)
    check_positive("row_temperature", row_temperature, fix="the paper's is 0.1")
    check_positive("column_temperature", column_temperature, fix="the paper's is 0.05")
    num_rows = global_count(
        scores[0],
        lambda: (
            f"self_classifier_loss, C={scores[0].shape[1]}, row_temperature={row_temperature}, "
            f"column_temperature={column_temperature}, num_views={len(scores)}, num_targets={num_targets}"
        ),
    )
    with torch.autocast(scores[0].device.type, enabled=False):
        s_VNC = [at_least_float32(s_NC) for s_NC in scores]
        log_p_VNC = torch.stack([_log_balanced(s_NC / row_temperature, num_rows) for s_NC in s_VNC])
        total = entropy = log_p_VNC.new_zeros(())
        for s_NC, others_NC in zip(s_VNC, sums_of_others(log_p_VNC, num_targets), strict=False):
            log_t_NC = _log_target(s_NC / column_temperature)
            t_NC = log_t_NC.exp()
            total = total - mean_rows((t_NC * others_NC).sum(dim=1), num_rows)
            # t log t is zero where t underflows: log t is finite there.
            entropy = entropy - mean_rows((t_NC * log_t_NC).detach().sum(dim=1), num_rows)
        total, entropy = total / (num_targets * (len(scores) - 1)), entropy / num_targets
    return SelfClassifierTerms(total, entropy, total.detach() - entropy)


def _log_target(logits_NC: Tensor) -> Tensor:
    """log of p(i | j) / sum_k p(i | k)."""
    return (logits_NC - logsumexp_rows(logits_NC)).log_softmax(dim=1)


def _log_balanced(logits_NC: Tensor, num_rows: int) -> Tensor:
    """log of (N/C) p(j | i) / sum_n p(j | n)."""
    log_p_NC = logits_NC.log_softmax(dim=1)
    return math.log(num_rows / logits_NC.shape[1]) + log_p_NC - logsumexp_rows(log_p_NC)
