"""Self-Classifier against the formula of the paper, written out in float64 loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from falcon_ssl.losses import self_classifier_loss
from support.compared import views
from support.tolerances import EXACT, relative_error


def one_order(s1: np.ndarray, s2: np.ndarray, row: float, column: float) -> tuple[float, float]:
    """-(1/N) sum_i sum_y  p(x2_i|y) / sum_y' p(x2_i|y')  log[ (N/C) p(y|x1_i) / sum_n p(y|x1_n) ]; target entropy."""
    N, C = s1.shape
    p_y_x1 = [[math.exp(s1[i, y] / row) for y in range(C)] for i in range(N)]
    p_y_x1 = [[p / sum(ps) for p in ps] for ps in p_y_x1]
    p_x2_y = [[math.exp(s2[i, y] / column) for y in range(C)] for i in range(N)]
    sums = [sum(p_x2_y[i][y] for i in range(N)) for y in range(C)]
    p_x2_y = [[p_x2_y[i][y] / sums[y] for y in range(C)] for i in range(N)]
    loss = entropy = 0.0
    for i in range(N):
        for y in range(C):
            target = p_x2_y[i][y] / sum(p_x2_y[i])
            balanced = (N / C) * p_y_x1[i][y] / sum(p_y_x1[n][y] for n in range(N))
            loss -= target * math.log(balanced) / N
            entropy -= target * math.log(target) / N
    return loss, entropy


@pytest.mark.parametrize(("row", "column"), [(0.5, 0.3), (0.2, 1.0)])
def test_the_formula_of_the_paper(row: float, column: float) -> None:
    a, b = views(2)
    first = one_order(a.numpy(), b.numpy(), row, column)
    second = one_order(b.numpy(), a.numpy(), row, column)
    total, entropy = (sum(pair) / 2 for pair in zip(first, second, strict=True))
    terms = self_classifier_loss([a, b], row_temperature=row, column_temperature=column)
    expected = torch.tensor([total, entropy, total - entropy], dtype=torch.float64)
    assert relative_error(torch.stack(terms), expected) < EXACT


def test_all_in_one_class_is_not_a_solution() -> None:
    """The paper's theorem: a degenerate classifier costs log C, a balanced confident one nothing."""
    one_class = torch.zeros(6, 6, dtype=torch.float64)
    one_class[:, 0] = 30
    balanced = 30 * torch.eye(6, dtype=torch.float64)
    assert float(self_classifier_loss([one_class, one_class]).total) == pytest.approx(math.log(6))
    assert float(self_classifier_loss([balanced, balanced]).total) < 1e-10


def test_many_views_are_averaged_over_pairs() -> None:
    v = views(4)
    terms = self_classifier_loss(v, num_targets=3)
    pairs = [
        self_classifier_loss([v[o], v[other]], num_targets=1)
        for o in range(3)
        for other in range(4)
        if other != o
    ]
    for found, expected in zip(terms, zip(*pairs, strict=True), strict=True):
        torch.testing.assert_close(found, torch.stack(expected).mean(), rtol=1e-12, atol=1e-12)
