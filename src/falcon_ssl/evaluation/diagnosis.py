"""Diagnosis: has this network collapsed, in which of the four ways, in words and numbers.

It asks for features only, so it takes networks of any method. What a number means is said in one
table, `falcon_ssl.evaluation.rules.RULES`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from falcon_ssl.core.checks import check_at_least
from falcon_ssl.core.extras import MissingExtraError
from falcon_ssl.core.notebook import html_table
from falcon_ssl.dictionary.assign import nearest_codes
from falcon_ssl.dictionary.base import Dictionary
from falcon_ssl.dictionary.prototypes import PrototypeDictionary
from falcon_ssl.evaluation.clustering import kmeans_clusters
from falcon_ssl.evaluation.collapse import cluster_spread, collapse
from falcon_ssl.evaluation.feature_files import load_features
from falcon_ssl.evaluation.features import Features
from falcon_ssl.evaluation.rules import LEAST_WIDTH_FOR_RANK, RULES, WORDS, Rule, Verdict, worst
from falcon_ssl.records.metrics import describe

logger = logging.getLogger(__name__)

LEAST_SAMPLES = 10
CLUSTERS = 32  # of k-means when there are no labels to count classes by
KMEANS_ROWS = 5_000  # rows that k-means takes, drawn at random; all other measures take all


@dataclass(frozen=True)
class Measure:
    """One measured number.

    Args:
        name: As in ``evaluation.json``.
        value: Of these features.
        random: Of a random encoder; None when no reference was given.
        ideal: Of perfectly spread features; None where there is none.
        meaning: In plain words.
        verdict: "unknown" for a number that is shown but not assessed.
    """

    name: str
    value: float
    random: float | None
    ideal: float | None
    meaning: str
    verdict: Verdict


@dataclass(frozen=True)
class Collapse:
    """One of the four collapses.

    Args:
        name: "representation", "dimensional", "cluster" or "intracluster".
        verdict: The worst of its measures; "unknown" when nothing could be assessed.
        measures: What was measured.
    """

    name: str
    verdict: Verdict
    measures: tuple[Measure, ...]


@dataclass(frozen=True)
class Diagnosis:
    """The four collapses of one network.

    Args:
        verdict: The worst of the four.
        sentence: The same in words.
        collapses: The four, always in the same order.
    """

    verdict: Verdict
    sentence: str
    collapses: tuple[Collapse, ...]

    def __getitem__(self, name: str) -> Collapse:
        """The collapse of this name."""
        return {collapse.name: collapse for collapse in self.collapses}[name]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for ``diagnosis.json``."""
        return asdict(self)

    def _repr_html_(self) -> str:
        rows = []
        for kind in self.collapses:
            assessed = [one for one in kind.measures if one.verdict != "unknown"]
            if not assessed:
                rows.append([kind.name, "not measured", "", "", "", ""])
            for one in assessed:
                numbers = (one.value, one.random, one.ideal)
                written = ["" if number is None else f"{number:.3g}" for number in numbers]
                name = kind.name if one is assessed[0] else ""
                rows.append([name, describe(one.name).label, *written, one.verdict])
        head = ["collapse", "measure", "value", "before training", "ideal", "verdict"]
        return html_table(rows, head=head, sentence=self.sentence, verdict=self.verdict)


