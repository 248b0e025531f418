"""What the numbers of an evaluation are called, what they mean and which way is better."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

Better: TypeAlias = Literal["higher", "lower"]


@dataclass(frozen=True)
class Metric:
    """How to show one number of ``evaluation.json``.

    Attributes:
        label: Name for people; "{place}" stands for where it was measured.
        kind: How to write it.
        meaning: What it is, in a few words.
        group: Heading of its rows.
        better: Which direction is better, or None where neither is.
        reference: Chance or ideal value in words, or "" when there is none.
    """

    label: str
    kind: Kind
    meaning: str
    group: str
    better: Better | None = None
    reference: str = ""


ACCURACY = "Classification by frozen representations"
CODES = "Clusters: the code of each image"
KMEANS = "Clusters: k-means with as many clusters as classes"
GEOMETRY = "Geometry: is the space used?"
WITHIN = "Inside the clusters"
OTHER = "Other recorded numbers"
GROUPS = (ACCURACY, CODES, KMEANS, GEOMETRY, WITHIN, OTHER)

METRICS: Mapping[str, Metric] = {
    "top1_linear": Metric(
        "linear probe, top-1",
        "percent",
        "test images that a logistic regression on z classifies correctly",
        ACCURACY,
        "higher",
    ),
    "top5_linear": Metric(
        "linear probe, top-5",
        "percent",
        "test images whose class is among the five most probable ones",
        ACCURACY,
        "higher",
    ),
    "top1_knn": Metric(
        "nearest neighbours, top-1",
        "percent",
        "test images that their nearest training images classify correctly",
        ACCURACY,
        "higher",
    ),
    "ami": Metric(
        "AMI",
        "score",
        "agreement with the classes, adjusted for chance",
        OTHER,
        "higher",
        "chance 0 · perfect 1",
    ),
    "nmi": Metric(
        "NMI",
        "score",
        "agreement with the classes, not adjusted: grows with the number of clusters",
        OTHER,
        None,
        "perfect 1",
    ),
    "ari": Metric(
        "ARI",
        "score",
        "agreement of pairs of images, adjusted for chance",
        OTHER,
        "higher",
        "chance 0 · perfect 1",
    ),
    "accuracy": Metric(
        "cluster accuracy",
        "percent",
        "images in the right class under the best matching of clusters to classes",
        OTHER,
        "higher",
        "perfect 100\u202f%",
    ),
    "chance_nmi_codes": Metric(
        "NMI of permuted labels",
        "score",
        "what NMI would be by chance at the same code usage",
        CODES,
    ),
    "codes_used": Metric(
        "codes used",
        "count",
        "codes that are the most probable one of at least one test image",
        CODES,
    ),
    "codes_used_share": Metric(
        "codes used, of those that could be",
        "percent",
        "codes used / min(C, N)",
        CODES,
    ),
    "code_entropy_share": Metric(
        "evenness of code use",
        "percent",
        "entropy of the code histogram / log min(C, N)",
        CODES,
        "higher",
        "one code 0\u202f% · even 100\u202f%",
    ),
    "code_perplexity": Metric(
        "code perplexity", "real", "number of codes that would be as varied if evenly used", CODES
    ),
    "code_largest_share": Metric(
        "share of the most used code", "percent", "1 means cluster collapse", CODES, "lower"
    ),
    "mean_cosine": Metric(
        "mean cosine",
        "score",
        "of two different rows, as they are; 1 means all alike",
        GEOMETRY,
        "lower",
        "ideal 0 · collapsed 1",
    ),
    "mean_cosine_centred": Metric(
        "centred mean cosine",
        "score",
        "of two different rows after subtracting the mean",
        GEOMETRY,
        None,
        "near 0 by construction",
    ),
    "feature_std": Metric(
        "standard deviation per feature",
        "real",
        "mean over features; 0 means all rows alike",
        GEOMETRY,
        None,
        "collapsed 0",
    ),
    "effective_rank": Metric(
        "effective rank",
        "real",
        "exp(entropy of the singular values), centred: directions in use (many before training)",
        GEOMETRY,
        None,
        "collapsed 1",
    ),
    "effective_rank_share": Metric(
        "effective rank / largest possible",
        "percent",
        "of min(width, N − 1)",
        GEOMETRY,
        "higher",
        "ideal 100\u202f%",
    ),
    "identity_gap": Metric(
        "distance of HᵀH from the identity",
        "real",
        "‖HᵀH − I‖ / √F, not centred",
        GEOMETRY,
        "lower",
        "ideal 0",
    ),
    "offdiagonal_rms": Metric(
        "off-diagonal RMS of HᵀH",
        "real",
        "correlation left between features, not centred",
        GEOMETRY,
        "lower",
        "ideal 0",
    ),
    "within_variance": Metric(
        "variance within {place} / total",
        "percent",
        "near 0 means that every cluster has shrunk to a point",
        WITHIN,
        None,
        "collapsed 0\u202f%",
    ),
    "within_entropy": Metric(
        "entropy within {place} − total",
        "real",
        "Gaussian, in nats per direction",
        WITHIN,
        None,
        "as wide as the whole 0 · points −6.9",
    ),
}

PLACES: Mapping[str, tuple[str, str | None]] = {
    "_kmeans_z": ("k-means on z", KMEANS),
    "_kmeans_u": ("k-means on u", KMEANS),
    "_codes": ("codes", CODES),
    "_z": ("z", None),
    "_u": ("u", None),
}


def describe(key: str) -> Metric:
    """The description of a key of ``evaluation.json``; a plain one for a key nobody knows.

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
    for suffix, (place, group) in PLACES.items():
        base = METRICS.get(key.removesuffix(suffix))
        if key.endswith(suffix) and base is not None:
            home = base.group if group is None or base.group == WITHIN else group
            label = base.label if "{place}" in base.label else base.label + " of {place}"
            return replace(base, label=label.replace("{place}", place), group=home)
    return Metric(key.replace("_", " "), "real", f"recorded as {key}", OTHER)


Kind: TypeAlias = Literal["percent", "score", "count", "real"]
