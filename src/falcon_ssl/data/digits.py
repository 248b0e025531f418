"""scikit-learn's 1797 real handwritten digits: the embedded default, no download."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch

from falcon_ssl.core.checks import check_choice
from falcon_ssl.core.extras import train_extra
from falcon_ssl.data.source import TensorSource

_TEST_FRACTION = 0.2
_SPLIT_SEED = 0  # fixed: the split belongs to the data set, not to a run


class DigitsSource(TensorSource):
    """One part of the digits: 8x8 grayscale, ten classes, split 80/20 within every class.

    The split is always the same, whatever the seed of a run, so figures of different runs compare.

    Args:
        split: "train" (1437 images) or "test" (360 images).

    Example:
        >>> source = DigitsSource("test")
        >>> len(source), source.image_shape
        (360, (1, 8, 8))
    """

    def __init__(self, split: Literal["train", "test"]) -> None:
        with train_extra("the data set digits"):
            from sklearn.datasets import load_digits
            from sklearn.model_selection import train_test_split

        check_choice("split", split, ("train", "test"))
        pixels, labels = load_digits(return_X_y=True)  # pixels 0..16
        rows = np.arange(len(labels))
        train_rows, test_rows = train_test_split(
            rows, test_size=_TEST_FRACTION, stratify=labels, random_state=_SPLIT_SEED
        )
        kept = np.sort(train_rows if split == "train" else test_rows)
        images = torch.from_numpy(pixels[kept] / 16).reshape(-1, 1, 8, 8)
        super().__init__(
            images,
            labels=torch.from_numpy(labels[kept]),
            name=f"digits {split} (scikit-learn, {len(kept)} images of 8x8)",
            class_names=[str(digit) for digit in range(10)],
        )
