"""The one table of the diagnosis: which measure shows which collapse, and from where on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["healthy", "warning", "collapsed", "unknown"]
_FROM_BAD_TO_GOOD: tuple[Verdict, ...] = ("collapsed", "warning", "healthy", "unknown")


@dataclass(frozen=True)
class Rule:
    """How to read one measure.

    Args:
        name: Of the measure; what it means says `falcon_ssl.records.metrics`.
        warning: First value of a warning; None for a measure that is shown but not assessed.
        collapsed: First value of a collapse; above ``warning`` for a measure that grows with collapse.
    """

    name: str
    warning: float | None = None
    collapsed: float | None = None

    def assess(self, value: float) -> Verdict:
        """The verdict on a value; "unknown" without limits."""
        if self.warning is None or self.collapsed is None:
            return "unknown"
        sign = 1 if self.collapsed > self.warning else -1
        if sign * value >= sign * self.collapsed:
            return "collapsed"
        return "warning" if sign * value >= sign * self.warning else "healthy"


# Limits lie where healthy networks of several methods do not come near, and where synthetic features built to be
# collapsed do. z gets more patience than u: after a ReLU all features are positive, so cosines are large by nature.
RULES: Mapping[str, tuple[Rule, ...]] = {
    "representation": (
        Rule("mean_cosine_z", warning=0.95, collapsed=0.999),
        Rule("mean_cosine_u", warning=0.5, collapsed=0.95),
        Rule("mean_cosine_centered_z"),
        Rule("mean_cosine_centered_u"),
        Rule("feature_std_z"),
        Rule("feature_std_u"),
    ),
    "dimensional": (
        Rule("effective_rank_z", warning=8, collapsed=4),
        Rule("effective_rank_share_z", warning=0.1, collapsed=0.03),
        Rule("effective_rank_u", warning=8, collapsed=4),
        Rule("effective_rank_share_u", warning=0.1, collapsed=0.03),
        Rule("identity_gap_u"),
        Rule("offdiagonal_rms_u"),
    ),
    "cluster": (
        Rule("codes_used"),
        Rule("codes_used_share"),
        Rule("code_entropy_share", warning=0.3, collapsed=0.1),
        Rule("code_perplexity"),
        Rule("code_largest_share", warning=0.5, collapsed=0.9),
    ),
    "intracluster": (
        Rule("within_variance_codes", warning=0.1, collapsed=0.02),
        Rule("within_variance_kmeans_z", warning=0.1, collapsed=0.02),
        Rule("within_entropy_codes"),
        Rule("within_entropy_kmeans_z"),
    ),
}
# An effective rank of 8 says little about features that are hardly wider: there the fraction alone is assessed.
LEAST_WIDTH_FOR_RANK = 32

WORDS: Mapping[str, str] = {
    "representation": "all images get nearly the same representation",
    "dimensional": "only a few directions of the space are used",
    "cluster": "the images share very few codes",
    "intracluster": "the images of a cluster are nearly one point",
}


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The worst of some verdicts; "unknown" when there is none.

    Example:
        >>> worst(["healthy", "unknown", "warning"])
        'warning'
    """
    return min(verdicts, key=_FROM_BAD_TO_GOOD.index, default="unknown")
