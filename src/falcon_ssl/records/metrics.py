"""What the numbers of an evaluation are called, what they mean and which way is better."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["percent", "score", "count", "real"]
Better: TypeAlias = Literal["higher", "lower"] | None


@dataclass(frozen=True)
class Metric:
    """How to show one number of ``evaluation.json`` or ``diagnosis.json``.

    Attributes:
        label: Name in pages and tables; "{place}" stands for where it was measured.
        kind: How to write it.
        group: Heading of its rows.
        better: Which direction is better, or None where neither is.
        meaning: What it is, in a few words.
        reference: Chance or ideal value or "" when there is none.
    """

    label: str
    kind: Kind
    group: str
    better: Better
    meaning: str
    reference: str = ""

    @property
    def title(self) -> str:
        """The label as a heading; kNN stays kNN."""
        kept = self.label[1:2].isupper()
        return self.label if kept else self.label[:1].upper() + self.label[1:]


ACCURACY = "Classification by frozen representations"
CODES = "Clusters: the code of each image"
KMEANS = "Clusters: k-means with as many clusters as classes"
GEOMETRY = "Geometry: is the space used?"
WITHIN = "Inside the clusters"
OTHER = "Other recorded numbers"
GROUPS = (ACCURACY, CODES, KMEANS, GEOMETRY, WITHIN, OTHER)

# fmt: off
METRICS: Mapping[str, Metric] = {
    "top1_linear": Metric("linear probe, top-1", "percent", ACCURACY, "higher",
        "test images that a logistic regression classifies correctly"),
    "top5_linear": Metric("linear probe, top-5", "percent", ACCURACY, "higher",
        "test images whose class is among the five most probable ones"),
    "top1_knn": Metric("kNN, top-1", "percent", ACCURACY, "higher",
        "test images that their nearest training images classify correctly"),
    "numbers_read": Metric("numbers read", "count", ACCURACY, None,
        "width of what linear probe and kNN read of an image"),
    "ami": Metric("AMI", "score", OTHER, "higher",
        "agreement with the classes, adjusted for chance", "chance 0 · perfect 1"),
    "nmi": Metric("NMI", "score", OTHER, None,
        "agreement with the classes, not adjusted: grows with the number of clusters", "perfect 1"),
    "ari": Metric("ARI", "score", OTHER, "higher",
        "agreement of pairs of images, adjusted for chance", "chance 0 · perfect 1"),
    "accuracy": Metric("cluster accuracy", "percent", OTHER, "higher",
        "images in the right class under the best matching of clusters to classes", "perfect 100\u202f%"),
    "chance_nmi_codes": Metric("NMI of permuted labels", "score", CODES, None,
        "what NMI would be by chance at the same code usage"),
    "mutual_information_bits": Metric("bits of code per batch", "real", OTHER, "higher",
        "mutual information between sample and code, at most log2 min(N, C)"),
    "codes_used": Metric("codes used", "count", CODES, None,
        "codes that are the most probable one of at least one test image"),
    "codes_used_share": Metric("codes used, of those that could be", "percent", CODES, None,
        "codes used / min(C, N)"),
    "code_entropy_share": Metric("evenness of code use", "percent", CODES, "higher",
        "entropy of the code histogram / log min(C, N)", "one code 0\u202f% · even 100\u202f%"),
    "code_perplexity": Metric("code perplexity", "real", CODES, None,
        "number of codes that would be as varied if evenly used"),
    "aligned_cosine": Metric("cosine to the nearest code", "score", CODES, None,
        "mean over test embeddings u, of each with the code nearest to it", "ideal 1"),
    "code_largest_share": Metric("fraction of the most used code", "percent", CODES, "lower",
        "1 means cluster collapse"),
    "mean_cosine": Metric("mean cosine", "score", GEOMETRY, "lower",
        "of two different rows, as they are; 1 means all alike", "ideal 0 · collapsed 1"),
    "mean_cosine_centered": Metric("centered mean cosine", "score", GEOMETRY, None,
        "of two different rows after subtracting the mean", "near 0 by construction"),
    "feature_std": Metric("standard deviation per feature", "real", GEOMETRY, None,
        "mean over features; 0 means all rows alike", "collapsed 0"),
    "effective_rank": Metric("effective rank", "real", GEOMETRY, None,
        "exp(entropy of the singular values), centered: directions in use (many before training)", "collapsed 1"),
    "effective_rank_share": Metric("effective rank / largest possible", "percent", GEOMETRY, "higher",
        "of min(width, N − 1)", "ideal 100\u202f%"),
    "identity_gap": Metric("distance of HᵀH from the identity", "real", GEOMETRY, "lower",
        "‖HᵀH − I‖ / √F, not centered; 0 means decorrelated features", "ideal 0"),
    "offdiagonal_rms": Metric("off-diagonal RMS of HᵀH", "real", GEOMETRY, "lower",
        "correlation left between features, not centered", "ideal 0"),
    "within_variance": Metric("variance within {place} / total", "percent", WITHIN, None,
        "near 0 means that every cluster has shrunk to a point", "collapsed 0\u202f%"),
    "within_entropy": Metric("entropy within {place} − total", "real", WITHIN, None,
        "Gaussian, in nats per direction", "as wide as the whole 0 · points −6.9"),
}
# fmt: on

PLACES: Mapping[str, tuple[str, str | None]] = {
    "_kmeans_z": ("k-means on z", KMEANS),
    "_kmeans_u": ("k-means on u", KMEANS),
    "_codes": ("codes", CODES),
    "_z": ("z", None),
    "_u": ("u", None),
}


_FEW_LABELS = re.compile(r"top1_linear_([\d.]+)(pct|shot)(_std)?")


def few_labels_name(amount: float) -> str:
    """Name of the accuracy of probes that see few labels: a fraction below 1, images a class from 1 on.

    Example:
        >>> few_labels_name(0.01), few_labels_name(5)
        ('top1_linear_1pct', 'top1_linear_5shot')
    """
    return f"top1_linear_{100 * amount:g}pct" if amount < 1 else f"top1_linear_{amount:g}shot"


def is_few_labels(key: str) -> bool:
    """Whether a key is an accuracy that `few_labels_name` names, and not its deviation."""
    return _FEW_LABELS.fullmatch(key) is not None and not key.endswith("_std")


def _few_labels(key: str) -> Metric | None:
    """The description of a name of `few_labels_name`, or of its standard deviation."""
    found = _FEW_LABELS.fullmatch(key)
    if found is None:
        return None
    number, unit, spread = found.groups()
    of = f"{number}\u202f% of the labels" if unit == "pct" else f"{number} labels a class"
    if spread:
        meaning = "standard deviation over the draws of the labeled images"
        return Metric(f"its spread, {of}", "percent", ACCURACY, None, meaning)
    meaning = "the linear probe when it sees these labels alone: mean over draws"
    return Metric(f"linear probe, {of}", "percent", ACCURACY, "higher", meaning)


# What may stand beside a run: the encoder before training, and features without a gradient.
BASELINE_LABEL = "patch k-means"


def start_label(weights: object) -> str:
    """What an encoder was before training, by its ``init.weights``."""
    return "initial weights" if weights else "random encoder"


def describe(key: str) -> Metric:
    """The description of a key of ``evaluation.json``; a plain one for an unknown key.

    A suffix says where a quantity was measured: ``ami_kmeans_z`` is ``ami`` on k-means clusters.

    Example:
        >>> describe("ami_kmeans_z").label
        'AMI of k-means on z'
        >>> describe("within_variance_codes").label
        'variance within codes / total'
        >>> describe("wall_time").label
        'wall time'
    """
    if key in METRICS:
        return METRICS[key]
    if (few := _few_labels(key)) is not None:
        return few
    for suffix, (place, group) in PLACES.items():
        base = METRICS.get(key.removesuffix(suffix))
        if key.endswith(suffix) and base is not None:
            home = base.group if group is None or base.group == WITHIN else group
            label = base.label if "{place}" in base.label else base.label + " of {place}"
            return replace(base, label=label.replace("{place}", place), group=home)
    return Metric(key.replace("_", " "), "real", OTHER, None, f"recorded as {key}")
