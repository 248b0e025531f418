"""Linear probes that see a few of the labels: what a user with little annotation can expect."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from falcon_ssl.core.checks import check_at_least, check_label_amount
from falcon_ssl.evaluation.features import Features
from falcon_ssl.evaluation.linear_probe import LEAST, linear_probe
from falcon_ssl.records.metrics import few_labels_name

logger = logging.getLogger(__name__)

DRAWS = 3  # of the labeled images, whose choice matters more the fewer there are


def few_label_probes(
    train: Features,
    test: Features,
    *,
    num_classes: int,
    amounts: Sequence[float],
    draws: int = DRAWS,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> dict[str, float]:
    """Accuracy on test of linear probes that learn from a few labeled images of train, over several draws of them.

    Every class keeps its share of the images, and at least one. The penalty is chosen among these images alone.

    Args:
        train: Labeled features to draw from.
        test: Labeled features of the same width.
        num_classes: K.
        amounts: Below 1 fractions of train, from 1 on images a class.
        draws: How many times they are drawn.
        seed: Of the draws.
        device: Where to compute.

    Returns:
        ``top1_linear_1pct`` or ``top1_linear_5shot``, the mean over draws, and its standard deviation under the same
        name with ``_std``. An amount that leaves fewer than ten images is left out, with a warning.
    """
    check_at_least("draws", draws, 1)
    assert train.label is not None
    found: dict[str, float] = {}
    for amount in amounts:
        accuracies = []
        for draw in range(draws):
            rows = drawn_rows(train.label, amount, seed=seed + draw)
            if len(rows) < LEAST:
                logger.warning(
                    "few labels: %g leaves %d images, left out: a probe needs %d",
                    amount,
                    len(rows),
                    LEAST,
                )
                break
            some = replace(
                train, z=train.z[rows], label=train.label[rows], u=None, code=None, index=None
            )
            probe = linear_probe(some, test, num_classes=num_classes, seed=seed, device=device)
            accuracies.append(probe["top1_linear"])
        else:
            name = few_labels_name(amount)
            values = torch.tensor(accuracies, dtype=torch.float64)
            found[name] = float(values.mean())
            found[f"{name}_std"] = float(values.std()) if draws > 1 else 0.0
    return found


def drawn_rows(label_N: Tensor, amount: float, *, seed: int) -> Tensor:
    """Some rows of every class, int64, ascending: a fraction below 1, or so many from 1 on.

    Raises:
        InputError: An amount that is neither.

    Example:
        >>> drawn_rows(torch.tensor([0, 0, 0, 0, 1, 1]), 0.5, seed=0).bincount().sum()
        tensor(3)
    """
    check_label_amount("labels", amount)
    generator = torch.Generator().manual_seed(seed)
    chosen = []
    for one in torch.unique(label_N):
        rows = torch.nonzero(label_N == one).flatten()
        count = int(amount) if amount >= 1 else max(1, round(amount * len(rows)))
        chosen.append(rows[torch.randperm(len(rows), generator=generator)[:count]])
    return torch.cat(chosen).sort().values
