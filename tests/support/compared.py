"""The losses that FALCON is compared with, each as one function of its views, and inputs to try them on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from falcon_ssl.losses import (
    barlow_twins_loss,
    byol_loss,
    dino_loss,
    energy,
    energy_loss,
    gedi_loss,
    lejepa_loss,
    random_directions,
    self_classifier_loss,
    simclr_loss,
    swav_loss,
    updated_center,
    vicreg_loss,
)

ROWS, WIDTH = 9, 6
Loss = Callable[[list[Tensor]], Any]


def swav_with_queue(views: list[Tensor]) -> Any:
    """The queue is a fixed function of the seed; each rank holds its share of it."""
    from falcon_ssl.core.distributed import rank, world_size

    queue = torch.randn(2, 11, WIDTH, generator=torch.Generator().manual_seed(5)).to(views[0])
    shares = [one[rank() :: world_size()] for one in queue]
    return swav_loss(views, queued_scores=shares, temperature=0.5, sinkhorn_eps=0.3)


def dino_with_center(views: list[Tensor]) -> Any:
    """The center after one batch, so that its statistics are compared too."""
    center = updated_center(torch.zeros(WIDTH).to(views[0]), views[:2], momentum=0.3)
    return dino_loss(views, views[:2], center, student_temperature=0.5, teacher_temperature=0.3)


def gedi_with_energy(views: list[Tensor]) -> Any:
    """The energy term joins the total; a share of the second view stands for the samples."""
    terms = gedi_loss(views, temperature=0.5, beta=0.7)
    data, drawn = energy(views[0], temperature=0.5), energy(views[1] * 0.3, temperature=0.5)
    return terms._replace(total=terms.total + energy_loss(data, drawn))


def byol_targets(views: list[Tensor]) -> list[Tensor]:
    """Functions of the views that differ from them, as those of a running average of the network."""
    return [view.detach().roll(1, dims=1) for view in views]


# Name -> (how many views, the loss).
LOSSES: dict[str, tuple[int, Loss]] = {
    "barlow_twins": (2, lambda v: barlow_twins_loss(*v, redundancy_weight=0.2)),
    "vicreg": (2, lambda v: vicreg_loss(*v, target_std=2.0)),
    "swav": (2, lambda v: swav_loss(v, temperature=0.5, sinkhorn_eps=0.3)),
    "swav with crops": (4, lambda v: swav_loss(v, temperature=0.5, sinkhorn_eps=0.3)),
    "swav with queue": (2, swav_with_queue),
    "dino": (2, dino_with_center),
    "dino with crops": (4, dino_with_center),
    "self_classifier": (
        2,
        lambda v: self_classifier_loss(v, row_temperature=0.5, column_temperature=0.4),
    ),
    "gedi": (2, lambda v: gedi_loss(v, temperature=0.5, beta=0.7)),
    "gedi with energy": (2, gedi_with_energy),
    "gedi with crops": (4, lambda v: gedi_loss(v, num_targets=2, temperature=0.5, beta=0.7)),
    "self_classifier with crops": (
        4,
        lambda v: self_classifier_loss(
            v, num_targets=2, row_temperature=0.5, column_temperature=0.4
        ),
    ),
    "lejepa": (
        2,
        lambda v: lejepa_loss(v, random_directions(5, WIDTH, seed=3), regularization=0.3),
    ),
    "lejepa with crops": (
        4,
        lambda v: lejepa_loss(v, random_directions(5, WIDTH, seed=3), regularization=0.3),
    ),
    "simclr": (2, lambda v: simclr_loss(*v, temperature=0.5)),
    "byol": (2, lambda v: byol_loss(*v, *byol_targets(v))),
}


def views(num: int, *, rows: int = ROWS, width: int = WIDTH, seed: int = 0) -> list[Tensor]:
    """Views that resemble each other, float64."""
    generator = torch.Generator().manual_seed(seed)
    base, *noises = torch.randn(num + 1, rows, width, generator=generator, dtype=torch.float64)
    return [base + 0.5 * noise for noise in noises]


def extremes() -> dict[str, Callable[[int], list[Tensor]]]:
    """Inputs at which a formula written down naively returns NaN or infinity."""
    rows, width = 16, WIDTH
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(4, rows, width, generator=generator)
    one_hot = torch.zeros(rows, width)
    one_hot[:, 0] = 1.0
    return {
        "all rows equal": lambda num: [torch.ones(rows, width)] * num,
        "all zero": lambda num: [torch.zeros(rows, width)] * num,
        "huge": lambda num: list(6e4 * normalize(noise[:num], dim=2)),
        "tiny": lambda num: list(1e-7 * noise[:num]),
        "one prototype dominates": lambda num: [1000 * one_hot + n for n in noise[:num]],
        "opposite certainties": lambda num: [300 * sign * one_hot for sign in (1, -1, 1, -1)[:num]],
    }
