"""SwAV: encoder, two-layer head, prototypes, balanced assignments; a queue when batches are small."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from falcon_ssl.config import SwAVConfig
from falcon_ssl.core.distributed import all_gather_rows, rank, world_size
from falcon_ssl.core.monitor import StuckValue
from falcon_ssl.dictionary.prototypes import PrototypeDictionary
from falcon_ssl.losses.swav import swav_loss
from falcon_ssl.methods.base import Parts, StepOutput
from falcon_ssl.methods.heads import Projected, Prototypes, mlp, unit_rows

NUM_ASSIGNED = 2  # the large views


class SwAV(Projected):
    """Caron et al., 2020 (arXiv 2006.09882); takes small views after the two large ones.

    The queue is the same on every rank, each of which scores its slice of it: a run is the same on any number of ranks.

    Example:
        >>> method = SwAV(Parts(nn.Flatten(), 64, (1, 8, 8)), SwAVConfig(32, 16, 20))
        >>> view1, view2 = torch.randn(2, 16, 1, 8, 8)
        >>> sorted(method([view1, view2]).terms)
        ['consistency', 'entropy', 'total']
    """

    few_codes_hint = "is sinkhorn_eps too large?"

    queue: Tensor
    queue_rows: Tensor

    def __init__(self, parts: Parts, config: SwAVConfig) -> None:
        widths = [parts.in_dim, config.hidden_dim, config.embed_dim]
        super().__init__(parts.encoder, mlp(widths, last_bias=True))
        self.config = config
        self.prototypes = Prototypes(config.num_prototypes, config.embed_dim)
        self.dictionary = PrototypeDictionary(self.prototypes.weight)
        self.queue_waits = False
        self._num_queued = 0  # queue_rows on the host: no step waits for the device to decide
        if length := config.queue_length:
            self.register_buffer("queue", torch.zeros(NUM_ASSIGNED, length, config.embed_dim))
            self.register_buffer("queue_rows", torch.zeros((), dtype=torch.int64))
            self.register_load_state_dict_post_hook(_count_queue)  # type: ignore[no-untyped-call]

    def forward(self, views: list[Tensor]) -> StepOutput:
        """Loss of two large views and any number of small ones."""
        u_VNF = [unit_rows(y_NF) for y_NF in self.project(views)]
        terms = swav_loss(
            [self.prototypes(u_NF) for u_NF in u_VNF],
            queued_scores=self._queued_scores(),
            temperature=self.config.temperature,
            sinkhorn_eps=self.config.sinkhorn_eps,
            sinkhorn_steps=self.config.sinkhorn_steps,
            num_assigned=NUM_ASSIGNED,
        )
        if self.config.queue_length and self.training and not self.queue_waits:
            self._enqueue(u_VNF[:NUM_ASSIGNED])
        return StepOutput.of(terms, u_VNF[0])

    def running_state(self) -> list[Tensor]:
        """Prototypes too, which `after_step` normalizes."""
        return [*super().running_state(), self.prototypes.weight]

    def before_step(self, step: int, num_steps: int) -> None:
        """At the start of a run prototypes are frozen and the queue waits."""
        self.prototypes.frozen = step < self.config.prototypes_frozen * num_steps
        self.queue_waits = step < self.config.queue_starts * num_steps

    def after_backward(self, step: int, num_steps: int) -> None:
        """Frozen prototypes are neither moved nor decayed."""
        self.prototypes.cancel_gradient()

    def after_step(self, step: int, num_steps: int) -> None:
        """Prototypes have length 1 after every step."""
        self.prototypes.normalize()

    def stuck_values(self, batch_size: int) -> tuple[StuckValue, ...]:
        """log C when every prediction is uniform."""
        value = math.log(self.config.num_prototypes)
        return (StuckValue("total", value, "every sample gets the same assignment (log C)"),)

    @torch.no_grad()
    def _queued_scores(self) -> list[Tensor] | None:
        """Scores of this rank's slice of the queue, once it is full."""
        if not self._num_queued or self._num_queued < self.config.queue_length:
            return None
        return [self.prototypes(u_LF[rank() :: world_size()]) for u_LF in self.queue]

    @torch.no_grad()
    def _enqueue(self, u_VNF: list[Tensor]) -> None:
        """Put the newest embeddings of all ranks first; the oldest fall out."""
        for u_LF, u_NF in zip(self.queue, u_VNF, strict=True):
            new_NF = all_gather_rows(u_NF.detach().to(u_LF.dtype))
            u_LF.copy_(torch.cat([new_NF, u_LF])[: len(u_LF)])
        self.queue_rows += len(new_NF)
        self._num_queued += len(new_NF)


def _count_queue(method: nn.Module, _: object) -> None:
    assert isinstance(method, SwAV)
    method._num_queued = int(method.queue_rows)
