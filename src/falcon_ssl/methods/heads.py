"""Heads: what the methods that FALCON is compared with put on top of the encoder."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, normalize

from falcon_ssl.methods.base import Method, represent
from falcon_ssl.networks.batchnorm import GlobalBatchNorm


def mlp(
    widths: Sequence[int],
    *,
    activation: Literal["relu", "gelu"] = "relu",
    batch_norm: bool = True,
    last_bias: bool = False,
) -> nn.Sequential:
    """Linear layers with (batch normalization and) activation between them.

    Args:
        widths: From the input to the output.
        activation: After every layer but the last.
        batch_norm: Before every activation, over the rows of all ranks.
        last_bias: Whether the last layer has a bias.
    """
    layers: list[nn.Module] = []
    for width, following in pairwise(widths[:-1]):
        # No bias before batch normalization, which removes it.
        layers.append(nn.Linear(width, following, bias=not batch_norm))
        if batch_norm:
            layers.append(GlobalBatchNorm(following))
        layers.append(nn.ReLU(inplace=True) if activation == "relu" else nn.GELU())
    layers.append(nn.Linear(widths[-2], widths[-1], bias=last_bias))
    return nn.Sequential(*layers)


def unit_rows(y_NF: Tensor) -> Tensor:
    """L2-normalized rows in the dtype of ``y``; under autocast the norm is float32 and would widen them."""
    return normalize(y_NF, dim=1).to(y_NF.dtype)


class Prototypes(nn.Module):
    """Learned codes w_j: cosines <u_i, w_j / |w_j|>.

    Args:
        num_prototypes: C.
        width: F.

    Attributes:
        frozen: While true, the prototypes get a gradient of zero, which `cancel_gradient` removes.
    """

    def __init__(self, num_prototypes: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(normalize(torch.randn(num_prototypes, width), dim=1))
        self.frozen = False

    def forward(self, u_NF: Tensor) -> Tensor:
        """Scores [N, C] of unit rows u [N, F]."""
        unit_CF = normalize(self.weight, dim=1)
        if self.frozen:  # zero, not none: DDP waits for a gradient of every parameter
            unit_CF = unit_CF.detach() + 0 * unit_CF
        return linear(u_NF, unit_CF.to(u_NF.dtype))

    def cancel_gradient(self) -> None:
        """While frozen, remove the gradient: given one of zero, an optimizer still counts steps and decays weights."""
        if self.frozen:
            self.weight.grad = None

    @torch.no_grad()
    def normalize(self) -> None:
        """Bring every prototype to length 1."""
        self.weight.copy_(normalize(self.weight, dim=1))


class Projected(Method):
    """An encoder with a head: y = head(encoder(x)), and u = y / |y| for monitors and codes.

    Args:
        encoder: Images [N, C, H, W] to z_ND.
        head: z_ND to y_NF.
    """

    def __init__(self, encoder: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head

    def project(self, views: list[Tensor]) -> tuple[Tensor, ...]:
        """Outputs y [N, F] of the head for every view; all views pass the head as one batch."""
        y: Tensor = self.head(represent(self.encoder, views, micro_batches=self.micro_batches))
        return y.chunk(len(views))

    def embed(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Representations z_ND and unit embeddings u_NF."""
        z_ND = self.encoder(images)
        return z_ND, unit_rows(self.head(z_ND))
