"""BYOL: an online network predicts the embeddings of its own running average; nothing pushes samples apart."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from falcon_ssl.config import BYOLConfig
from falcon_ssl.losses.byol import byol_loss
from falcon_ssl.methods.base import Parts, StepOutput, check_two_views, represent
from falcon_ssl.methods.heads import Projected, mlp, unit_rows
from falcon_ssl.methods.teacher import Teacher


class BYOL(Projected):
    """Grill et al., 2020 (arXiv 2006.07733). As in the paper the online encoder is what is evaluated and exported.

    Example:
        >>> method = BYOL(Parts(torch.nn.Flatten(), 64, (1, 8, 8)), BYOLConfig(32, 16))
        >>> view1, view2 = torch.randn(2, 16, 1, 8, 8)
        >>> sorted(method([view1, view2]).terms)
        ['spread', 'total']
    """

    def __init__(self, parts: Parts, config: BYOLConfig) -> None:
        hidden, width = config.hidden_dim, config.embed_dim
        super().__init__(parts.encoder, mlp([parts.in_dim, hidden, width], last_bias=True))
        self.config = config
        self.predictor = mlp([width, hidden, width], last_bias=True)
        self.target = Teacher(self._followed())

    def forward(self, views: list[Tensor]) -> StepOutput:
        """Loss of two views."""
        check_two_views("byol", views)
        y_VNF = self.project(views)
        p1_NF, p2_NF = self.predictor(torch.cat(y_VNF)).chunk(2)
        with torch.no_grad():
            encoder, micro_batches = self.target["encoder"], self.micro_batches
            z_VND = represent(encoder, views, micro_batches=micro_batches)
            z1_NF, z2_NF = self.target["head"](z_VND).chunk(2)
        return StepOutput.of(byol_loss(p1_NF, p2_NF, z1_NF, z2_NF), unit_rows(y_VNF[0]))

    def after_step(self, step: int, num_steps: int) -> None:
        """The target follows the online network, more and more slowly."""
        momentum = self.config.target_momentum
        self.target.follow(self._followed(), momentum=momentum, step=step, num_steps=num_steps)

    def _followed(self) -> dict[str, nn.Module]:
        return {"encoder": self.encoder, "head": self.head}
