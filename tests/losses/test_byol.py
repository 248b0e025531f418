"""BYOL against equation 2 of the paper, written out in float64 loops."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from falcon_ssl.losses import byol_loss
from support.compared import views
from support.tolerances import EXACT, relative_error


def by_loops(p: Tensor, p_: Tensor, z: Tensor, z_: Tensor) -> tuple[float, float]:
    """2 - 2 <q, z'> / (|q| |z'|), both ways, the mean over samples; 1 - |mean of all unit targets|^2."""
    N, F = p.shape

    def unit(x: Tensor) -> list[float]:
        norm = math.sqrt(sum(float(v) ** 2 for v in x))
        return [float(v) / norm for v in x]

    total, mean = 0.0, [0.0] * F
    for i in range(N):
        for q, target in ((p[i], z_[i]), (p_[i], z[i])):
            a, b = unit(q), unit(target)
            total += (2 - 2 * sum(a[f] * b[f] for f in range(F))) / N
            mean = [mean[f] + b[f] / (2 * N) for f in range(F)]
    return total, 1 - sum(v * v for v in mean)


def test_the_formula_of_the_paper() -> None:
    inputs = views(4)
    expected = torch.tensor(by_loops(*inputs), dtype=torch.float64)
    assert relative_error(torch.stack(byol_loss(*inputs)), expected) < EXACT


def test_targets_carry_no_gradient() -> None:
    inputs = [view.requires_grad_() for view in views(4)]
    found = torch.autograd.grad(byol_loss(*inputs).total, inputs, allow_unused=True)
    assert [gradient is None for gradient in found] == [False, False, True, True]


def test_the_length_of_predictions_and_targets_does_not_matter() -> None:
    p1, p2, z1, z2 = views(4)
    plain = torch.stack(byol_loss(p1, p2, z1, z2))
    assert relative_error(torch.stack(byol_loss(3 * p1, p2, 0.1 * z1, z2)), plain) < EXACT
    assert relative_error(byol_loss(-p1, p2, z1, z2).total, plain[0]) > 0.01


def test_a_collapsed_network_has_the_least_loss_and_no_spread() -> None:
    """Which is why the alarms look at the embeddings: the loss alone cannot tell."""
    u = torch.randn(1, 6, generator=torch.Generator().manual_seed(0)).expand(8, 6)
    terms = byol_loss(u, u, u, u)
    assert float(terms.total) == pytest.approx(0.0, abs=1e-6)
    assert float(terms.spread) == pytest.approx(0.0, abs=1e-6)
    right = torch.randn(8, 6, generator=torch.Generator().manual_seed(1))
    healthy = byol_loss(right, right, right, right)
    assert float(healthy.total) == pytest.approx(0.0, abs=1e-6)
    assert float(healthy.spread) > 0.5
