"""Barlow Twins: encoder, three-layer head, cross-correlation."""

from __future__ import annotations

from torch import Tensor

from falcon_ssl.config import BarlowTwinsConfig
from falcon_ssl.core.monitor import StuckValue
from falcon_ssl.losses.barlow_twins import barlow_twins_loss
from falcon_ssl.methods.base import Parts, StepOutput, check_two_views
from falcon_ssl.methods.heads import Projected, mlp, unit_rows


class BarlowTwins(Projected):
    """Zbontar et al., 2021 (arXiv 2103.03230).

    Example:
        >>> method = BarlowTwins(Parts(torch.nn.Flatten(), 64, (1, 8, 8)), BarlowTwinsConfig(32, 16))
        >>> view1, view2 = torch.randn(2, 16, 1, 8, 8)
        >>> sorted(method([view1, view2]).terms)
        ['invariance', 'redundancy', 'total']
    """

    def __init__(self, parts: Parts, config: BarlowTwinsConfig) -> None:
        widths = [parts.in_dim, config.hidden_dim, config.hidden_dim, config.embed_dim]
        super().__init__(parts.encoder, mlp(widths))
        self.config = config

    def forward(self, views: list[Tensor]) -> StepOutput:
        """Loss of two views."""
        check_two_views("barlow_twins", views)
        y1_NF, y2_NF = self.project(views)
        terms = barlow_twins_loss(y1_NF, y2_NF, redundancy_weight=self.config.redundancy_weight)
        return StepOutput.of(terms, unit_rows(y1_NF))

    def stuck_values(self, batch_size: int) -> tuple[StuckValue, ...]:
        """sum_i (1 - c_ii)^2 = F when every c_ii is 0."""
        words = "the features of the two views are uncorrelated"
        return (StuckValue("invariance", float(self.config.embed_dim), words),)
