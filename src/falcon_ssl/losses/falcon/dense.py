"""The FALCON loss by plain autograd on N x C tensors: twice differentiable, and simple to change.

Same formulas as `falcon_reference`, with both views in one matrix product and what is only reported kept out of the
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


def falcon_loss_dense(
    u1_NF: Tensor, u2_NF: Tensor, dictionary: StreamedDictionary, objective: Objective
) -> tuple[LossTerms, Tensor]:
    """The loss with log-softmax; arguments and results as `falcon_loss_reference`.

    Memory:
        About ten tensors of N x C.
    """
    num_local = u1_NF.shape[0]
    u_NF = at_least_float32(torch.cat([u1_NF, u2_NF]))
    u_NF = u_NF * (objective.logit_scale / math.sqrt(dictionary.width))
    codes_CF = dictionary.block(0, dictionary.num_codes, device=u_NF.device, dtype=u_NF.dtype)
    log_p_VNC = log_softmax(u_NF @ codes_CF.T, dim=1).view(2, num_local, -1)
    if not objective.symmetric:
        # The first view is compared with the second, and only the first one's marginal is matched.
        log_p_NC, log_other_NC = log_p_VNC
        log_p_VNC, log_other_VNC = log_p_NC[None], log_other_NC[None]
    else:
        log_other_VNC = log_p_VNC.flip(0)
    p_VNC = log_p_VNC.exp()
    weight = 1 / (len(p_VNC) * objective.num_rows)
    invariance = -weight * all_reduce_sum((p_VNC * log_other_VNC).sum())
    with torch.no_grad():
        entropy = -weight * all_reduce_sum((p_VNC * log_p_VNC).sum())
    log_m_VC = torch.stack([log_marginal(log_p_NC, objective.num_rows) for log_p_NC in log_p_VNC])
    prior = torch.stack([objective.match_prior(log_m_C) for log_m_C in log_m_VC]).mean()
    terms = LossTerms(
        total=objective.beta * invariance + prior,
        invariance=invariance.detach(),
        prior_matching=prior.detach(),
        entropy=entropy,
        consistency=invariance.detach() - entropy,
    )
    return terms, log_m_VC.detach()
