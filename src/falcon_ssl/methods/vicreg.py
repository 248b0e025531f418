"""VICReg: encoder, three-layer head, variance, invariance and covariance."""

from __future__ import annotations

import math

from torch import Tensor

from falcon_ssl.config import VICRegConfig
from falcon_ssl.core.monitor import StuckValue
from falcon_ssl.losses.vicreg import EPS, TARGET_STD, vicreg_loss
from falcon_ssl.methods.base import Parts, StepOutput, check_two_views
from falcon_ssl.methods.heads import Projected, mlp, unit_rows


class VICReg(Projected):
    """Bardes et al., 2022 (arXiv 2105.04906).

    Example:
        >>> method = VICReg(Parts(torch.nn.Flatten(), 64, (1, 8, 8)), VICRegConfig(32, 16))
        >>> view1, view2 = torch.randn(2, 16, 1, 8, 8)
        >>> sorted(method([view1, view2]).terms)
        ['covariance', 'invariance', 'total', 'variance']
    """

    def __init__(self, parts: Parts, config: VICRegConfig) -> None:
        widths = [parts.in_dim, config.hidden_dim, config.hidden_dim, config.embed_dim]
        super().__init__(parts.encoder, mlp(widths))
        self.config = config

    def forward(self, views: list[Tensor]) -> StepOutput:
        """Loss of two views."""
        check_two_views("vicreg", views)
        y1_NF, y2_NF = self.project(views)
        terms = vicreg_loss(
            y1_NF,
            y2_NF,
            invariance_weight=self.config.invariance_weight,
            variance_weight=self.config.variance_weight,
            covariance_weight=self.config.covariance_weight,
        )
        return StepOutput.of(terms, unit_rows(y1_NF))

    def stuck_values(self, batch_size: int) -> tuple[StuckValue, ...]:
        """v(Z) + v(Z') = 2 (gamma - sqrt(eps)) when no feature varies."""
        value = 2 * (TARGET_STD - math.sqrt(EPS))
        return (StuckValue("variance", value, "every sample gets the same embedding"),)
