"""Weighted k-nearest-neighbor classifier: the quality of z without anything being trained."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from falcon_ssl.core.checks import check_at_least
from falcon_ssl.evaluation.features import Features
from falcon_ssl.evaluation.labels import check_labeled_pair


def knn(
    train: Features,
    test: Features,
    *,
    num_classes: int,
    k: int = 20,
    temperature: float = 0.07,
    device: torch.device | str = "cpu",
) -> dict[str, float]:
    """Accuracy of the weighted vote of the k most similar train images.

    Args:
        train: Labeled features: the memory.
        test: Labeled features of the same width.
        num_classes: K.
        k: Voters, at most all of train.
        temperature: Of the weights, > 0.
        device: Where to compute.

    Returns:
        ``top1_knn`` in [0, 1].

    Raises:
        InputError: If labels are missing or beyond ``num_classes``, the widths differ, ``k`` < 1 or
            ``temperature`` <= 0.
    """
    train_label, test_label = check_labeled_pair(train, test, num_classes=num_classes)
    predicted_N = knn_predict(
        train.z.to(device),
        train_label.to(device),
        test.z.to(device),
        num_classes=num_classes,
        k=k,
        temperature=temperature,
    )
    return {"top1_knn": float((predicted_N.cpu() == test_label).double().mean())}


def knn_predict(
    memory_MD: Tensor,
    label_M: Tensor,
    query_ND: Tensor,
    *,
    num_classes: int,
    k: int = 20,
    temperature: float = 0.07,
    block_size: int = 256,
) -> Tensor:
    """Class of each query by weighted cosine kNN (Wu et al., 2018).

        votes_ic = sum over m of label c of exp(cos(i, m) / T),   m among the k of largest cos(i, m)

    Args:
        memory_MD: Labeled rows [M, D], floating.
        label_M: Their classes [M], int64.
        query_ND: Rows to classify [N, D].
        num_classes: K.
        k: Voters, at most M.
        temperature: T > 0.
        block_size: Queries at a time.

    Returns:
        int64 [N].

    Raises:
        InputError: If ``k`` < 1 or ``temperature`` is not positive.

    Memory:
        O(block_size * M).

    Example:
        >>> memory = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> knn_predict(memory, torch.tensor([0, 1]), torch.tensor([[2.0, 0.5]]), num_classes=2)
        tensor([0])
    """
    check_at_least("k", k, 1, fix="20 is usual")
    check_at_least("temperature", temperature, 1e-6, fix="0.07 is usual")
    k = min(k, len(memory_MD))
    memory_DM = normalize(memory_MD, dim=1).T
    predicted = []
    for query_BD in torch.split(query_ND, block_size):
        cosine_Bk, index_Bk = (normalize(query_BD, dim=1) @ memory_DM).topk(k, dim=1)
        # Minus the largest cosine: the same winner, and exp cannot overflow at a small T.
        weight_Bk = ((cosine_Bk - cosine_Bk[:, :1]) / temperature).exp()
        votes_BK = weight_Bk.new_zeros(len(query_BD), num_classes)
        votes_BK.scatter_add_(1, label_M[index_Bk], weight_Bk)
        predicted.append(votes_BK.argmax(dim=1))
    return torch.cat(predicted)
