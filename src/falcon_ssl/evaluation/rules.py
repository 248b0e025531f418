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
        name: Of the measure, as in ``evaluation.json``.
        meaning: In plain words.
        warning: First value of a warning; None for a measure that is shown but not judged.
        collapsed: First value of a collapse; above ``warning`` for a measure that grows with collapse.
    """

    name: str
    meaning: str
    warning: float | None = None
    collapsed: float | None = None

    def judge(self, value: float) -> Verdict:
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
        Rule("mean_cosine_z", "mean cosine of two z; 1: all samples alike", 0.95, 0.999),
        Rule("mean_cosine_u", "mean cosine of two u; 1: all samples alike", 0.5, 0.95),
        Rule("mean_cosine_centred_z", "the same of z after its mean is taken away"),
        Rule("mean_cosine_centred_u", "the same of u after its mean is taken away"),
        Rule(
            "feature_std_z", "standard deviation of a feature of z, averaged; 0: all samples alike"
        ),
        Rule(
            "feature_std_u", "standard deviation of a feature of u, averaged; 0: all samples alike"
        ),
    ),
    "dimensional": (
        Rule("effective_rank_z", "directions of z in use: exp(entropy of singular values)", 8, 4),
        Rule("effective_rank_share_z", "of min(D, N - 1), the most there can be", 0.1, 0.03),
        Rule("effective_rank_u", "directions of u in use: exp(entropy of singular values)", 8, 4),
        Rule("effective_rank_share_u", "of min(F, N - 1), the most there can be", 0.1, 0.03),
        Rule("identity_gap_u", "||H^T H - I|| / sqrt(F); 0: features decorrelated"),
        Rule("offdiagonal_rms_u", "root mean square of H^T H off its diagonal"),
    ),
    "cluster": (
        Rule("codes_used", "codes nearest to at least one sample"),
        Rule("codes_used_share", "of min(C, N), the most there can be"),
        Rule("code_entropy_share", "entropy of the use of codes over log min(C, N)", 0.3, 0.1),
        Rule("code_perplexity", "as many evenly used codes would be as varied"),
        Rule("code_largest_share", "share of samples on the most used code", 0.5, 0.9),
    ),
    "intracluster": (
        Rule("within_variance_codes", "variance of z inside the codes over total", 0.1, 0.02),
        Rule("within_variance_kmeans_z", "variance inside k-means clusters over total", 0.1, 0.02),
        Rule(
            "within_entropy_codes", "Gaussian entropy inside the codes minus total, per direction"
        ),
        Rule("within_entropy_kmeans_z", "Gaussian entropy inside k-means clusters minus total"),
    ),
}
# An effective rank of 8 says little about features that are hardly wider: there the share alone is judged.
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
