"""Self-Classifier: encoder, two-layer head, one or more classifiers under a uniform prior."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from falcon_ssl.config import SelfClassifierConfig
from falcon_ssl.core.monitor import StuckValue
from falcon_ssl.dictionary.prototypes import PrototypeDictionary
from falcon_ssl.losses.self_classifier import SelfClassifierTerms, self_classifier_loss
from falcon_ssl.methods.base import Parts, StepOutput, num_large
from falcon_ssl.methods.heads import Projected, Prototypes, mlp, unit_rows


class SelfClassifier(Projected):
    """Amrani et al., 2022 (arXiv 2103.10994). The first classifier gives the codes of an image.

    Example:
        >>> config = SelfClassifierConfig(32, 16, num_prototypes=(10, 20))
        >>> method = SelfClassifier(Parts(torch.nn.Flatten(), 64, (1, 8, 8)), config)
        >>> view1, view2 = torch.randn(2, 16, 1, 8, 8)
        >>> sorted(method([view1, view2]).terms)
        ['consistency', 'entropy', 'total']
    """

    few_codes_hint = "are its two temperatures right?"

    def __init__(self, parts: Parts, config: SelfClassifierConfig) -> None:
        widths = [parts.in_dim, config.hidden_dim, config.embed_dim]
        super().__init__(parts.encoder, mlp(widths, last_bias=True))
        self.config = config
        classifiers = [Prototypes(classes, config.embed_dim) for classes in config.num_prototypes]
        self.classifiers = nn.ModuleList(classifiers)
        self.dictionary = PrototypeDictionary(classifiers[0].weight)

    def forward(self, views: list[Tensor]) -> StepOutput:
        """Loss of two or more views, of which the large ones are targets; the mean over the classifiers."""
        u_VNF = [unit_rows(y_NF) for y_NF in self.project(views)]
        of_each = [
            self_classifier_loss(
                [classifier(u_NF) for u_NF in u_VNF],
                num_targets=num_large(views),
                row_temperature=self.config.row_temperature,
                column_temperature=self.config.column_temperature,
            )
            for classifier in self.classifiers
        ]
        terms = SelfClassifierTerms(
            *(torch.stack(term).mean() for term in zip(*of_each, strict=True))
        )
        return StepOutput.of(terms, u_VNF[0])

    def stuck_values(self, batch_size: int) -> tuple[StuckValue, ...]:
        """Mean of log C over the classifiers, when all samples are classified alike."""
        classes = self.config.num_prototypes
        value = sum(math.log(C) for C in classes) / len(classes)
        return (StuckValue("total", value, "every sample gets the same assignment (log C)"),)
