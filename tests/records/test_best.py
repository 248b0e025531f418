"""The sentence at the end of a run and in its report."""

from __future__ import annotations

import numpy as np

from falcon_ssl.records.best import best_sentence
from falcon_ssl.records.run import Curve


def test_the_first_of_equal_epochs_is_the_best() -> None:
    x = np.array([1.0, 2.0, 3.0])
    monitors = {
        "effective_rank_z": Curve(x, np.array([5.0, 9.0, 9.0])),
        "top1_knn": Curve(x, np.array([0.5, 0.7, 0.8])),
        "rankme_best_epoch": Curve(x, x),
    }
    assert best_sentence(monitors) == (
        "best of 3 epochs probed: epoch 2 by RankMe (9.0), epoch 3 by kNN (0.800)"
    )
    del monitors["top1_knn"]
    assert best_sentence(monitors).endswith("epoch 2 by RankMe (9.0)")
    assert best_sentence({}) == ""
