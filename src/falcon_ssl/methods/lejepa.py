"""LeJEPA: encoder, three-layer head, prediction of the mean view, isotropic Gaussian embeddings."""

from __future__ import annotations

from torch import Tensor

from falcon_ssl.config import LeJEPAConfig
from falcon_ssl.core.monitor import StuckValue
from falcon_ssl.losses.lejepa import collapsed_sigreg, lejepa_loss, random_directions
from falcon_ssl.methods.base import Parts, StepOutput
from falcon_ssl.methods.heads import Projected, mlp, unit_rows

NUM_LARGE = 2


class LeJEPA(Projected):
    """Balestriero and LeCun, 2025 (arXiv 2511.08544); takes small views after the two large ones.

    The directions of a step are a function of its number, which `before_step` receives.

    Example:
        >>> method = LeJEPA(Parts(torch.nn.Flatten(), 64, (1, 8, 8)), LeJEPAConfig(32, 16))
        >>> view1, view2 = torch.randn(2, 16, 1, 8, 8)
        >>> sorted(method([view1, view2]).terms)
        ['prediction', 'sigreg', 'total']
    """

    def __init__(self, parts: Parts, config: LeJEPAConfig) -> None:
        widths = [parts.in_dim, config.hidden_dim, config.hidden_dim, config.embed_dim]
        super().__init__(parts.encoder, mlp(widths, last_bias=True))
        self.config = config
        self.step = 0

    def forward(self, views: list[Tensor]) -> StepOutput:
        """Loss of two large views and any number of small ones."""
        y_VNF = self.project(views)
        directions = random_directions(
            self.config.num_directions, self.config.embed_dim, seed=self.step
        )
        terms = lejepa_loss(
            y_VNF,
            directions,
            regularization=self.config.regularization,
            num_large=NUM_LARGE,
            limit=self.config.integration_limit,
            num_points=self.config.num_points,
        )
        return StepOutput.of(terms, unit_rows(y_VNF[0]))

    def before_step(self, step: int, num_steps: int) -> None:
        """New directions."""
        self.step = step

    def stuck_values(self, batch_size: int) -> tuple[StuckValue, ...]:
        """The statistic of samples that are all zero."""
        words = "every sample gets the same embedding"
        value = batch_size * collapsed_sigreg(self.config.integration_limit, self.config.num_points)
        return (StuckValue("sigreg", value, words),)
