"""LeJEPA against the definitions of the paper, in float64 loops and by numerical integration."""

from __future__ import annotations

import cmath
import math

import numpy as np
import pytest
import torch

from falcon_ssl import InputError
from falcon_ssl.losses import lejepa_loss, random_directions, sigreg_loss
from falcon_ssl.losses.lejepa import collapsed_sigreg
from support.compared import WIDTH, views
from support.tolerances import EXACT, relative_error


def epps_pulley(x: np.ndarray, points: int) -> float:
    """N int |phi^(t) - exp(-t^2/2)|^2 exp(-t^2/2) dt over [-5, 5], trapezoids, in complex arithmetic."""
    t = np.linspace(-5, 5, points)
    y = [
        abs(sum(cmath.exp(1j * u * a) for a in x) / len(x) - math.exp(-u * u / 2)) ** 2
        * math.exp(-u * u / 2)
        for u in t
    ]
    return len(x) * sum((y[k] + y[k + 1]) / 2 * (t[k + 1] - t[k]) for k in range(points - 1))


@pytest.mark.parametrize("num_views", [2, 4])
def test_the_definition_of_the_paper(num_views: int) -> None:
    z, directions = views(num_views), random_directions(4, WIDTH, seed=1)
    mu = (z[0] + z[1]).numpy() / 2
    prediction = float(np.mean([(v.numpy() - mu) ** 2 for v in z]))
    sigreg = float(
        np.mean([[epps_pulley(v.numpy() @ a, 17) for a in directions.double().numpy()] for v in z])
    )
    terms = lejepa_loss(z, directions, regularization=0.2)
    expected = torch.tensor(
        [0.8 * prediction + 0.2 * sigreg, prediction, sigreg], dtype=torch.float64
    )
    assert relative_error(torch.stack(terms), expected) < EXACT


def test_few_points_are_enough() -> None:
    z, directions = views(1, rows=200)[0], random_directions(8, WIDTH, seed=1)
    coarse = sigreg_loss(z, directions)
    fine = sigreg_loss(z, directions, num_points=400)
    assert relative_error(coarse, fine) < 1e-3


@pytest.mark.parametrize(
    ("limit", "num_points", "reaches"), [(5.0, 9, 4), (5.0, 17, 8), (3.0, 9, 6), (3.0, 17, 10)]
)
def test_a_coarse_step_does_not_see_wide_embeddings(limit, num_points, reaches) -> None:
    """The pull on the scale of Gaussian embeddings, against that of the integral: a step of .625 loses it at 6."""
    z = torch.erfinv(2 * (torch.arange(4000.0).double() + 0.5) / 4000 - 1)[:, None] * math.sqrt(2)
    direction = torch.ones(1, 1)

    def pull(scale: float, **grid: float) -> float:
        s = torch.tensor(scale, dtype=torch.float64, requires_grad=True)
        sigreg_loss(s * z, direction, **grid).backward()
        return float(s.grad)

    shares = {
        scale: pull(scale, limit=limit, num_points=num_points)
        / pull(scale, limit=5.0, num_points=500)
        for scale in (2, 4, 6, 8, 10)
    }
    assert all(0.7 < share < 1.25 for scale, share in shares.items() if scale <= reaches)
    if (limit, num_points) == (5.0, 9):
        assert shares[6] == pytest.approx(0.05, abs=0.01)
        assert shares[8] < 0.001


def test_grids_reach_the_loss() -> None:
    z, directions = views(2), random_directions(4, WIDTH, seed=1)
    usual = lejepa_loss(z, directions).sigreg
    assert lejepa_loss(z, directions, limit=3.0).sigreg != usual
    assert lejepa_loss(z, directions, num_points=12).sigreg != usual
    with pytest.raises(InputError, match="limit is not positive"):
        sigreg_loss(z[0], directions, limit=0.0)
    with pytest.raises(InputError, match="num_points is too small"):
        sigreg_loss(z[0], directions, num_points=1)


def test_the_statistic_of_a_gaussian_sample_is_known() -> None:
    """E[EP] = int (1 - exp(-t^2)) exp(-t^2/2) dt = sqrt(2 pi) - sqrt(2 pi / 3), whatever N."""
    z = torch.randn(500, 300, generator=torch.Generator().manual_seed(0)).double()
    directions = torch.eye(
        300
    )  # 300 independent samples; one statistic has a standard deviation of about 1
    expected = math.sqrt(2 * math.pi) - math.sqrt(2 * math.pi / 3)
    assert float(sigreg_loss(z, directions)) == pytest.approx(expected, abs=0.2)


def test_the_statistic_of_a_collapsed_network_is_known() -> None:
    """N int (1 - exp(-t^2/2))^2 exp(-t^2/2) dt = N sqrt(2 pi) (1 - sqrt(2) + 1/sqrt(3)) for zeros, which is 0.41 N."""
    zeros, directions = torch.zeros(64, WIDTH).double(), random_directions(3, WIDTH, seed=0)
    expected = 64 * math.sqrt(2 * math.pi) * (1 - math.sqrt(2) + 1 / math.sqrt(3))
    assert float(sigreg_loss(zeros, directions)) == pytest.approx(expected, rel=1e-4)
    for grid in ((5.0, 9), (3.0, 17), (2.0, 4)):
        own = sigreg_loss(zeros, directions, limit=grid[0], num_points=grid[1])
        assert 64 * collapsed_sigreg(*grid) == pytest.approx(float(own), rel=1e-12)


def test_other_distributions_stand_out() -> None:
    generator = torch.Generator().manual_seed(0)
    z, directions = torch.randn(400, 4, generator=generator), random_directions(50, 4, seed=0)
    others = {
        "wide": 2 * z,
        "narrow": 0.5 * z,
        "shifted": z + 1,
        "one direction": z[:, :1].expand(-1, 4),
        "two points": z.sign()[:, :1].expand(-1, 4) / 2,
    }
    for name, other in others.items():
        assert float(sigreg_loss(other, directions)) > 5 * float(sigreg_loss(z, directions)), name


def test_directions_are_a_function_of_the_seed() -> None:
    first = random_directions(5, 3, seed=1)
    assert torch.equal(first, random_directions(5, 3, seed=1))
    assert not torch.equal(first, random_directions(5, 3, seed=2))
    assert torch.allclose(first.norm(dim=1), torch.ones(5))
