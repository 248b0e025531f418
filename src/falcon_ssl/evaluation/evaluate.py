"""One evaluation, one way: every number that `evaluation.json` holds about a frozen network."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from falcon_ssl.dictionary.base import Dictionary
from falcon_ssl.evaluation.clustering import cluster_agreement, code_agreement, kmeans_clusters
from falcon_ssl.evaluation.codes import aligned_cosine
from falcon_ssl.evaluation.collapse import cluster_spread, collapse
from falcon_ssl.evaluation.features import Features
from falcon_ssl.evaluation.few_labels import few_label_probes
from falcon_ssl.evaluation.knn import knn
from falcon_ssl.evaluation.labels import check_labeled_pair
from falcon_ssl.evaluation.linear_probe import linear_probe


def evaluate_features(
    train: Features,
    test: Features,
    *,
    own: Features | None = None,
    probe: Features | None = None,
    num_classes: int | None = None,
    num_codes: int | None = None,
    dictionary: Dictionary | None = None,
    knn_neighbors: int = 20,
    knn_temperature: float = 0.07,
    knn_components: int | None = None,
    linear_penalty: float | None = None,
    few_labels: Sequence[float] = (),
    seed: int = 0,
    device: torch.device | str = "cpu",
    progress: Callable[[str], None] = lambda what: None,
) -> dict[str, float]:
    """Evaluate a network by its features: classification, clustering and collapse.

    The classifiers learn from train; every number is about test. Call it again on the features of
    an untrained network of the same architecture to know what the numbers are worth.

    Args:
        train: Features of the train split.
        test: Features of the test split.
        own: Features of the test split as the network itself represents it, where linear probe and kNN read something
            else: clusters and collapse are measured here. A readout that includes frozen or early layers never
            collapses, the network may. None for ``test``.
        probe: What the linear probe learns from in place of train, such as its images at every scale (``index`` says
            which rows are one image).
        num_classes: K; None for images without labels, which leaves the label-free measures.
        num_codes: C; needed where ``own.code`` exists.
        dictionary: The codes themselves, to measure how well ``own.u`` aligns with them.
        knn_neighbors: k of kNN.
        knn_temperature: T of its weights exp(cosine / T).
        knn_components: Principal components that it compares; None compares z itself.
        linear_penalty: Of the linear probe on all labels; None chooses it on a held-out part of train.
        few_labels: Amounts of further probes, see `few_label_probes`.
        seed: Of everything drawn: splits, starts of k-means, permutations.
        device: Where linear probe and kNN compute.
        progress: Called with the name of what begins.

    Returns:
        With labels: ``top1_linear``, ``top5_linear`` (more than ten classes), ``top1_knn``, and ``numbers_read``, the
        width of what these read;
        ``nmi_codes``, ``ami_codes``, ``ari_codes``, ``chance_nmi_codes`` where codes exist; and
        ``nmi_kmeans_z``, ``ami_kmeans_z``, ``ari_kmeans_z``, ``accuracy_kmeans_z`` (and ``_u``)
        with K clusters. Always: the measures of `collapse`, for k-means clusters too with labels;
        ``aligned_cosine`` with a dictionary.

    Raises:
        InputError: If labels or codes are missing although their number is given, or do not fit it,
            if there are fewer test samples than classes, or fewer than 10 train samples.
    """
    own = own or test
    progress("ranks and codes")
    found = collapse(own, num_codes=num_codes)
    if dictionary is not None and own.u is not None and own.code is not None:
        found["aligned_cosine"] = aligned_cosine(own.u, own.code, dictionary)
    if num_classes is None:
        return found
    _, label_N = check_labeled_pair(train, test, num_classes=num_classes)
    found["numbers_read"] = float(train.z.shape[1])
    progress(f"linear probe on {len(probe or train)} rows of {train.z.shape[1]} numbers")
    found |= linear_probe(
        probe or train,
        test,
        num_classes=num_classes,
        penalty=linear_penalty,
        seed=seed,
        device=device,
    )
    if few_labels:
        progress("linear probes on few labels")
    found |= few_label_probes(
        train, test, num_classes=num_classes, amounts=few_labels, seed=seed, device=device
    )
    progress("kNN")
    found |= knn(
        train,
        test,
        num_classes=num_classes,
        k=knn_neighbors,
        temperature=knn_temperature,
        components=knn_components,
        device=device,
    )
    progress("k-means")
    if own.code is not None:
        found |= code_agreement(own.code, label_N, seed=seed)
    for name, x in (("z", own.z), ("u", own.u)):
        if x is not None:
            cluster_N = kmeans_clusters(x, num_clusters=num_classes, seed=seed)
            agreement = cluster_agreement(cluster_N, label_N, num_classes=num_classes)
            found |= {f"{key}_kmeans_{name}": value for key, value in agreement.items()}
            found |= cluster_spread(x, cluster_N, name=f"kmeans_{name}")
    return found
