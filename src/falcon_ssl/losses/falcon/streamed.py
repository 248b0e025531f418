"""What the streaming back ends have in common: everything that is a vector of N or of C, and no matrix of both."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from falcon_ssl.core.distributed import all_reduce_sum
from falcon_ssl.core.numerics import at_least_float32
from falcon_ssl.core.theory import LN2
from falcon_ssl.losses.falcon.objective import Objective
from falcon_ssl.losses.falcon.terms import LossTerms

LARGEST_LOGIT = {torch.float32: 30.0, torch.float64: 300.0}  # exp(+-2 L) / C is a normal number


class Saved(NamedTuple):
    """What the backward pass needs beside the embeddings.

    Args:
        lse_M: log2 sum_j 2^s_ij of both views' rows, M = 2 N.
        w_M: Row weights, P_ij = w_i e_ij v_j.
        top_VC: v_j = 2^top_j, per view; None stands for v = 1.
        slope_VC: v_j a_j, a_j = dD/dm_j / N.
        r_M: rho + b CE.
        order_weights: Weight of either order of the views, (1/2, 1/2) or (1, 0).
    """

    lse_M: Tensor
    w_M: Tensor
    top_VC: Tensor | None
    slope_VC: Tensor
    r_M: Tensor
    order_weights: tuple[float, float]


class Marginals:
    """m_j of both views and what follows from it, block by block."""

    def __init__(self, objective: Objective, like: Tensor) -> None:
        num_codes = len(objective.log_prior_C)
        self.objective = objective
        self.log_m_VC = like.new_empty(2, num_codes)
        self.slope_VC = like.new_empty(2, num_codes)
        self.total_V = like.new_zeros(2)

    def add(self, sum_VK: Tensor, top_VK: Tensor | None, block: slice) -> Tensor:
        """Take in sum_i w_i e_ij over all ranks; return slopes v_j a_j [V, K], except for the factor of `finish`."""
        log_m_VK = sum_VK.log() - math.log(self.objective.num_rows)
        if top_VK is not None:
            log_m_VK += top_VK * LN2
        self.log_m_VC[:, block] = log_m_VK
        for v in (0, 1):
            self.total_V[v] += self.objective.summands(log_m_VK[v], block).sum()
            # m_j dD/dm_j / sum_j = v_j a_j, because m_j = v_j sum_j / N.
            self.slope_VC[v, block] = self.objective.slopes(log_m_VK[v], block) / sum_VK[v]
        return self.slope_VC[:, block]


def finish(
    marginals: Marginals,
    *,
    lse_VN: Tensor,
    w_VN: Tensor,
    top_VC: Tensor | None,
    rho_VN: Tensor,
    own_VN: Tensor,
    cross_VN: Tensor,
) -> tuple[LossTerms, Tensor, Saved]:
    """Terms, log marginals [V, C] and what the backward pass needs, from sums over codes.

    Args:
        marginals: After all blocks.
        lse_VN: log2 of the row sums.
        w_VN: Row weights.
        top_VC: Column weights.
        rho_VN: sum_j e_ij v_j a_j, up to the factor.
        own_VN: sum_j e_ij v_j s_ij.
        cross_VN: sum_j e_ij v_j s'_ij, s' the other view's logit.
    """
    objective = marginals.objective
    entropy_VN = LN2 * (lse_VN - w_VN * own_VN)
    cross_entropy_VN = LN2 * (lse_VN.flip(0) - w_VN * cross_VN)
    factor_V1 = objective.slope_factor(marginals.total_V)[:, None]
    r_VN = factor_V1 * w_VN * rho_VN + objective.beta / objective.num_rows * cross_entropy_VN

    order_weights = (0.5, 0.5) if objective.symmetric else (1.0, 0.0)
    weight_V = lse_VN.new_tensor(order_weights)
    sums_V2 = torch.stack([cross_entropy_VN.sum(dim=1), entropy_VN.sum(dim=1)], dim=1)
    invariance, entropy = weight_V @ all_reduce_sum(sums_V2) / objective.num_rows
    prior = weight_V @ objective.finish(marginals.total_V)
    terms = LossTerms(
        total=objective.beta * invariance + prior,
        invariance=invariance,
        prior_matching=prior,
        entropy=entropy,
        consistency=invariance - entropy,
    )
    log_m_VC = marginals.log_m_VC if objective.symmetric else marginals.log_m_VC[:1]
    slope_VC = marginals.slope_VC.mul_(factor_V1)
    saved = Saved(lse_VN.flatten(), w_VN.flatten(), top_VC, slope_VC, r_VN.flatten(), order_weights)
    return terms, log_m_VC, saved


def is_bounded(u_MF: Tensor, logit_scale: float) -> bool:
    """Whether |s| <= L |u| of rows no longer than 1 is so small that exponentials need no shift.

    L alone decides: reading the lengths of the rows would make every step wait for the device.
    """
    return logit_scale <= LARGEST_LOGIT[at_least_float32(u_MF[:0]).dtype]


def check_first_derivative(name: str) -> None:
    """Raise RuntimeError in a backward pass that is to be differentiated again, rather than return too little."""
    if torch.is_grad_enabled():
        raise RuntimeError(
            f"the {name} FALCON loss has first derivatives only: "
            "use a finite dictionary with backend='dense' where create_graph=True is needed"
        )
