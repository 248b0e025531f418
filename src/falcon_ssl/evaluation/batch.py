"""What one training batch tells of the embedding: cheap enough to ask at every logged step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from falcon_ssl.dictionary import Dictionary
from falcon_ssl.evaluation.codes import nearest_codes
from falcon_ssl.evaluation.collapse import effective_rank, moments, spectrum
from falcon_ssl.monitor import Moment, Observation


class BatchMonitor:
    """Effective rank and codes used in the batch of a logged step.

    Both are at most the number of rows of the batch, and describe one view in training mode; the evaluation measures
    the same on the whole test split.

    Args:
        dictionary: Codes to assign embeddings to; None reports the rank alone.
    """

    def __init__(self, dictionary: Dictionary | None) -> None:
        self._dictionary = dictionary

    @torch.no_grad()
    def __call__(self, moment: Moment) -> Observation:
        """``effective_rank_u`` and ``codes_used``."""
        u_NF = moment.u_NF.float()
        found = {"effective_rank_u": effective_rank(spectrum(moments(u_NF)))}
        if self._dictionary is not None:
            found["codes_used"] = float(torch.unique(nearest_codes(u_NF, self._dictionary)).numel())
        return Observation(metrics=found)

    def state_dict(self) -> dict[str, Any]:
        """Nothing to keep."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing to restore."""
