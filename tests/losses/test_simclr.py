"""SimCLR against equation 1 of the paper, written out in float64 loops, and against lightly."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from falcon_ssl.losses import simclr_loss
from support.compared import WIDTH, views
from support.tolerances import EXACT, relative_error


def unit_views(seed: int = 0) -> list[Tensor]:
    return [normalize(view, dim=1) for view in views(2, seed=seed)]


def by_loops(a: np.ndarray, b: np.ndarray, T: float) -> tuple[float, float, float]:
    """l(i, j) = -log exp(sim(i, j) / T) / sum_{k != i} exp(sim(i, k) / T), the mean over both orders of all pairs."""
    z = [*a, *b]
    N = len(a)

    def sim(i: int, k: int) -> float:
        return float(sum(z[i][f] * z[k][f] for f in range(len(z[i]))))

    total = alignment = 0.0
    for i in range(2 * N):
        j = i + N if i < N else i - N
        bottom = sum(math.exp(sim(i, k) / T) for k in range(2 * N) if k != i)
        total += -math.log(math.exp(sim(i, j) / T) / bottom) / (2 * N)
        alignment += -sim(i, j) / T / (2 * N)
    return total, alignment, total - alignment


@pytest.mark.parametrize("T", [0.1, 0.5, 3.0])
def test_the_formula_of_the_paper(T: float) -> None:
    a, b = unit_views()
    expected = torch.tensor(by_loops(a.numpy(), b.numpy(), T), dtype=torch.float64)
    terms = torch.stack(simclr_loss(a, b, temperature=T))
    assert relative_error(terms, expected) < EXACT


def test_a_rotation_of_both_views_does_not_matter() -> None:
    generator = torch.Generator().manual_seed(4)
    rotation = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=generator).double())[0]
    a, b = unit_views()
    plain = simclr_loss(a, b).total
    assert relative_error(simclr_loss(a @ rotation, b @ rotation).total, plain) < EXACT
    assert relative_error(simclr_loss(a @ rotation, b).total, plain) > 0.01


def test_every_other_row_is_a_negative() -> None:
    """Rows of the same view, and rows of the other one: moving any changes the loss of a sample."""
    a, b = unit_views()
    gradients = torch.autograd.grad(
        simclr_loss(a.requires_grad_(), b.requires_grad_()).total, [a, b]
    )
    assert all(bool((gradient.abs().sum(dim=1) > 0).all()) for gradient in gradients)
    far = simclr_loss(a.detach()[:2], b.detach()[:2])
    more = simclr_loss(a.detach()[:3], b.detach()[:3])
    assert float(more.uniformity) > float(far.uniformity)


@pytest.mark.parametrize("T", [0.1, 0.5])
def test_a_collapsed_network_sits_at_log_of_all_others(T: float) -> None:
    u = torch.eye(5)[:1].repeat(8, 1)
    terms = simclr_loss(u, u, temperature=T)
    assert float(terms.total) == pytest.approx(math.log(15), rel=1e-5)
    assert float(terms.alignment) == pytest.approx(-1 / T)
