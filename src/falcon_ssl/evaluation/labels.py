"""What every evaluator with labels asks of its features, with one error text each."""

from __future__ import annotations

from torch import Tensor

from falcon_ssl.core.checks import check_at_least
from falcon_ssl.core.errors import InputError
from falcon_ssl.evaluation.features import Features


def check_labeled_pair(
    train: Features, test: Features, *, num_classes: int, least: int = 1
) -> tuple[Tensor, Tensor]:
    """The labels [N] of train and test.

    Raises:
        InputError: If there are no labels, one is not below ``num_classes``, the widths of z differ,
            or train has fewer than ``least`` rows.
    """
    check_at_least("num_classes", num_classes, 2)
    check_at_least("number of train features", len(train), least, fix="pass more labeled images")
    if train.z.shape[1] != test.z.shape[1]:
        widths = f"{train.z.shape[1]} and {test.z.shape[1]}"
        raise InputError("train and test differ in width", received=widths, expected="the same D")
    labels = []
    for name, features in (("train", train), ("test", test)):
        if features.label is None:
            raise InputError(
                f"{name} features have no labels",
                received="label=None",
                expected="int64 [N]",
                fix="use labeled data, or the label-free measures of collapse",
            )
        largest, expected = (
            int(features.label.max()),
            f"at most num_classes - 1 = {num_classes - 1}",
        )
        if largest >= num_classes:
            raise InputError(f"a {name} label is too large", received=largest, expected=expected)
        labels.append(features.label)
    return labels[0], labels[1]
