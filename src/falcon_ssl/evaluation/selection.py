"""Choosing options without labels: which of several trained settings to take, and how good that choice was.

The rule: leave out settings that collapsed or raised an alarm; of the others take the one whose representations have
the largest effective rank (RankMe, Garrido et al., 2023). Why not the least loss: it is another quantity for every beta
and temperature. Why not the most shared bits: at a given temperature beta = 1 maximizes them by definition, a lower
temperature allows more of them whether or not the representations gain, and early in training they say little.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from falcon_ssl.evaluation.rules import Verdict


@dataclass(frozen=True)
class Candidate:
    """One setting, its measures averaged over seeds.

    Args:
        options: What sets it apart, by name.
        rankme: Effective rank of z on held-out images.
        shared_bits: See `certify`; None where the terms of the loss do not contain them.
        verdict: Of the diagnosis; the worst over seeds.
        alarms: Names of the alarms that training raised.
        by_labels: Accuracies by name; empty without labels. The choice does not read them.
    """

    options: Mapping[str, float]
    rankme: float
    shared_bits: float | None
    verdict: Verdict
    alarms: tuple[str, ...] = ()
    by_labels: Mapping[str, float] = field(default_factory=dict)


def choose(candidates: Sequence[Candidate]) -> Candidate | None:
    """The setting of largest RankMe (the first on ties) that neither collapsed nor raised an alarm; None without any.

    Example:
        >>> narrow = Candidate({"beta": 0.5}, rankme=40.0, shared_bits=1.7, verdict="healthy")
        >>> wide = Candidate({"beta": 1.0}, rankme=60.0, shared_bits=3.2, verdict="healthy")
        >>> noise = Candidate({"beta": 0.0}, 90.0, -0.9, "healthy", alarms=("views_disagree",))
        >>> choose([narrow, wide, noise]).options
        {'beta': 1.0}
    """
    alive = [one for one in candidates if one.verdict != "collapsed" and not one.alarms]
    return max(alive, key=lambda one: one.rankme, default=None)


def score_choice(candidates: Sequence[Candidate], chosen: Candidate) -> dict[str, dict[str, float]]:
    """How near a choice without labels comes to the best by labels.

    Returns:
        For each accuracy: that of the ``chosen`` setting, the ``best`` and ``worst`` of all, and the rank correlation
        (Spearman) of RankMe and of the shared bits with it over all settings, where it is defined.
    """
    found = {}
    for name in chosen.by_labels:
        accuracy = [candidate.by_labels[name] for candidate in candidates]
        own = chosen.by_labels[name]
        found[name] = {"chosen": own, "best": max(accuracy), "worst": min(accuracy)}
        for measure in ("rankme", "shared_bits"):
            values: list[float | None] = [getattr(candidate, measure) for candidate in candidates]
            known = [value for value in values if value is not None]
            correlation = rank_correlation(known, accuracy) if len(known) == len(values) else None
            if correlation is not None:
                found[name][f"correlation_{measure}"] = correlation
    return found


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Spearman's rank correlation, equal values sharing their mean rank; None when either is constant.

    Example:
        >>> rank_correlation([1, 2, 3], [10, 30, 20])
        0.5
    """
    from scipy.stats import spearmanr

    if len(set(x)) < 2 or len(set(y)) < 2:
        return None
    return round(float(spearmanr(x, y).statistic), 12)
