"""SimCLR: encoder, two-layer head, contrast of all samples of the batch."""

from __future__ import annotations

import math

from torch import Tensor

from falcon_ssl.config import SimCLRConfig
from falcon_ssl.core.monitor import StuckValue
from falcon_ssl.losses.simclr import simclr_loss
from falcon_ssl.methods.base import Parts, StepOutput, check_two_views
from falcon_ssl.methods.heads import Projected, mlp, unit_rows


class SimCLR(Projected):
    """Chen et al., 2020 (arXiv 2002.05709).

    Example:
        >>> method = SimCLR(Parts(torch.nn.Flatten(), 64, (1, 8, 8)), SimCLRConfig(32, 16))
        >>> view1, view2 = torch.randn(2, 16, 1, 8, 8)
        >>> sorted(method([view1, view2]).terms)
        ['alignment', 'total', 'uniformity']
    """

    def __init__(self, parts: Parts, config: SimCLRConfig) -> None:
        widths = [parts.in_dim, config.hidden_dim, config.embed_dim]
        super().__init__(parts.encoder, mlp(widths, last_bias=True))
        self.config = config

    def forward(self, views: list[Tensor]) -> StepOutput:
        """Loss of two views."""
        check_two_views("simclr", views)
        u1_NF, u2_NF = (unit_rows(y_NF) for y_NF in self.project(views))
        terms = simclr_loss(u1_NF, u2_NF, temperature=self.config.temperature)
        return StepOutput.of(terms, u1_NF)

    def stuck_values(self, batch_size: int) -> tuple[StuckValue, ...]:
        """log(2N - 1) when all embeddings are equal."""
        value = math.log(2 * batch_size - 1)
        return (StuckValue("total", value, "every sample gets the same embedding (log(2N - 1))"),)
