"""Self-Classifier: encoder, two-layer head, one or more classifiers under a uniform prior."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from falcon_ssl.config.methods import SelfClassifierConfig
from falcon_ssl.core.monitor import StuckValue
from falcon_ssl.dictionary.prototypes import PrototypeDictionary
from falcon_ssl.losses.self_classifier import SelfClassifierTerms, self_classifier_loss
from falcon_ssl.methods.base import Parts, StepOutput, check_two_views
from falcon_ssl.methods.heads import Projected, Prototypes, mlp, unit_rows


class SelfClassifier(Projected):
    """Amrani et al., 2022 (arXiv 2103.10994). The first classifier gives the codes of an image.

    Args:
        encoder: Images [N, C, H, W] to z_ND.
        head: z_ND to y_NF.
        classifiers: u_NF to scores, one or more; the loss is their mean.
        row_temperature: Of the softmax over classes.
        column_temperature: Of the softmax over samples.

    Example:
        >>> config = SelfClassifierConfig(32, 16, num_prototypes=(10, 20))
        >>> method = SelfClassifier.from_config(Parts(nn.Flatten(), 64, (1, 8, 8)), config)
        >>> view1, view2 = torch.randn(2, 16, 1, 8, 8)
        >>> sorted(method([view1, view2]).terms)
        ['consistency', 'entropy', 'total']
    """

    few_codes_hint = "are its two temperatures right?"

    def __init__(
        self,
        encoder: nn.Module,
        head: nn.Module,
        classifiers: Sequence[Prototypes],
        *,
        row_temperature: float,
        column_temperature: float,
    ) -> None:
        super().__init__(encoder, head)
        self.classifiers = nn.ModuleList(classifiers)
        self.dictionary = PrototypeDictionary(classifiers[0].weight)
        self.log_classes = sum(math.log(len(c.weight)) for c in classifiers) / len(classifiers)
        self.row_temperature = row_temperature
        self.column_temperature = column_temperature

    @classmethod
    def from_config(cls, parts: Parts, config: SelfClassifierConfig) -> SelfClassifier:
        """With freshly initialised head and classifiers."""
        return cls(
            parts.encoder,
            mlp([parts.in_dim, config.hidden_dim, config.embed_dim], last_bias=True),
            [Prototypes(classes, config.embed_dim) for classes in config.num_prototypes],
            row_temperature=config.row_temperature,
            column_temperature=config.column_temperature,
        )

    def forward(self, views: list[Tensor]) -> StepOutput:
        """Loss of two views."""
        check_two_views("self_classifier", views)
        u1_NF, u2_NF = (unit_rows(y_NF) for y_NF in self.project(views))
        of_each = [
            self_classifier_loss(
                classifier(u1_NF),
                classifier(u2_NF),
                row_temperature=self.row_temperature,
                column_temperature=self.column_temperature,
            )
            for classifier in self.classifiers
        ]
        terms = SelfClassifierTerms(
            *(torch.stack(term).mean() for term in zip(*of_each, strict=True))
        )
        return StepOutput.of(terms, u1_NF)

    def stuck_values(self, batch_size: int) -> tuple[StuckValue, ...]:
        """log C when all samples are classified alike."""
        words = "every sample gets the same assignment (log C)"
        return (StuckValue("total", self.log_classes, words),)
