"""The FALCON loss, line by line as its formulas read. Never optimised: every fast path is judged against it.

s_ij = L / sqrt(F) <u_i, w_j>                          logits
p_ij = softmax_j(s_ij)                                 assignment, kept as log p = s - logsumexp(s)
m_j  = (1/N) sum_i p_ij                                marginal over the global batch
I    = -(1/N) sum_ij p_ij log p'_ij                    invariance
Df   = -sum_j q_j log m_j                              prior matching, forward
Dr   =  sum_j m_j log(m_j / q_j)                       prior matching, reverse
loss = beta I + D
"""

from __future__ import annotations

import math

from torch import Tensor

from falcon_ssl.dictionary import Dictionary
from falcon_ssl.distributed import all_reduce_max, all_reduce_sum, global_count
from falcon_ssl.losses.terms import LossTerms, PriorMatching


def falcon_loss_reference(
    u1_NF: Tensor,
    u2_NF: Tensor,
    dictionary: Dictionary,
    *,
    logit_scale: float,
    beta: float,
    prior_matching: PriorMatching,
    log_prior_C: Tensor,
    symmetric: bool,
) -> LossTerms:
    """FALCON.md section 3, with all N x C tensors written out.

    Args:
        u1_NF: Embeddings of the first view, this rank's rows.
        u2_NF: Embeddings of the second view.
        dictionary: C codes of width F.
        logit_scale: L.
        beta: Weight of the invariance.
        prior_matching: "forward" or "reverse".
        log_prior_C: log q, in the dtype of the computation.
        symmetric: Average both orders of the views.
    """
    codes_CF = dictionary.block(0, dictionary.num_codes, device=u1_NF.device, dtype=u1_NF.dtype)
    scale = logit_scale / math.sqrt(dictionary.width)
    log_p1_NC = log_assignment(scale * u1_NF @ codes_CF.T)
    log_p2_NC = log_assignment(scale * u2_NF @ codes_CF.T)
    num_rows = global_count(u1_NF.shape[0], u1_NF.device)

    orders = [(log_p1_NC, log_p2_NC)]
    if symmetric:
        orders.append((log_p2_NC, log_p1_NC))
    invariance = prior = entropy = u1_NF.new_zeros(())
    for log_p_NC, log_q_NC in orders:
        p_NC = log_p_NC.exp()
        invariance = invariance - all_reduce_sum((p_NC * log_q_NC).sum()) / num_rows
        entropy = entropy - all_reduce_sum((p_NC * log_p_NC).sum()) / num_rows
        prior = prior + match_prior(
            log_marginal(log_p_NC, num_rows), log_prior_C, prior_matching=prior_matching
        )
    invariance, prior, entropy = (x / len(orders) for x in (invariance, prior, entropy))
    return LossTerms(
        total=beta * invariance + prior,
        invariance=invariance.detach(),
        prior_matching=prior.detach(),
        entropy=entropy.detach(),
        consistency=(invariance - entropy).detach(),
    )


def log_assignment(s_NC: Tensor) -> Tensor:
    """log p = s - logsumexp_j(s), row by row."""
    return s_NC - s_NC.logsumexp(dim=1, keepdim=True)


def log_marginal(log_p_NC: Tensor, num_rows: int) -> Tensor:
    """log m_j = logsumexp_i(log p_ij) - log N over the rows of all ranks, with gradient."""
    top_C = all_reduce_max(log_p_NC.detach().amax(dim=0))
    sum_C = all_reduce_sum((log_p_NC - top_C).exp().sum(dim=0))
    return sum_C.log() + top_C - math.log(num_rows)


def match_prior(log_m_C: Tensor, log_q_C: Tensor, *, prior_matching: PriorMatching) -> Tensor:
    """Df = -sum_j q_j log m_j (forward) or Dr = sum_j m_j (log m_j - log q_j) (reverse)."""
    if prior_matching == "forward":
        return -(log_q_C.exp() * log_m_C).sum()
    return (log_m_C.exp() * (log_m_C - log_q_C)).sum()
