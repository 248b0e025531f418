"""The FALCON loss by plain autograd on N x C tensors: the fastest way while they are small.

Same formulas as `falcon_reference`, with both views in one matrix product and what is only reported kept out of the
graph.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from falcon_ssl.dictionary import Dictionary
from falcon_ssl.distributed import all_reduce_sum, global_count
from falcon_ssl.losses.falcon_reference import log_marginal, match_prior
from falcon_ssl.losses.terms import LossTerms, PriorMatching


def falcon_loss_dense(
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
    """The loss with log-softmax; arguments as `falcon_loss_reference`.

    Memory:
        About ten tensors of N x C.
    """
    num_local = u1_NF.shape[0]
    num_rows = global_count(num_local, u1_NF.device)
    codes_CF = dictionary.block(0, dictionary.num_codes, device=u1_NF.device, dtype=u1_NF.dtype)
    u_NF = torch.cat([u1_NF, u2_NF]) * (logit_scale / math.sqrt(dictionary.width))
    log_p_VNC = log_softmax(u_NF @ codes_CF.T, dim=1).view(2, num_local, -1)
    if not symmetric:
        # The first view is compared with the second, and only the first one's marginal is matched.
        log_p_NC, log_other_NC = log_p_VNC
        log_p_VNC, log_other_VNC = log_p_NC[None], log_other_NC[None]
    else:
        log_other_VNC = log_p_VNC.flip(0)
    p_VNC = log_p_VNC.exp()
    weight = 1 / (len(p_VNC) * num_rows)
    invariance = -weight * all_reduce_sum((p_VNC * log_other_VNC).sum())
    with torch.no_grad():
        entropy = -weight * all_reduce_sum((p_VNC * log_p_VNC).sum())
    prior = torch.stack(
        [
            match_prior(
                log_marginal(log_p_NC, num_rows), log_prior_C, prior_matching=prior_matching
            )
            for log_p_NC in log_p_VNC
        ]
    ).mean()
    return LossTerms(
        total=beta * invariance + prior,
        invariance=invariance.detach(),
        prior_matching=prior.detach(),
        entropy=entropy,
        consistency=invariance.detach() - entropy,
    )
