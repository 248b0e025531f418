"""An independent witness: the losses of lightly (MIT), where it has them. Without lightly these tests fail, not skip.

GEDI and Self-Classifier have none; their formulas are written out in their own tests.
"""

from __future__ import annotations

import warnings
from types import ModuleType

import pytest
import torch
from torch.nn.functional import normalize

from falcon_ssl.losses import (
    barlow_twins_loss,
    byol_loss,
    dino_loss,
    lejepa_loss,
    random_directions,
    simclr_loss,
    swav_loss,
    updated_center,
    vicreg_loss,
)
from falcon_ssl.networks.timm import import_beside_torchvision
from support.compared import WIDTH, views
from support.tolerances import relative_error

CLOSE = 1e-8  # float64; a mistake in a formula shows in the first digits


@pytest.fixture(scope="module")
def lightly() -> ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the packages that it imports
        return import_beside_torchvision("lightly.loss")


def test_barlow_twins(lightly: ModuleType) -> None:
    a, b = views(2)
    theirs = lightly.BarlowTwinsLoss(lambda_param=0.02)(a, b)
    assert relative_error(barlow_twins_loss(a, b, redundancy_weight=0.02).total, theirs) < CLOSE


def test_vicreg(lightly: ModuleType) -> None:
    a, b = (0.3 * view for view in views(2))
    theirs = lightly.VICRegLoss(lambda_param=20, mu_param=30, nu_param=2)(a, b)
    # As the authors' code, it halves the variance term of the paper's equation 6.
    ours = vicreg_loss(
        a, b, invariance_weight=20, variance_weight=15, covariance_weight=2, eps=1e-4
    )
    assert float(ours.variance) > 0.1
    assert relative_error(ours.total, theirs) < CLOSE


@pytest.mark.parametrize("num_views", [2, 5])
@pytest.mark.parametrize("with_queue", [False, True])
def test_swav(lightly: ModuleType, num_views: int, with_queue: bool) -> None:
    scores = [view.tanh() for view in views(num_views)]
    queues = [view.tanh() for view in views(2, rows=7, seed=1)] if with_queue else None
    witness = lightly.SwaVLoss(temperature=0.2, sinkhorn_iterations=4, sinkhorn_epsilon=0.1)
    theirs = witness(scores[:2], scores[2:], queues)
    ours = swav_loss(
        scores, queued_scores=queues, temperature=0.2, sinkhorn_eps=0.1, sinkhorn_steps=4
    )
    assert relative_error(ours.total, theirs) < CLOSE


@pytest.mark.parametrize("num_views", [2, 5])
def test_dino(lightly: ModuleType, num_views: int) -> None:
    witness = lightly.DINOLoss(
        output_dim=WIDTH, student_temp=0.2, teacher_temp=0.07, center_momentum=0.8
    ).double()
    center = torch.zeros(WIDTH, dtype=torch.float64)
    for seed in range(3):  # the center of one batch enters the next
        student, teacher = views(num_views, seed=seed), views(2, seed=10 + seed)
        theirs = witness(teacher, student, teacher_temp=0.07)
        ours = dino_loss(
            student, teacher, center, student_temperature=0.2, teacher_temperature=0.07
        )
        center = updated_center(center, teacher, momentum=0.8)
        assert relative_error(ours.total, theirs) < CLOSE


@pytest.mark.parametrize("num_views", [3, 5])  # it wants a small view
@pytest.mark.parametrize(("width", "regularization"), [(1, 0.2), (WIDTH, 0.0)])
def test_lejepa(lightly: ModuleType, num_views: int, width: int, regularization: float) -> None:
    """Each draws its own directions: one feature has but one, up to a sign that makes no difference."""
    z = [1.5 * view + 0.2 for view in views(num_views, rows=40, width=width)]
    witness = lightly.LeJEPALoss(
        lambda_param=regularization, sigreg_knots=9, sigreg_t_max=5.0, sigreg_num_vectors=3
    ).double()
    theirs = witness(local_proj=torch.stack(z)[2:], global_proj=torch.stack(z[:2]))
    directions = random_directions(3, width, seed=0)
    ours = lejepa_loss(z, directions, regularization=regularization, num_points=9)
    # Its points and weights are rounded to float32, and the statistic grows with N.
    assert relative_error(ours.total, theirs) < 1e-6


def test_simclr(lightly: ModuleType) -> None:
    a, b = (normalize(view, dim=1) for view in views(2))
    theirs = lightly.NTXentLoss(temperature=0.2)(a, b)
    assert relative_error(simclr_loss(a, b, temperature=0.2).total, theirs) < CLOSE


def test_byol(lightly: ModuleType) -> None:
    p1, p2, z1, z2 = views(4)
    cosine = lightly.NegativeCosineSimilarity()
    theirs = 4 + 2 * cosine(p1, z2) + 2 * cosine(p2, z1)
    assert relative_error(byol_loss(p1, p2, z1, z2).total, theirs) < CLOSE
