"""What every evaluator with labels asks of its features, with one error text each."""

from __future__ import annotations

from torch import Tensor

from falcon_ssl.core.checks import check_at_least
from falcon_ssl.core.errors import InputError
from falcon_ssl.evaluation.features import Features


def check_labeled(name: str, features: Features, *, num_classes: int) -> Tensor:
    """The labels [N] of ``features``.

    Raises:
        InputError: If there are no labels, or one is not below ``num_classes``.
    """
    check_at_least("num_classes", num_classes, 2)
    if features.label is None:
        raise InputError(
            f"{name} features have no labels",
            received="label=None",
            expected="int64 [N]",
            fix="use labeled data, or the label-free measures of collapse",
        )
    largest = int(features.label.max())
    if largest >= num_classes:
        expected = f"0 to num_classes - 1 = {num_classes - 1}"
        raise InputError(f"a {name} label is too large", received=largest, expected=expected)
    return features.label


def check_labeled_pair(
    train: Features, test: Features, *, num_classes: int, least: int = 1
) -> tuple[Tensor, Tensor]:
    """The labels of train and test.

    Raises:
        InputError: If labels are missing or too large, the widths of z differ, or train has fewer
            than ``least`` rows.
    """
    check_at_least("number of train features", len(train), least, fix="pass more labeled images")
    if train.z.shape[1] != test.z.shape[1]:
        widths = f"{train.z.shape[1]} and {test.z.shape[1]}"
        raise InputError("train and test differ in width", received=widths, expected="the same D")
    return (
        check_labeled("train", train, num_classes=num_classes),
        check_labeled("test", test, num_classes=num_classes),
    )
