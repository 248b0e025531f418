"""Large batches on small memory: what a network keeps for its gradient is computed again, micro-batch by micro-batch.

    1    z_k = encoder(x_k), without graph       k = 1 ... K
    2    L(z_1 ... z_K) and dL/dz, on the whole batch
    3    for every k: encoder(x_k) again, with graph, and back through it with dL/dz_k

The gradient is that of the whole batch, for any L (Gao et al., 2021, arXiv 2101.06983: GradCache), at the cost of one
more forward pass. It is one backward pass for autograd, so DDP averages over ranks once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def recomputed(encoder: nn.Module, images: Tensor) -> Tensor:
    """encoder(images), of which nothing but the images is kept for the gradient; dropout drops the same again.

    Args:
        encoder: Computes alike twice: its modes do not change before the backward pass.
        images: [N, C, H, W].
    """
    if not torch.is_grad_enabled():
        z: Tensor = encoder(images)
        return z

    def contexts() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
        return nullcontext(), kept_statistics(encoder)

    again: Tensor = checkpoint(encoder, images, use_reentrant=False, context_fn=contexts)
    return again


@contextmanager
def kept_statistics(module: nn.Module) -> Iterator[None]:
    """In this block batch normalizations leave their running statistics as they are, in training mode too."""
    norms = [child for child in module.modules() if isinstance(child, _BatchNorm)]
    kept = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
        norm.num_batches_tracked = None
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, kept, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count


def has_batch_statistics(module: nn.Module) -> bool:
    """Whether what a network says of an image depends on the others of its batch."""
    return any(isinstance(child, _BatchNorm) for child in module.modules())
