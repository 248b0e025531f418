"""What the streaming back ends have in common: everything that is a vector of N or of C, and no matrix of both."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from falcon_ssl.core.distributed import all_reduce_sum
from falcon_ssl.core.theory import LN2
from falcon_ssl.losses.falcon.objective import Objective
from falcon_ssl.losses.falcon.terms import LossTerms
from falcon_ssl.losses.rows import sums_of_others

LARGEST_LOGIT = {torch.float32: 30.0, torch.float64: 300.0}  # exp(+-2 L) / C is a normal number


class Saved(NamedTuple):
    """What the backward pass needs beside the embeddings, for V views of N rows of which K are targets.

    M marginals, of G targets each; S places a view, counted one by one in V and K, see objective.py.

    Args:
        lse_VN: log2 sum_j 2^s_ij.
        w_VN: Row weights, P_ij = w_i e_ij v_j.
        top_VC: v_j = 2^top_j, per view; None stands for v = 1.
        slope_MC: v_j a_j / M, a_j = dD/dm_j / (G N).
        r_KN: rho / M + b CE.
        b: beta / (N K (V - S)), what one pair of one sample weighs.
    """

    lse_VN: Tensor
    w_VN: Tensor
    top_VC: Tensor | None
    slope_MC: Tensor
    r_KN: Tensor
    b: float


class Marginals:
    """m_j and what follows from it, block by block."""

    def __init__(self, objective: Objective, like: Tensor) -> None:
        shape = (objective.num_marginals, len(objective.log_prior_C))
        self.objective = objective
        self.log_m_MC = like.new_empty(shape)
        self.slope_MC = like.new_empty(shape)
        self.total_M = like.new_zeros(shape[0])

    def add(self, sum_KB: Tensor, top_KB: Tensor | None, block: slice) -> Tensor:
        """Take in sum_i w_i e_ij over all ranks; return slopes v_j a_j [M, B], except for the factor of `finish`.

        ``top_KB`` is the same for the targets that share a marginal.
        """
        per_marginal = self.objective.per_marginal
        sum_MB = sum_KB if per_marginal == 1 else self.objective.by_marginal(sum_KB).sum(dim=1)
        log_m_MB = sum_MB.log() - math.log(per_marginal * self.objective.num_rows)
        if top_KB is not None:
            log_m_MB += top_KB[::per_marginal] * LN2
        self.log_m_MC[:, block] = log_m_MB
        for m in range(len(log_m_MB)):
            self.total_M[m] += self.objective.summands(log_m_MB[m], block).sum()
            # m_j dD/dm_j / sum_j = v_j a_j, because m_j = v_j sum_j / (G N).
            self.slope_MC[m, block] = self.objective.slopes(log_m_MB[m], block) / sum_MB[m]
        return self.slope_MC[:, block]


def finish(
    marginals: Marginals,
    *,
    lse_VN: Tensor,
    w_VN: Tensor,
    top_VC: Tensor | None,
    rho_KN: Tensor,
    own_KN: Tensor,
    cross_KN: Tensor,
) -> tuple[LossTerms, Tensor, Saved]:
    """Terms, log marginals [M, C] and what the backward pass needs, from sums over codes.

    Args:
        marginals: After all blocks.
        lse_VN: log2 of the row sums.
        w_VN: Row weights.
        top_VC: Column weights.
        rho_KN: sum_j e_ij v_j a_j, up to the factor.
        own_KN: sum_j e_ij v_j s_ij.
        cross_KN: sum_j e_ij v_j s'_ij, s' the sum of the other views' logits.
    """
    objective = marginals.objective
    num_targets = objective.num_targets
    w_KN = w_VN[:num_targets]
    lse_of_others_KN = torch.stack([*sums_of_others(lse_VN, num_targets, objective.num_places)])
    entropy_KN = LN2 * (lse_VN[:num_targets] - w_KN * own_KN)
    cross_entropy_KN = LN2 * (lse_of_others_KN - w_KN * cross_KN)
    sums_2 = all_reduce_sum(torch.stack([cross_entropy_KN.sum(), entropy_KN.sum()]))
    invariance = sums_2[0] / (objective.num_pairs * objective.num_rows)
    entropy = sums_2[1] / (num_targets * objective.num_rows)
    prior = objective.finish(marginals.total_M).mean()
    terms = LossTerms(
        total=objective.beta * invariance + prior,
        invariance=invariance,
        prior_matching=prior,
        entropy=entropy,
        consistency=invariance - entropy,
    )
    factor_M1 = objective.slope_factor(marginals.total_M)[:, None] / objective.num_marginals
    factor_K1 = factor_M1.repeat_interleave(objective.per_marginal, dim=0)
    b = objective.beta / (objective.num_pairs * objective.num_rows)
    saved = Saved(
        lse_VN=lse_VN,
        w_VN=w_VN,
        top_VC=top_VC,
        slope_MC=marginals.slope_MC.mul_(factor_M1),
        r_KN=factor_K1 * w_KN * rho_KN + b * cross_entropy_KN,
        b=b,
    )
    return terms, marginals.log_m_MC, saved


def is_bounded(dtype: torch.dtype, logit_scale: float) -> bool:
    """Whether |s| <= L |u| of rows no longer than 1 is so small that exponentials need no shift.

    L alone decides: reading the lengths of the rows would make every step wait for the device.
    """
    return logit_scale <= LARGEST_LOGIT.get(dtype, LARGEST_LOGIT[torch.float32])


def check_first_derivative(name: str) -> None:
    """Raise RuntimeError in a backward pass that is to be differentiated again, rather than return too little."""
    if torch.is_grad_enabled():
        raise RuntimeError(
            f"the {name} FALCON loss has first derivatives only: "
            "use a finite dictionary with backend='dense' where create_graph=True is needed"
        )
