"""Honest clustering numbers: NMI never without AMI, ARI, the number of codes and the chance level.

NMI that is not adjusted for chance grows with the number of clusters even for random ones, so a
large dictionary looks good without knowing anything. The normalizer of NMI is the arithmetic mean
of the two entropies.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from falcon_ssl.core.checks import check_at_least, check_same_length
from falcon_ssl.core.errors import InputError
from falcon_ssl.core.extras import train_extra

PERMUTATIONS = 5
KMEANS_STARTS = 5


def code_agreement(code_N: Tensor, label_N: Tensor, *, seed: int = 0) -> dict[str, float]:
    """Agreement of the nearest codes with the classes, and what chance would give.

    Args:
        code_N: Code of every sample, int64 [N].
        label_N: Class of every sample, int64 [N].
        seed: Of the permutations.

    Returns:
        ``nmi_codes``, ``ami_codes``, ``ari_codes`` and ``chance_nmi_codes``: the mean NMI of
        ``PERMUTATIONS`` random permutations of the labels, at the same histograms.

    Raises:
        InputError: If the lengths differ.
    """
    with train_extra("clustering"):
        from sklearn.metrics import normalized_mutual_info_score

    rng = np.random.default_rng(seed)
    found = {f"{name}_codes": value for name, value in _agreement(label_N, code_N).items()}
    chance = [
        normalized_mutual_info_score(rng.permutation(label_N.numpy()), code_N.numpy())
        for _ in range(PERMUTATIONS)
    ]
    return found | {"chance_nmi_codes": float(np.mean(chance))}


def cluster_agreement(cluster_N: Tensor, label_N: Tensor, *, num_classes: int) -> dict[str, float]:
    """NMI, AMI, ARI and accuracy of clusters that are as many as the classes.

    Args:
        cluster_N: Cluster of every sample, int64 [N], below ``num_classes``.
        label_N: Class of every sample, int64 [N], below ``num_classes``.
        num_classes: K.

    Returns:
        ``nmi``, ``ami``, ``ari`` and ``accuracy``.

    Raises:
        InputError: If the lengths differ.
    """
    return _agreement(label_N, cluster_N) | {
        "accuracy": hungarian_accuracy(cluster_N, label_N, num_classes=num_classes)
    }


def hungarian_accuracy(cluster_N: Tensor, label_N: Tensor, *, num_classes: int) -> float:
    """Fraction of samples in the right class under the best one-to-one naming of the clusters.

        max over permutations pi of (1/N) sum_i [ pi(cluster_i) = label_i ]

    Example:
        >>> hungarian_accuracy(torch.tensor([1, 1, 0]), torch.tensor([0, 0, 1]), num_classes=2)
        1.0
    """
    with train_extra("clustering"):
        from scipy.optimize import linear_sum_assignment

    pair_N = cluster_N * num_classes + label_N
    count_KK = torch.bincount(pair_N, minlength=num_classes**2).view(num_classes, num_classes)
    rows, columns = linear_sum_assignment(count_KK.numpy(), maximize=True)
    return float(count_KK[rows, columns].sum()) / len(label_N)


def kmeans_clusters(
    x_ND: Tensor, *, num_clusters: int, seed: int = 0, starts: int = KMEANS_STARTS
) -> Tensor:
    """k-means (Lloyd, the best of several k-means++ starts), with scikit-learn.

    Args:
        x_ND: Rows [N, D], floating, as they are: not standardized.
        num_clusters: K, at most N.
        seed: Of the starts.
        starts: How many.

    Returns:
        Cluster of every row, int64 [N], below K; fewer than K clusters when fewer rows differ.

    Raises:
        InputError: If K < 2 or K > N.
    """
    check_at_least("num_clusters", num_clusters, 2)
    if num_clusters > len(x_ND):
        received = f"{num_clusters} clusters for {len(x_ND)} samples"
        expected = "at least one sample per cluster"
        raise InputError("more clusters than samples", received=received, expected=expected)
    with train_extra("clustering"):
        from sklearn.cluster import KMeans

    x = x_ND.numpy()
    # Collapsed features have fewer distinct rows than K; k-means cannot find more clusters.
    num_clusters = min(num_clusters, len(np.unique(x, axis=0)))
    kmeans = KMeans(num_clusters, n_init=starts, random_state=seed)
    return torch.from_numpy(kmeans.fit_predict(x).astype(np.int64))


def _agreement(label_N: Tensor, cluster_N: Tensor) -> dict[str, float]:
    with train_extra("clustering"):
        from sklearn.metrics import (
            adjusted_mutual_info_score,
            adjusted_rand_score,
            normalized_mutual_info_score,
        )

    check_same_length("labels", label_N, "clusters", cluster_N)
    label, cluster = label_N.numpy(), cluster_N.numpy()
    return {
        "nmi": float(normalized_mutual_info_score(label, cluster)),
        "ami": float(adjusted_mutual_info_score(label, cluster)),
        "ari": float(adjusted_rand_score(label, cluster)),
    }
