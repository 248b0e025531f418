"""Weighted k-nearest-neighbor classifier: the quality of z without anything being trained."""

from __future__ import annotations

import torch
from torch.nn.functional import normalize

from falcon_ssl.core.checks import check_at_least
from falcon_ssl.evaluation.components import whitened
from falcon_ssl.evaluation.features import Features
from falcon_ssl.evaluation.labels import check_labeled_pair


def knn(
    train: Features,
    test: Features,
    *,
    num_classes: int,
    k: int = 20,
    temperature: float = 0.07,
    components: int | None = None,
    block_size: int = 256,
    device: torch.device | str = "cpu",
) -> dict[str, float]:
    """Accuracy of the weighted vote of the k most similar train images (Wu et al., 2018).

        votes_ic = sum over m of label c of exp(cos(i, m) / T),   m among the k of largest cos(i, m)

    Args:
        train: Labeled features: the memory, M rows.
        test: Labeled features of the same width.
        num_classes: K.
        k: Voters, at most all of train.
        temperature: T of the weights, > 0.
        components: Compare so many leading principal components of standardized train, each divided by its standard
            deviation, instead of z: wide features have few directions of most variance, which would decide alone.
        block_size: Test rows at a time.
        device: Where to compute.

    Returns:
        ``top1_knn`` in [0, 1].

    Raises:
        InputError: If labels are missing or beyond ``num_classes``, the widths differ, ``k`` < 1 or
            ``temperature`` is not positive.

    Memory:
        O(block_size * M).

    Example:
        >>> train = Features(z=torch.eye(2), label=torch.tensor([0, 1]))
        >>> knn(train, Features(z=torch.tensor([[2.0, 0.5]]), label=torch.tensor([0])), num_classes=2)
        {'top1_knn': 1.0}
    """
    train_label, test_label = check_labeled_pair(train, test, num_classes=num_classes)
    check_at_least("k", k, 1, fix="20 is usual")
    check_at_least("temperature", temperature, 1e-6, fix="0.07 is usual")
    k = min(k, len(train))
    memory_MD, query_ND = train.z.to(device), test.z
    if components is not None:
        check_at_least("components", components, 1, fix="1024 are usual for wide features")
        memory_MD, query_ND = whitened(train.z, test.z, components, device=device)
    memory_DM, label_M = normalize(memory_MD, dim=1).T, train_label.to(device)
    predicted = []
    for query_BD in torch.split(query_ND, block_size):
        cosine_Bk, index_Bk = (normalize(query_BD.to(device), dim=1) @ memory_DM).topk(k, dim=1)
        # Minus the largest cosine: the same winner, and exp cannot overflow at a small T.
        weight_Bk = ((cosine_Bk - cosine_Bk[:, :1]) / temperature).exp()
        votes_BK = weight_Bk.new_zeros(len(query_BD), num_classes)
        votes_BK.scatter_add_(1, label_M[index_Bk], weight_Bk)
        predicted.append(votes_BK.argmax(dim=1).cpu())
    return {"top1_knn": float((torch.cat(predicted) == test_label).double().mean())}
