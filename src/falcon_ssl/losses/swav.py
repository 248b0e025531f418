"""SwAV: predict the balanced cluster assignment of one view from another (Caron et al., 2020, arXiv 2006.09882).

p_i  = softmax_j(s_ij / T)                       s_ij = <u_i, w_j>, cosine of embedding and prototype
Q    = argmax_{Q balanced} <Q, S> + eps H(Q)     a few Sinkhorn steps, no gradient             (eq. 3-5)
loss = mean over ordered pairs of views, the first of them large, of  -(1/N) sum_ij q_ij log p'_ij
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from falcon_ssl.core.checks import check_at_least, check_positive
from falcon_ssl.core.distributed import all_reduce_sum
from falcon_ssl.core.errors import InputError
from falcon_ssl.core.numerics import at_least_float32
from falcon_ssl.losses.rows import (
    check_targets,
    check_views,
    global_count,
    logsumexp_rows,
    numbered,
    predict_assignments,
)


class SwAVTerms(NamedTuple):
    """The loss and what it is made of: 0-dim tensors in nats, equal on every rank; only ``total`` carries a gradient.

    Args:
        total: entropy + consistency; log C when predictions are uniform.
        entropy: mean_i H(q_i) of the assignments that are predicted.
        consistency: mean_i KL(q_i || p'_i); 0 when the prediction is perfect.
    """

    total: Tensor
    entropy: Tensor
    consistency: Tensor


def swav_loss(
    scores: Sequence[Tensor],
    *,
    queued_scores: Sequence[Tensor] | None = None,
    temperature: float = 0.1,
    sinkhorn_eps: float = 0.05,
    sinkhorn_steps: int = 3,
    num_assigned: int = 2,
) -> SwAVTerms:
    """SwAV loss of two or more views.

    Args:
        scores: Of every view, [N, C]: cosines of this rank's embeddings and the prototypes, large views first.
        queued_scores: For each assigned view, [M, C]: cosines of this rank's part of earlier embeddings, which help to
            balance the assignments of a small batch; None without a queue.
        temperature: T of the prediction.
        sinkhorn_eps: eps; the smaller, the harder the assignments.
        sinkhorn_steps: Steps of the Sinkhorn-Knopp algorithm.
        num_assigned: How many of the first views are assigned and predicted; small crops only predict.

    Returns:
        SwAVTerms.

    Raises:
        InputError: Views that do not fit each other, fewer than two, a queue for another number of views or of another
            width, an option out of range, or ranks that disagree.

    Distributed:
        Assignments are balanced over the rows (and queues) of all ranks; shards may differ in size.

    Numerics:
        Finite for scores of any size, see `balanced_logits`. float32, float64 for float64.

    Example:
        >>> s1, s2 = torch.randn(2, 32, 10)
        >>> bool(swav_loss([s1, s2]).total > 0)
        True
    """
    check_views(numbered("scores", scores), scores)
    check_targets(len(scores), num_assigned, option="num_assigned")
    if queued_scores is not None and len(queued_scores) != num_assigned:
        raise InputError(
            "the queue does not fit the views",
            received=f"{len(queued_scores)} queues",
            expected=f"num_assigned = {num_assigned}",
            fix="keep one queue for every assigned view",
        )
    for queue in queued_scores or ():
        if queue.dim() != 2 or queue.shape[1] != scores[0].shape[1]:
            raise InputError(
                "the queue has the wrong width",
                received=f"shape {tuple(queue.shape)}",
                expected=f"[M, {scores[0].shape[1]}], as wide as the scores",
                fix="score the queued embeddings with the same prototypes",
            )
    check_positive("temperature", temperature, fix="the paper's is 0.1")
    num_rows = global_count(
        scores[0],
        lambda: (
            f"swav_loss, {len(scores)} views, C={scores[0].shape[1]}, temperature={temperature}, "
            f"sinkhorn_eps={sinkhorn_eps}, sinkhorn_steps={sinkhorn_steps}, num_assigned={num_assigned}"
        ),
    )
    with torch.autocast(scores[0].device.type, enabled=False):
        s_VNC = [at_least_float32(view) for view in scores]
        log_p_VNC = [(s_NC / temperature).log_softmax(dim=1) for s_NC in s_VNC]
        logits_VNC = []
        for v in range(num_assigned):
            s_NC = s_VNC[v].detach()
            if queued_scores is not None:
                s_NC = torch.cat([at_least_float32(queued_scores[v].detach()), s_NC])
            balanced_NC = balanced_logits(s_NC, eps=sinkhorn_eps, steps=sinkhorn_steps)
            logits_VNC.append(balanced_NC[-len(scores[v]) :])
        total, entropy = predict_assignments(logits_VNC, log_p_VNC, num_rows)
    return SwAVTerms(total, entropy, total.detach() - entropy)


@torch.no_grad()
def sinkhorn(scores_NC: Tensor, *, eps: float = 0.05, steps: int = 3) -> Tensor:
    """Assignments near exp(scores / eps) that use every prototype equally, over the rows of all ranks.

    A step divides every column by its sum over all rows, then every row by its sum.

    Args:
        scores_NC: [N, C], this rank's rows.
        eps: Strength of the entropy.
        steps: At least one.

    Returns:
        q [N, C]: rows sum to 1; columns sum to N/C the better, the more steps.

    Raises:
        InputError: eps <= 0 or infinite, or no step.

    Example:
        >>> sinkhorn(torch.tensor([[9.0, 0.0], [9.0, 0.0]]))  # equal rows use all prototypes alike
        tensor([[0.5000, 0.5000],
                [0.5000, 0.5000]])
    """
    return balanced_logits(scores_NC, eps=eps, steps=steps).softmax(dim=1)


@torch.no_grad()
def balanced_logits(scores_NC: Tensor, *, eps: float, steps: int) -> Tensor:
    """Logits of `sinkhorn`: scores / eps + b, with a b_j for each column; softmax is the division of rows.

        b_j = -log sum_i exp(s_ij / eps)           the first step, in the log domain
        b_j <- b_j - log sum_i q_ij                each further one, q = softmax(s / eps + b)

    Only b is iterated, so nothing is lost in q_ij that rounds to 0. No sum is 0: columns that sum to 1 have an entry of
    at least 1/N, rows of them sum to at most C, so after the division of rows each column has an entry of 1/(N C).
    """
    check_positive("sinkhorn_eps", eps, fix="the paper's is 0.05")
    check_at_least("sinkhorn_steps", steps, 1, fix="the paper takes 3")
    x_NC = scores_NC / eps
    b_C = -logsumexp_rows(x_NC)
    # Filled again at every step: new memory costs a CPU as much as the sums.
    logits_NC, q_NC = torch.empty_like(x_NC), torch.empty_like(x_NC)
    for _ in range(steps - 1):
        torch.softmax(torch.add(x_NC, b_C, out=logits_NC), dim=1, out=q_NC)
        b_C = b_C - all_reduce_sum(q_NC.sum(dim=0)).log()
    return x_NC.add_(b_C)
