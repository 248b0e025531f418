"""What the training loop asks of a method, and nothing more."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

from torch import Tensor, nn

from falcon_ssl.dictionary import Dictionary


class StepOutput(NamedTuple):
    """What a method returns for one batch.

    Args:
        loss: 0-dim, with gradient, equal on every rank.
        terms: What the loss is made of, by name; 0-dim, detached, in nats where it is an entropy.
        u_NF: Embeddings of the first view, this rank's rows, detached: what monitors look at.
    """

    loss: Tensor
    terms: dict[str, Tensor]
    u_NF: Tensor


class Method(nn.Module, ABC):
    """An encoder with a head and a loss.

    `forward` takes the views of a batch, so that DDP and autocast wrap all of the computation.

    Attributes:
        encoder: Images [N, C, H, W] to representations z_ND.
        dictionary: The codes that samples are assigned to; None for methods without any.
        logit_scale: Scale of the cosine in the assignment, for methods that have one.
    """

    encoder: nn.Module
    dictionary: Dictionary | None = None
    logit_scale: float | None = None

    @abstractmethod
    def forward(self, views: list[Tensor]) -> StepOutput:
        """Loss of one batch, given as V tensors [N, C, H, W]."""

    @abstractmethod
    def embed(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Representations z_ND and embeddings u_NF of normalised images [N, C, H, W]."""

    def after_step(self, step: int, num_steps: int) -> None:
        """Hook after the optimizer has moved: EMA, prototype norms, queues."""
