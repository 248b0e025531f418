"""Sharded training, FSDP2: encoder weights, their gradients and moments divided over ranks.

    encoder, and teachers of it    rank r of R holds rows r of every parameter, whole while its block computes
    heads, prototypes, codes       on every rank, gradients averaged after the backward pass
    optimizer                      moves the rows that are here (`falcon_ssl.core.sharding.Shard`)

Losses see the embeddings of all ranks as ever. What a step computes is that of one process, to rounding.
"""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from falcon_ssl.core.distributed import world_size
from falcon_ssl.core.sharding import Shard, average, copy_from_first, divide, gathered, whole_norms
from falcon_ssl.methods import Method
from falcon_ssl.methods.teacher import Teacher

logger = logging.getLogger(__name__)


class Shards:
    """The divided encoder of a method, and of its teacher.

    Args:
        method: On its device; its encoders are divided in place.
        optimizer: New, over the parameters of ``method``; it moves the shards from now on.
    """

    def __init__(self, method: Method, optimizer: Optimizer) -> None:
        copy_from_first(method.state_dict().values())
        encoders = divided_encoders(method)
        divided = [p for encoder in encoders for p in encoder.parameters()]
        whole = [p for p in method.parameters() if all(p is not one for one in divided)]
        # The same method with empty encoders, to be filled for those who ask for whole weights.
        empty = {id(p): nn.Parameter(p.to("meta"), requires_grad=False) for p in divided}
        kept = {id(x): x for x in (*whole, *method.buffers(), method.dictionary)}
        self._copy = copy.deepcopy(method, empty | kept)
        names = {id(p): name for name, p in method.named_parameters()}
        num_blocks = 0
        for encoder in encoders:
            inside = _blocks(encoder)
            divide(encoder, inside)
            num_blocks += len(inside)
        logger.info(
            "engine.shard: weights of %d encoders are divided over %d ranks, in %d blocks",
            len(encoders),
            world_size(),
            num_blocks,
        )
        self._places = [
            (owner, name, method.get_parameter(f"{prefix}.{name}"))
            for prefix, owner in self._copy.named_modules()
            for name, p in owner.named_parameters(recurse=False)
            if p.is_meta
        ]
        self._shards: list[Shard] = []
        for group in optimizer.param_groups:
            found = [method.get_parameter(names[id(p)]) for p in group["params"]]
            group["params"] = [
                Shard.of(p) if p is not q else p
                for p, q in zip(found, group["params"], strict=True)
            ]
            self._shards += [p for p in group["params"] if isinstance(p, Shard)]
        self._whole = [p for p in whole if p.requires_grad]
        self._moved = [*self._shards, *self._whole]

    @torch.no_grad()
    def finish_backward(self, clip_norm: float) -> Tensor:
        """Average the gradients of what is not divided, and clip all.

        Args:
            clip_norm: Largest norm; 0 measures without clipping.

        Returns:
            The norm of all gradients before, 0-dim, equal on every rank.
        """
        average([p.grad for p in self._whole if p.grad is not None])
        for shard in self._shards:
            shard.take_gradient()
        moved = [p for p in self._moved if p.grad is not None]
        grads = [p.grad for p in moved if p.grad is not None]
        norms = whole_norms(torch._foreach_norm(grads), moved)
        norm: Tensor = torch.linalg.vector_norm(
            torch.stack([one.to(norms[0].dtype) for one in norms])
        )
        scale = ((clip_norm or math.inf) / (norm + 1e-6)).clamp(max=1.0)
        torch._foreach_mul_(grads, scale)
        return norm

    @contextmanager
    def whole(self) -> Iterator[Method]:
        """In this block the method with whole weights, for evaluation; every rank enters it.

        Memory: all weights on every rank, as long as it lasts.
        """
        empty = [owner._parameters[name] for owner, name, _ in self._places]
        try:
            for owner, name, parameter in self._places:
                owner._parameters[name] = nn.Parameter(gathered(parameter.detach()), False)
            yield self._copy
        finally:
            for (owner, name, _), nothing in zip(self._places, empty, strict=True):
                owner._parameters[name] = nothing


def divided_encoders(method: Method) -> list[nn.Module]:
    """What is divided: the encoder, and those of teachers."""
    teachers = [child for child in method.modules() if isinstance(child, Teacher)]
    return [method.encoder, *(teacher["encoder"] for teacher in teachers)]


def _blocks(module: nn.Module) -> list[nn.Module]:
    """The repeated modules of an encoder: members of a list that are all of one class, the innermost such list."""
    inside = [block for child in module.children() for block in _blocks(child)]
    if inside or not isinstance(module, (nn.ModuleList, nn.Sequential)):
        return inside
    members = list(module)
    alike = len(members) > 1 and len({type(member) for member in members}) == 1
    return members if alike and any(True for _ in module.parameters()) else []
