"""What the training loop asks of a method, and nothing more."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from falcon_ssl.core.errors import InputError
from falcon_ssl.core.monitor import StuckValue
from falcon_ssl.dictionary.base import Dictionary
from falcon_ssl.losses.rows import Terms
from falcon_ssl.networks.recompute import recomputed


class StepOutput(NamedTuple):
    """What a method returns for one batch.

    Args:
        loss: 0-dim, with gradient, equal on every rank.
        terms: What the loss is made of, by name; 0-dim, detached, in nats where it is an entropy.
        u_NF: Embeddings of the first view, this rank's rows, detached: what monitors receive.
    """

    loss: Tensor
    terms: dict[str, Tensor]
    u_NF: Tensor

    @classmethod
    def of(cls, terms: Terms, u_NF: Tensor) -> StepOutput:
        """From what a loss returns and the embeddings of the first view."""
        named = {name: term.detach() for name, term in terms._asdict().items()}
        return cls(terms.total, named, u_NF.detach())


class Parts(NamedTuple):
    """What every method is built around.

    Args:
        encoder: Images [N, C, H, W] to z_ND.
        in_dim: D.
        image_shape: (channels, height, width) of a large view.
    """

    encoder: nn.Module
    in_dim: int
    image_shape: tuple[int, int, int]


class Method(nn.Module, ABC):
    """An encoder with a head and a loss, made from `Parts` and the method's options, which it keeps as ``config``.

    `forward` takes the views of a batch, so that DDP and autocast wrap all of the computation.

    Attributes:
        encoder: Images [N, C, H, W] to representations z_ND.
        dictionary: The codes that samples are assigned to; None for methods without any.
        logit_scale: Scale of the cosine in the assignment, for methods that have one.
        few_codes_hint: What to ask when the codes of all samples are a few, for methods with codes.
        micro_batches: K, parts of a batch that pass the encoder one after the other, see
            `falcon_ssl.networks.recompute`; heads and losses see all of it.
    """

    encoder: nn.Module
    dictionary: Dictionary | None = None
    logit_scale: float | None = None
    few_codes_hint: str = ""
    micro_batches: int = 1

    @abstractmethod
    def forward(self, views: list[Tensor]) -> StepOutput:
        """Loss of one batch, given as V tensors [N, C, H, W]."""

    @abstractmethod
    def embed(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Representations z_ND and embeddings u_NF of normalized images [N, C, H, W]."""

    @property
    def evaluated_encoder(self) -> nn.Module:
        """The encoder behind `embed`: what is evaluated and exported."""
        return self.encoder

    def compile_encoder(self, mode: str) -> None:
        """torch.compile what a step calls of the encoder, in a mode of that function."""
        self.encoder.compile(mode=mode)

    def stuck_values(self, batch_size: int) -> tuple[StuckValue, ...]:
        """Where loss terms stay when nothing is learned, for a global batch of this size."""
        return ()

    def running_state(self) -> list[Tensor]:
        """What a step changes without the optimizer: running statistics, teachers, queues."""
        return [x for x in self.state_dict(keep_vars=True).values() if not x.requires_grad]

    def before_step(self, step: int, num_steps: int) -> None:
        """Hook before a batch: whatever depends on the position in the run; steps are counted from 0."""

    def after_backward(self, step: int, num_steps: int) -> None:
        """Hook before the optimizer steps: frozen parameters lose their gradient."""

    def after_step(self, step: int, num_steps: int) -> None:
        """Hook after the optimizer's step: EMA, norms of prototypes."""


def check_two_views(method: str, views: Sequence[Tensor]) -> None:
    """Raise InputError unless there are two views."""
    if len(views) != 2:
        raise InputError(
            f"{method} takes two views",
            received=len(views),
            expected="2",
            fix="leave the others out",
        )


def num_large(views: Sequence[Tensor]) -> int:
    """How many of the views, the first ones, have the size of the first: small crops follow large ones."""
    return sum(view.shape == views[0].shape for view in views)


def represent(encoder: nn.Module, views: list[Tensor], *, micro_batches: int = 1) -> Tensor:
    """Representations [V N, D] of all views, view after view; views of one size pass the encoder as one batch.

    Args:
        encoder: May return S rows an image, in succession: [V N S, D].
        views: V tensors [N, C, H, W].
        micro_batches: K; more than one, and all views of N / K images pass at a time, twice.
    """
    if any(len(view) != len(views[0]) for view in views):
        raise InputError(
            "views differ in their number of images",
            received=", ".join(str(len(view)) for view in views),
            expected="equal numbers, image i of each the same one",
        )
    places: dict[torch.Size, list[int]] = {}
    for place, view in enumerate(views):
        places.setdefault(view.shape, []).append(place)
    z_VND: dict[int, Tensor] = {}
    for same in places.values():
        z_V = _encoded(encoder, [views[place] for place in same], micro_batches)
        z_VND |= dict(zip(same, z_V, strict=True))
    return torch.cat([z_VND[place] for place in range(len(views))])


def _encoded(encoder: nn.Module, views: list[Tensor], micro_batches: int) -> Sequence[Tensor]:
    """Representations [N, D] of each of some views of one size."""
    if micro_batches == 1:
        z: Tensor = encoder(torch.cat(views))
        return z.chunk(len(views))
    rows_KV = zip(*(view.tensor_split(micro_batches) for view in views), strict=True)
    z_KV = [recomputed(encoder, torch.cat(rows_V)).chunk(len(views)) for rows_V in rows_KV]
    return [torch.cat(z_K) for z_K in zip(*z_KV, strict=True)]
