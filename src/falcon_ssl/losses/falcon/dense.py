"""The FALCON loss by plain autograd on N x C tensors: twice differentiable, and simple to change.

Same formulas as reference.py, with all views in one matrix product and what is only reported kept out of the
graph.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from falcon_ssl.core.distributed import all_reduce_sum
from falcon_ssl.core.numerics import at_least_float32
from falcon_ssl.dictionary.base import StreamedDictionary
from falcon_ssl.losses.falcon.objective import Objective
from falcon_ssl.losses.falcon.reference import log_marginal
from falcon_ssl.losses.falcon.terms import LossTerms
from falcon_ssl.losses.rows import sums_of_others


def falcon_loss_dense(
    u_VNF: Tensor, dictionary: StreamedDictionary, objective: Objective
) -> tuple[LossTerms, Tensor]:
    """The loss with log-softmax; arguments and results as `falcon_loss_reference`.

    Memory:
        About five tensors of N x C a view.
    """
    num_views, num_local, _ = u_VNF.shape
    u_MF = at_least_float32(u_VNF).flatten(0, 1)
    u_MF = u_MF * (objective.logit_scale / math.sqrt(dictionary.width))
    codes_CF = dictionary.block(0, dictionary.num_codes, device=u_MF.device, dtype=u_MF.dtype)
    log_p_VNC = log_softmax(u_MF @ codes_CF.T, dim=1).view(num_views, num_local, -1)
    # Cross-entropy is linear in log p: what a target pays to all others is one product with their sum.
    log_p_KNC = log_p_VNC[: objective.num_targets]
    others = sums_of_others(log_p_VNC, objective.num_targets, objective.num_places)
    others_KNC = torch.stack([*others])
    p_KNC = log_p_KNC.exp()
    invariance = -all_reduce_sum((p_KNC * others_KNC).sum()) / (
        objective.num_pairs * objective.num_rows
    )
    with torch.no_grad():
        entropy = -all_reduce_sum((p_KNC * log_p_KNC).sum()) / (
            objective.num_targets * objective.num_rows
        )
    log_m_MC = torch.stack(
        [log_marginal(x_GNC, objective.num_rows) for x_GNC in objective.by_marginal(log_p_KNC)]
    )
    prior = torch.stack([objective.match_prior(log_m_C) for log_m_C in log_m_MC]).mean()
    terms = LossTerms(
        total=objective.beta * invariance + prior,
        invariance=invariance.detach(),
        prior_matching=prior.detach(),
        entropy=entropy,
        consistency=invariance.detach() - entropy,
    )
    return terms, log_m_MC.detach()
