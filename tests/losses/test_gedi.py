"""GEDI against the formulas of the paper, written out in float64 loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from falcon_ssl.losses import energy, energy_loss, gedi_loss
from support.compared import views
from support.tolerances import EXACT, relative_error


def by_loops(a: np.ndarray, b: np.ndarray, T: float, beta: float) -> list[float]:
    N, C = a.shape

    def softmax(s: np.ndarray) -> np.ndarray:
        return np.array(
            [[math.exp(x / T) / sum(math.exp(y / T) for y in row) for x in row] for row in s]
        )

    invariance = prior = entropy = 0.0
    for p, other in ((softmax(a), softmax(b)), (softmax(b), softmax(a))):
        for i in range(N):
            for j in range(C):
                invariance -= p[i, j] * math.log(other[i, j]) / N / 2
                entropy -= p[i, j] * math.log(p[i, j]) / N / 2
        for j in range(C):
            prior -= math.log(sum(p[i, j] for i in range(N)) / N) / C / 2
    return [beta * invariance + prior, invariance, prior, entropy, invariance - entropy]


@pytest.mark.parametrize("beta", [0.1, 3.0])
def test_the_formula_of_the_paper(beta: float) -> None:
    a, b = views(2)
    terms = gedi_loss([a, b], temperature=0.3, beta=beta)
    expected = torch.tensor(by_loops(a.numpy(), b.numpy(), 0.3, beta), dtype=torch.float64)
    assert relative_error(torch.stack(terms), expected) < EXACT


def test_the_energy_is_that_of_a_classifier() -> None:
    a = views(1)[0]
    expected = [-math.log(sum(math.exp(float(s) / 0.5) for s in row)) for row in a]
    assert (
        relative_error(energy(a, temperature=0.5), torch.tensor(expected, dtype=torch.float64))
        < EXACT
    )


def test_the_energy_term_is_the_gradient_of_the_likelihood() -> None:
    """p(x) = exp(-E(x)) / Z on three states: with exact samples, the gradients of both are equal."""
    E = torch.tensor([0.3, -0.5, 1.1], dtype=torch.float64, requires_grad=True)
    data = torch.tensor([0, 0, 1, 2, 1])
    nll = (E[data] + (-E).logsumexp(0)).mean()
    # Every state as often as the model draws it: weights instead of samples.
    weights = (-E).softmax(0).detach()
    exact = E[data].mean() - (weights * E).sum()
    expected = torch.autograd.grad(nll, E)[0]
    assert relative_error(torch.autograd.grad(exact, E)[0], expected) < EXACT
    # ... and energy_loss is that with samples for weights.
    drawn = torch.multinomial(weights, 200_000, True, generator=torch.Generator().manual_seed(0))
    sampled = torch.autograd.grad(energy_loss(E[data], E[drawn]), E)[0]
    assert relative_error(sampled, expected) < 0.02


def test_many_views_are_averaged_over_pairs() -> None:
    v = views(4)
    terms = gedi_loss(v, num_targets=2, temperature=0.3)
    pairs = [
        gedi_loss([v[o], v[other]], num_targets=1, temperature=0.3)
        for o in range(2)
        for other in range(4)
        if other != o
    ]
    for found, expected in zip(terms, zip(*pairs, strict=True), strict=True):
        torch.testing.assert_close(found, torch.stack(expected).mean(), rtol=1e-12, atol=1e-12)
