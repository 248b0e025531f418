"""The FALCON loss with every back end and option, on 16 features."""

from __future__ import annotations

import torch

from falcon_ssl import (
    CompleteDictionary,
    FalconLoss,
    HadamardDictionary,
    LossTerms,
    RademacherDictionary,
)
from support.problems import random_prior

CODES = 96


class ByPlace(FalconLoss):
    """Views of two places."""

    def forward(self, *views: torch.Tensor, num_targets: int | None = None) -> LossTerms:
        by_place = (torch.stack([u, u.roll(1, dims=1)], dim=1) for u in views)
        return super().forward(*by_place, num_targets=num_targets)


RANDOM, STRUCTURED = RademacherDictionary(CODES, 16), HadamardDictionary(CODES, 16)
FALCON = {
    "reference": lambda: FalconLoss(RANDOM, backend="reference"),
    "dense": lambda: FalconLoss(RANDOM, backend="dense"),
    "chunked": lambda: FalconLoss(RANDOM, backend="chunked", block_size=40),
    "forward": lambda: FalconLoss(RANDOM, prior_matching="forward"),
    "prior": lambda: FalconLoss(RANDOM, prior=random_prior(CODES)),
    "momentum": lambda: FalconLoss(RANDOM, marginal_momentum=0.9),
    "saturated": lambda: FalconLoss(RANDOM, temperature=1e-4),
    "hadamard": lambda: FalconLoss(STRUCTURED, prior_matching="renyi2"),
    "complete": lambda: FalconLoss(CompleteDictionary(16)),
    "pooled": lambda: FalconLoss(RANDOM, marginal="pooled"),
    "complete pooled": lambda: FalconLoss(CompleteDictionary(16), marginal="pooled"),
    "series": lambda: FalconLoss(CompleteDictionary(16, kernel_order=3), marginal="pooled"),
    "some places": lambda: ByPlace(CompleteDictionary(16, kernel_places=1), marginal="pooled"),
    "complete reverse": lambda: FalconLoss(CompleteDictionary(16), prior_matching="reverse"),
}
