"""VICReg against equations 1 to 6 of the paper, written out in float64 loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from falcon_ssl.losses import vicreg_loss
from support.compared import views
from support.tolerances import EXACT, relative_error


def by_loops(
    z: np.ndarray, other: np.ndarray, *, lam: float, mu: float, nu: float, gamma: float, eps: float
) -> tuple[float, float, float, float]:
    n, d = z.shape
    s = sum((z[i, j] - other[i, j]) ** 2 for i in range(n) for j in range(d)) / (n * d)

    def v(x: np.ndarray) -> float:
        total = 0.0
        for j in range(d):
            mean = sum(x[i, j] for i in range(n)) / n
            var = sum((x[i, j] - mean) ** 2 for i in range(n)) / (n - 1)
            total += max(0.0, gamma - math.sqrt(var + eps))
        return total / d

    def c(x: np.ndarray) -> float:
        mean = [sum(x[i, j] for i in range(n)) / n for j in range(d)]
        total = 0.0
        for j in range(d):
            for k in range(d):
                if j != k:
                    cov = sum((x[i, j] - mean[j]) * (x[i, k] - mean[k]) for i in range(n))
                    total += (cov / (n - 1)) ** 2
        return total / d

    var, cov = v(z) + v(other), c(z) + c(other)
    return lam * s + mu * var + nu * cov, s, var, cov


@pytest.mark.parametrize("gamma", [1.0, 1.6])
def test_the_formula_of_the_paper(gamma: float) -> None:
    a, b = views(2)
    expected = by_loops(a.numpy(), b.numpy(), lam=25, mu=20, nu=3, gamma=gamma, eps=1e-4)
    assert expected[2] > 0
    terms = vicreg_loss(a, b, variance_weight=20, covariance_weight=3, target_std=gamma, eps=1e-4)
    assert relative_error(torch.stack(terms), torch.tensor(expected, dtype=torch.float64)) < EXACT


def test_wide_features_are_not_penalized() -> None:
    a, b = views(2)
    assert float(vicreg_loss(100 * a, 100 * b).variance) == 0.0


def test_the_gradient_at_total_collapse_is_zero_but_for_noise() -> None:
    """Equal rows are a stationary point, the reason why an alarm is needed: sqrt(var + eps) is flat at var = 0."""
    rows = torch.ones(8, 6, requires_grad=True)
    terms = vicreg_loss(rows, rows)
    assert float(terms.variance) == pytest.approx(2 * (1 - 0.01), abs=1e-6)
    assert float(torch.autograd.grad(terms.total, rows)[0].abs().max()) == 0.0
