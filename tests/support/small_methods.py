"""A small encoder and views of 8x8 images, for tests of single methods."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from falcon_ssl.methods import Parts


def parts() -> Parts:
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16))
    return Parts(encoder, 16, (1, 8, 8))


def views(seed: int = 0, rows: int = 8) -> list[Tensor]:
    return list(torch.randn(2, rows, 1, 8, 8, generator=torch.Generator().manual_seed(seed)))
