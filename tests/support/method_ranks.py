"""What every process of the rank tests of the methods runs: three steps of training."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from falcon_ssl.config import (
    BarlowTwinsConfig,
    BYOLConfig,
    DINOConfig,
    GEDIConfig,
    LeJEPAConfig,
    SelfClassifierConfig,
    SimCLRConfig,
    SwAVConfig,
    VICRegConfig,
)
from falcon_ssl.methods import (
    BYOL,
    DINO,
    GEDI,
    BarlowTwins,
    LeJEPA,
    Method,
    Parts,
    SelfClassifier,
    SimCLR,
    SwAV,
    VICReg,
)
from falcon_ssl.networks.batchnorm import use_global_batch_norm

ROWS, STEPS = 12, 3
BOUNDS = [0, 5, 12]  # unequal shares of two ranks


def methods() -> dict[str, Any]:
    """Name -> how to build it around an encoder; small, with everything that has a state."""
    gedi = GEDIConfig(12, 10, generative=True, sgld_steps=2, buffer_size=20)
    return {
        "barlow_twins": lambda parts: BarlowTwins(parts, BarlowTwinsConfig(12, 8)),
        "vicreg": lambda parts: VICReg(parts, VICRegConfig(12, 8)),
        "swav": lambda parts: SwAV(parts, SwAVConfig(12, 6, 10, queue_length=19)),
        "swav with crops": lambda parts: SwAV(
            parts, SwAVConfig(12, 6, 10, queue_length=19, prototypes_frozen=0.5)
        ),
        "dino with crops": lambda parts: DINO(
            parts, DINOConfig(12, 6, 10, teacher_momentum=0.5, prototypes_frozen=0.5)
        ),
        "dino": lambda parts: DINO(parts, DINOConfig(12, 6, 10, teacher_momentum=0.5)),
        "self_classifier": lambda parts: SelfClassifier(
            parts, SelfClassifierConfig(12, 6, (10, 4))
        ),
        "gedi": lambda parts: GEDI(parts, gedi),
        "lejepa": lambda parts: LeJEPA(parts, LeJEPAConfig(12, 6, num_directions=7)),
        "simclr": lambda parts: SimCLR(parts, SimCLRConfig(12, 6)),
        "byol": lambda parts: BYOL(parts, BYOLConfig(12, 6, target_momentum=0.5)),
    }


def built(name: str) -> Method:
    torch.manual_seed(0)
    encoder = nn.Sequential(
        nn.AdaptiveAvgPool2d(4),  # crops of any size
        *(nn.Flatten(), nn.Linear(16, 12), nn.BatchNorm1d(12), nn.Tanh()),
    )
    method: Method = methods()[name](Parts(encoder, 12, (1, 4, 4)))
    use_global_batch_norm(method)
    return method.double()


def state_after_training(name: str, rows: slice, *, parallel: bool) -> dict[str, Tensor]:
    """All parameters and buffers, and the loss of the last step."""
    method = built(name)
    model = DistributedDataParallel(method) if parallel else method
    trained = [parameter for parameter in method.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.05)
    for step in range(STEPS):
        generator = torch.Generator().manual_seed(step)
        views = [*torch.randn(2, ROWS, 1, 4, 4, generator=generator, dtype=torch.float64)]
        if "crops" in name:
            views += [*torch.randn(3, ROWS, 1, 2, 2, generator=generator, dtype=torch.float64)]
        method.before_step(step, STEPS)
        optimizer.zero_grad()
        out = model([view[rows] for view in views])
        out.loss.backward()
        method.after_backward(step, STEPS)
        optimizer.step()
        method.after_step(step, STEPS)
    return {**method.state_dict(), "loss": out.terms["total"]}


def work(rank: int, num_ranks: int) -> dict[str, dict[str, Tensor]]:
    """The states of all methods after training on this rank's rows."""
    rows = slice(BOUNDS[rank], BOUNDS[rank + 1])
    return {name: state_after_training(name, rows, parallel=True) for name in methods()}
