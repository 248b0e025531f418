"""Barlow Twins against equation 1 of the paper, written out in float64 loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from falcon_ssl.losses import barlow_twins_loss
from support.compared import views
from support.tolerances import EXACT, relative_error


def by_loops(za: np.ndarray, zb: np.ndarray, lam: float) -> tuple[float, float, float]:
    """C_ij = sum_b zA_bi zB_bj / (sqrt(sum_b zA_bi^2) sqrt(sum_b zB_bj^2)), z of mean zero over the batch."""
    N, F = za.shape
    za = za - za.mean(axis=0)
    zb = zb - zb.mean(axis=0)
    on = off = 0.0
    for i in range(F):
        for j in range(F):
            top = sum(za[n, i] * zb[n, j] for n in range(N))
            bottom = math.sqrt(sum(za[n, i] ** 2 for n in range(N))) * math.sqrt(
                sum(zb[n, j] ** 2 for n in range(N))
            )
            if i == j:
                on += (1 - top / bottom) ** 2
            else:
                off += (top / bottom) ** 2
    return on + lam * off, on, off


@pytest.mark.parametrize("lam", [0.0, 5e-3, 2.0])
def test_the_formula_of_the_paper(lam: float) -> None:
    a, b = views(2)
    terms = barlow_twins_loss(a, b, redundancy_weight=lam, eps=1e-300)
    expected = torch.tensor(by_loops(a.numpy(), b.numpy(), lam), dtype=torch.float64)
    assert relative_error(torch.stack(terms), expected) < EXACT


def test_scale_does_not_matter() -> None:
    a, b = views(2)
    plain = barlow_twins_loss(a, b, eps=1e-300).total
    assert relative_error(barlow_twins_loss(7 * a, 0.1 * b, eps=1e-300).total, plain) < EXACT


def test_zero_for_equal_views_without_redundancy() -> None:
    """Columns of an orthogonal design of mean zero: correlation is the identity."""
    signs = torch.tensor([[1, 1], [1, -1], [-1, 1], [-1, -1]], dtype=torch.float64)
    assert float(barlow_twins_loss(signs, signs, eps=1e-300).total) < 1e-25


def test_a_collapsed_network_pays_one_a_feature() -> None:
    rows = torch.ones(8, 6)
    terms = barlow_twins_loss(rows, rows)
    assert float(terms.total) == float(terms.invariance) == 6.0
