"""Probes that see few labels: which images they see, and that more labels read more."""

from __future__ import annotations

import pytest
import torch

from falcon_ssl.config import EvaluationConfig
from falcon_ssl.core.errors import InputError
from falcon_ssl.data import DigitsSource
from falcon_ssl.evaluation import Features
from falcon_ssl.evaluation.few_labels import drawn_rows, few_label_probes
from falcon_ssl.evaluation.linear_probe import linear_probe
from falcon_ssl.records.metrics import ACCURACY, describe


def pixels(split: str) -> Features:
    source = DigitsSource(split)
    return Features(z=source.tensor.flatten(1).float() / 255, label=source.labels)


def test_every_class_keeps_its_share() -> None:
    label = torch.tensor([0] * 200 + [1] * 50 + [2] * 3)
    assert label[drawn_rows(label, 0.1, seed=0)].bincount().tolist() == [20, 5, 1]
    assert label[drawn_rows(label, 4, seed=0)].bincount().tolist() == [4, 4, 3]
    draws = [drawn_rows(label, 0.1, seed=seed).tolist() for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]


def test_more_labels_read_more_and_vary_less() -> None:
    found = few_label_probes(
        pixels("train"), pixels("test"), num_classes=10, amounts=(1, 5, 0.1), draws=3
    )
    assert found.keys() == {
        *(
            f"top1_linear_{name}{spread}"
            for name in ("1shot", "5shot", "10pct")
            for spread in ("", "_std")
        )
    }
    one, five, tenth = (found[f"top1_linear_{name}"] for name in ("1shot", "5shot", "10pct"))
    assert 0.3 < one < five - 0.1
    assert five < tenth < 0.97
    assert 0 < found["top1_linear_10pct_std"] < found["top1_linear_1shot_std"] + 0.02


def test_only_the_drawn_labels_are_read() -> None:
    """A probe of these images alone is the same."""
    train, test = pixels("train"), pixels("test")
    rows = drawn_rows(train.label, 0.05, seed=0)
    some = Features(z=train.z[rows], label=train.label[rows])
    found = few_label_probes(train, test, num_classes=10, amounts=(0.05,), draws=1)
    assert found["top1_linear_5pct"] == linear_probe(some, test, num_classes=10)["top1_linear"]


def test_too_few_images_are_left_out_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    two = Features(z=torch.randn(40, 3), label=torch.arange(40) % 2)
    assert few_label_probes(two, two, num_classes=2, amounts=(1,)) == {}
    assert "few labels: 1 leaves 2 images, left out" in caplog.text


@pytest.mark.parametrize("amount", [0.0, -1.0, 2.5, float("inf")])
def test_amounts_that_are_none(amount: float) -> None:
    with pytest.raises(InputError, match="unknown amount"):
        EvaluationConfig(few_labels=(amount,))
    with pytest.raises(InputError, match="unknown amount in labels"):
        drawn_rows(torch.tensor([0, 1]), amount, seed=0)


def test_their_names_are_described() -> None:
    one = describe("top1_linear_1pct")
    assert (one.label, one.group) == ("linear probe, 1\u202f% of the labels", ACCURACY)
    assert describe("top1_linear_5shot").label == "linear probe, 5 labels a class"
    assert "standard deviation" in describe("top1_linear_5shot_std").meaning
