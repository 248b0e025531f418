"""Barlow Twins: encoder, three-layer head, cross-correlation."""

from __future__ import annotations

from torch import Tensor, nn

from falcon_ssl.config.methods import BarlowTwinsConfig
from falcon_ssl.core.monitor import StuckValue
from falcon_ssl.losses.barlow_twins import barlow_twins_loss
from falcon_ssl.methods.base import Parts, StepOutput, check_two_views
from falcon_ssl.methods.heads import Projected, mlp, unit_rows


class BarlowTwins(Projected):
    """Zbontar et al., 2021 (arXiv 2103.03230).

    Args:
        encoder: Images [N, C, H, W] to z_ND.
        head: z_ND to y_NF.
        redundancy_weight: lambda.

    Example:
        >>> method = BarlowTwins(nn.Flatten(), mlp([64, 32, 16]), redundancy_weight=5e-3)
        >>> view1, view2 = torch.randn(2, 16, 1, 8, 8)
        >>> sorted(method([view1, view2]).terms)
        ['invariance', 'redundancy', 'total']
    """

    def __init__(self, encoder: nn.Module, head: nn.Module, *, redundancy_weight: float) -> None:
        super().__init__(encoder, head)
        self.redundancy_weight = redundancy_weight

    @classmethod
    def from_config(cls, parts: Parts, config: BarlowTwinsConfig) -> BarlowTwins:
        """With a freshly initialised head."""
        widths = [parts.in_dim, config.hidden_dim, config.hidden_dim, config.embed_dim]
        return cls(parts.encoder, mlp(widths), redundancy_weight=config.redundancy_weight)

    def forward(self, views: list[Tensor]) -> StepOutput:
        """Loss of two views."""
        check_two_views("barlow_twins", views)
        y1_NF, y2_NF = self.project(views)
        terms = barlow_twins_loss(y1_NF, y2_NF, redundancy_weight=self.redundancy_weight)
        return StepOutput.of(terms, unit_rows(y1_NF))

    def stuck_values(self, batch_size: int) -> tuple[StuckValue, ...]:
        """sum_i (1 - c_ii)^2 = F when every c_ii is 0."""
        width = float(self.head[-1].out_features)  # type: ignore[index]
        words = "no feature of one view tells anything about the other view"
        return (StuckValue("invariance", width, words),)
