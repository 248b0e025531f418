"""What is minimized, apart from how: the options of the loss, and the divergence between marginal and prior.

Df = -sum_j q_j log m_j                  forward
Dr =  sum_j m_j log(m_j / q_j)           reverse, KL(m || q)
D2 =  log sum_j m_j^2 / q_j              renyi2, never below Dr

Every target view has a marginal, m the mean over its N S rows; or all K have one together. A view of S places is handed
to the back ends as S views in succession that do not meet each other, so that V and K count places there.

With a running average, m is replaced by m' = h + weight * m: h is history, and the gradient flows through m alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from falcon_ssl.core.theory import PriorMatching


@dataclass(frozen=True)
class Objective:
    """Checked options, as every back end receives them.

    Args:
        logit_scale: L.
        beta: Weight of the invariance.
        prior_matching: Which divergence.
        num_views: V, places counted one by one.
        num_targets: K, places counted one by one; the first K views are the targets of all others.
        num_rows: N over all ranks.
        log_prior_C: log q, in the dtype of the computation.
        log_history_C: log h, the weighted marginals of earlier batches; None without a running average.
        log_weight: log of the current batch's weight in the marginal, 0-dim; None without a running average.
        num_places: S; every S views in succession are places of one view, which do not meet each other.
        pooled: One marginal of all targets, instead of one for the places of each target view.
    """

    logit_scale: float
    beta: float
    prior_matching: PriorMatching
    num_views: int
    num_targets: int
    num_rows: int
    log_prior_C: Tensor
    log_history_C: Tensor | None = None
    log_weight: Tensor | None = None
    num_places: int = 1
    pooled: bool = False

    @property
    def num_pairs(self) -> int:
        """Ordered pairs (target, other view): K (V - S)."""
        return self.num_targets * (self.num_views - self.num_places)

    @property
    def per_marginal(self) -> int:
        """G: how many targets in succession share a marginal."""
        return self.num_targets if self.pooled else self.num_places

    @property
    def num_marginals(self) -> int:
        """M = K / G."""
        return self.num_targets // self.per_marginal

    def by_marginal(self, x_KN: Tensor) -> Tensor:
        """What is there for every target, [K, ...], as [M, G, ...]."""
        return x_KN.view(self.num_marginals, self.per_marginal, *x_KN.shape[1:])

    def match_prior(self, log_m_C: Tensor) -> Tensor:
        """The divergence of the whole marginal, 0-dim."""
        return self.finish(self.summands(log_m_C, slice(None)).sum())

    def summands(self, log_m_K: Tensor, codes: slice) -> Tensor:
        """One term a code; `finish` of their sum over all codes is the divergence.

        Args:
            log_m_K: Log marginal of the batch over some codes.
            codes: Which codes these are.
        """
        log_q_K = self.log_prior_C[codes]
        log_m_K = self._with_history(log_m_K, codes)
        if self.prior_matching == "forward":
            return -(log_q_K.exp() * log_m_K)
        if self.prior_matching == "reverse":
            return log_m_K.exp() * (log_m_K - log_q_K)
        return (2 * log_m_K - log_q_K).exp()

    def finish(self, total: Tensor) -> Tensor:
        """From the sum of all summands to the divergence."""
        return total.log() if self.prior_matching == "renyi2" else total

    def slopes(self, log_m_K: Tensor, codes: slice) -> Tensor:
        """m_j times the derivative of the summands with respect to m_j, up to a constant times m_j.

        The softmax over codes annihilates that constant. Times `slope_factor` it is the divergence's derivative.
        """
        log_q_K = self.log_prior_C[codes]
        log_all_K = self._with_history(log_m_K, codes)
        if self.log_weight is not None:
            log_m_K = log_m_K + self.log_weight
        if self.prior_matching == "forward":
            return -(log_q_K + log_m_K - log_all_K).exp()
        if self.prior_matching == "reverse":
            return log_m_K.exp() * (log_all_K - log_q_K)
        return 2 * (log_m_K + log_all_K - log_q_K).exp()

    def slope_factor(self, total: Tensor) -> Tensor:
        """Derivative of `finish` at the sum of all summands."""
        return 1 / total if self.prior_matching == "renyi2" else torch.ones_like(total)

    def _with_history(self, log_m_K: Tensor, codes: slice) -> Tensor:
        if self.log_history_C is None or self.log_weight is None:
            return log_m_K
        return torch.logaddexp(self.log_history_C[codes], log_m_K + self.log_weight)
