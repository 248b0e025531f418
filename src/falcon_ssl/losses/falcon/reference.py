"""The FALCON loss, line by line as its formulas read. Never optimized: every fast path is tested against it.

s_vij = L / sqrt(F) <u_vi, w_j>                        logits of view v
p_vij = softmax_j(s_vij)                               assignment, kept as log p = s - logsumexp(s)
m_oj  = (1/N) sum_i p_oij                              marginal of a target over the global batch
I     = mean over (o, v) -(1/N) sum_ij p_oij log p_vij invariance; o a target, v any other view
D     = mean over o of the divergence of m_o and q     see objective.py
loss  = beta I + D

Places of a view are views that do not meet each other; targets that share a marginal share the sum over i.
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
    u_VNF: Tensor, dictionary: StreamedDictionary, objective: Objective
) -> tuple[LossTerms, Tensor]:
    """All N x C tensors of all pairs written out.

    Args:
        u_VNF: Embeddings of V views, this rank's rows.
        dictionary: C codes of width F.
        objective: The options.

    Returns:
        The terms, and the log marginals of the batch [M, C], one for each of the targets or for all, detached.
    """
    u_VNF = at_least_float32(u_VNF)
    codes_CF = dictionary.block(0, dictionary.num_codes, device=u_VNF.device, dtype=u_VNF.dtype)
    scale = objective.logit_scale / math.sqrt(dictionary.width)
    log_p_VNC = [log_assignment(scale * u_NF @ codes_CF.T) for u_NF in u_VNF]

    invariance = prior = entropy = u_VNF.new_zeros(())
    log_marginals = []
    for o in range(objective.num_targets):
        p_NC = log_p_VNC[o].exp()
        for v, log_q_NC in enumerate(log_p_VNC):
            if v // objective.num_places != o // objective.num_places:
                invariance = invariance - all_reduce_sum((p_NC * log_q_NC).sum())
        entropy = entropy - all_reduce_sum((p_NC * log_p_VNC[o]).sum())
    for log_p_GNC in objective.by_marginal(torch.stack(log_p_VNC[: objective.num_targets])):
        log_m_C = log_marginal(log_p_GNC, objective.num_rows)
        log_marginals.append(log_m_C.detach())
        prior = prior + objective.match_prior(log_m_C)
    invariance = invariance / (objective.num_pairs * objective.num_rows)
    entropy = entropy / (objective.num_targets * objective.num_rows)
    prior = prior / objective.num_marginals
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


def log_marginal(log_p_GNC: Tensor, num_rows: int) -> Tensor:
    """log m_j = logsumexp_i(log p_ij) - log(G N) over the rows of G targets and of all ranks, with gradient."""
    top_C = all_reduce_max(log_p_GNC.detach().amax(dim=(0, 1)))
    sum_C = all_reduce_sum((log_p_GNC - top_C).exp().sum(dim=(0, 1)))
    return sum_C.log() + top_C - math.log(len(log_p_GNC) * num_rows)