def diagnose(
    features: Features | ArrayLike | Tensor | str | Path,
    *,
    dictionary: Dictionary | Tensor | None = None,
    num_codes: int | None = None,
    reference: Features | ArrayLike | Tensor | str | Path | None = None,
    num_clusters: int | None = None,
    seed: int = 0,
) -> Diagnosis:
    """Say whether features have collapsed: representation, dimensional, cluster, intracluster.

    Args:
        features: z [N, D] of any network, a tensor or an array; or `Features`, with u and codes where they exist; or
            a file of these, see `falcon_ssl.evaluation.load_features`.
        dictionary: Codes to assign ``u`` (``z`` when there is no ``u``) to, by cosine: a dictionary,
            or prototypes [C, F] as of SwAV or DINO. Replaces ``features.code``.
        num_codes: C of the codes that ``features`` already hold; None takes the largest code + 1.
        reference: Features of an untrained network of the same architecture, for comparison; the
            verdict does not depend on it.
        num_clusters: K of k-means; None takes the number of classes among the labels, or 32.
        seed: Of k-means and of its subsample.

    Returns:
        The diagnosis. A collapse that could not be measured is "unknown": cluster collapse without
        codes, intracluster collapse when no cluster has two samples, all samples are equal, or there are
        neither codes nor k-means, which needs the extra train.

    Raises:
        InputError: Fewer than 10 samples, more clusters than samples, a dictionary of another width,
            or codes that do not fit ``num_codes``. (`Features` refuses NaN and unequal lengths.)

    Memory:
        Features plus O(D^2); no N x N and no N x C matrix. k-means takes 5000 rows.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> diagnose(torch.randn(500, 64, generator=generator)).verdict
        'healthy'
        >>> diagnose(Features(z=torch.ones(500, 64)))["representation"].verdict
        'collapsed'
    """
    codes = PrototypeDictionary(dictionary) if isinstance(dictionary, Tensor) else dictionary
    num_codes = num_codes if codes is None else codes.num_codes

    def measure(rows: Features) -> dict[str, float]:
        if codes is not None:
            rows = replace(rows, code=nearest_codes(rows.z if rows.u is None else rows.u, codes))
        return _measure(rows, num_codes=num_codes, num_clusters=num_clusters, seed=seed)

    features = _as_features(features)
    found = measure(features)
    random = {} if reference is None else measure(_as_features(reference))
    ideals = _ideals(features, num_codes)

    def read(rule: Rule) -> Measure:
        value = found[rule.name]
        most = ideals.get(rule.name)
        too_narrow = rule.name.startswith("effective_rank_") and (
            most is not None and 1 < most < LEAST_WIDTH_FOR_RANK
        )
        verdict: Verdict = "unknown" if too_narrow else rule.assess(value)
        meaning = describe(rule.name).meaning
        return Measure(rule.name, value, random.get(rule.name), most, meaning, verdict)

    collapses = []
    for name, rules in RULES.items():
        measures = tuple(read(rule) for rule in rules if rule.name in found)
        collapses.append(Collapse(name, worst(m.verdict for m in measures), measures))
    verdict = worst(one.verdict for one in collapses)
    return Diagnosis(verdict, _sentence(collapses), tuple(collapses))


def _as_features(given: Features | ArrayLike | Tensor | str | Path) -> Features:
    if isinstance(given, (str, Path)):
        return load_features(given)
    return given if isinstance(given, Features) else Features.from_arrays(given)


def _measure(
    features: Features, *, num_codes: int | None, num_clusters: int | None, seed: int
) -> dict[str, float]:
    """Every measure by name."""
    check_at_least("number of samples", len(features), LEAST_SAMPLES, fix="diagnose more images")
    found = collapse(features, num_codes=_num_codes(features, num_codes))
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randperm(len(features), generator=generator)[:KMEANS_ROWS]
    if num_clusters is None:
        classes = CLUSTERS if features.label is None else len(torch.unique(features.label))
        num_clusters = max(2, min(classes, len(features) // 2))
    z_MD = features.z[rows]
    try:
        cluster_M = kmeans_clusters(z_MD, num_clusters=num_clusters, seed=seed, starts=1)
    except MissingExtraError as error:
        logger.warning("intracluster collapse is not measured on k-means: %s", error)
        return found
    return found | cluster_spread(z_MD, cluster_M, name="kmeans_z")


def _num_codes(features: Features, num_codes: int | None) -> int | None:
    if num_codes is None and features.code is not None:
        return int(features.code.max()) + 1
    return num_codes


def _ideals(features: Features, num_codes: int | None) -> dict[str, float]:
    """Each measure of features that are spread as well as can be."""
    ideals = {"identity_gap_u": 0.0, "offdiagonal_rms_u": 0.0}
    for name, rows in (("z", features.z), ("u", features.u)):
        if rows is not None:
            ideals |= {
                f"mean_cosine_{name}": 0.0,
                f"mean_cosine_centered_{name}": 0.0,
                f"effective_rank_{name}": float(min(rows.shape[1], len(rows) - 1)),
                f"effective_rank_share_{name}": 1.0,
            }
    if features.u is not None:
        ideals["feature_std_u"] = 1 / math.sqrt(features.u.shape[1])
    codes = _num_codes(features, num_codes)
    if codes is not None:
        most = float(min(codes, len(features)))
        ideals |= {
            "codes_used": most,
            "codes_used_share": 1.0,
            "code_entropy_share": 1.0,
            "code_perplexity": most,
            "code_largest_share": 1 / most,
        }
    return ideals


def _sentence(collapses: Sequence[Collapse]) -> str:
    """What was found, in words."""
    parts = []
    for verdict, text in (("collapsed", "Collapsed"), ("warning", "Close to collapse")):
        words = [f"{WORDS[c.name]} ({c.name})" for c in collapses if c.verdict == verdict]
        if words:
            parts.append(f"{text}: {'; '.join(words)}.")
    unknown = [c.name for c in collapses if c.verdict == "unknown"]
    if not parts:
        parts.append("Healthy: no sign of collapse.")
    if unknown:
        parts.append(f"Not measured: {' and '.join(unknown)} collapse.")
    return " ".join(parts)
