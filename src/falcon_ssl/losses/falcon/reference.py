"""The FALCON loss, line by line as its formulas read. Never optimized: every fast path is judged against it.

s_ij = L / sqrt(F) <u_i, w_j>                          logits
p_ij = softmax_j(s_ij)                                 assignment, kept as log p = s - logsumexp(s)
m_j  = (1/N) sum_i p_ij                                marginal over the global batch
I    = -(1/N) sum_ij p_ij log p'_ij                    invariance
D    = divergence between m and the prior q            see losses/objective.py
loss = beta I + D
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from falcon_ssl.core.distributed import all_reduce_max, all_reduce_sum
from falcon_ssl.core.numerics import at_least_float32
from falcon_ssl.dictionary.base import StreamedDictionary
from falcon_ssl.losses.falcon.objective import Objective
from falcon_ssl.losses.falcon.terms import LossTerms


def falcon_loss_reference(
    u1_NF: Tensor, u2_NF: Tensor, dictionary: StreamedDictionary, objective: Objective
) -> tuple[LossTerms, Tensor]:
    """FALCON.md section 3, with all N x C tensors written out.

    Args:
        u1_NF: Embeddings of the first view, this rank's rows.
        u2_NF: Embeddings of the second view.
        dictionary: C codes of width F.
        objective: The options.

    Returns:
        The terms, and the log marginal of the batch [V, C], detached, V the number of orders of the views.
    """
    u1_NF, u2_NF = at_least_float32(u1_NF), at_least_float32(u2_NF)
    codes_CF = dictionary.block(0, dictionary.num_codes, device=u1_NF.device, dtype=u1_NF.dtype)
    scale = objective.logit_scale / math.sqrt(dictionary.width)
    log_p1_NC = log_assignment(scale * u1_NF @ codes_CF.T)
    log_p2_NC = log_assignment(scale * u2_NF @ codes_CF.T)

    orders = [(log_p1_NC, log_p2_NC)]
    if objective.symmetric:
        orders.append((log_p2_NC, log_p1_NC))
    invariance = prior = entropy = u1_NF.new_zeros(())
    log_marginals = []
    for log_p_NC, log_q_NC in orders:
        p_NC = log_p_NC.exp()
        invariance = invariance - all_reduce_sum((p_NC * log_q_NC).sum()) / objective.num_rows
        entropy = entropy - all_reduce_sum((p_NC * log_p_NC).sum()) / objective.num_rows
        log_m_C = log_marginal(log_p_NC, objective.num_rows)
        log_marginals.append(log_m_C.detach())
        prior = prior + objective.match_prior(log_m_C)
    invariance, prior, entropy = (x / len(orders) for x in (invariance, prior, entropy))
    terms = LossTerms(
        total=objective.beta * invariance + prior,
        invariance=invariance.detach(),
        prior_matching=prior.detach(),
        entropy=entropy.detach(),
        consistency=(invariance - entropy).detach(),
    )
    return terms, torch.stack(log_marginals)


def log_assignment(s_NC: Tensor) -> Tensor:
    """log p = s - logsumexp_j(s), row by row."""
    return s_NC - s_NC.logsumexp(dim=1, keepdim=True)


def log_marginal(log_p_NC: Tensor, num_rows: int) -> Tensor:
    """log m_j = logsumexp_i(log p_ij) - log N over the rows of all ranks, with gradient."""
    top_C = all_reduce_max(log_p_NC.detach().amax(dim=0))
    sum_C = all_reduce_sum((log_p_NC - top_C).exp().sum(dim=0))
    return sum_C.log() + top_C - math.log(num_rows)
