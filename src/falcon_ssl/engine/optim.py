"""Optimizers and schedules: no decay on norms and biases, warm-up, then a cosine or a line."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.optim import Adam, AdamW, Optimizer

from falcon_ssl.config.run import OptimConfig
from falcon_ssl.engine.lars import LARS
from falcon_ssl.engine.muon import Muon


def build_optimizer(module: nn.Module, config: OptimConfig, *, bf16: bool = True) -> Optimizer:
    """The optimizer of a configuration over the trainable parameters of ``module``; ``bf16``: see `Muon`.

    Vectors and scalars (norms, biases, tokens) are not decayed: decay would move what a normalized network computes
    without regularizing it.
    """
    trainable = [p for p in module.parameters() if p.requires_grad]
    if config.name == "muon":
        orthogonal = orthogonalized(module)
        rest = [p for p in trainable if all(p is not w for w in orthogonal)]
        kernels = {"params": orthogonal, "weight_decay": config.weight_decay}
        others = [
            {**group, "orthogonal": False, "lr": config.lr_rest} for group in _groups(rest, config)
        ]
        groups = [group for group in (kernels, *others) if group["params"]]
        return Muon(
            groups,
            lr=config.peak_lr,
            newton_schulz=config.newton_schulz,
            block_rows=config.block_rows,
            bf16=bf16,
        )
    groups = _groups(trainable, config)
    if config.name == "lars":
        return LARS(groups, lr=config.peak_lr, trust=config.trust, clip_trust=config.clip_trust)
    kind = Adam if config.name == "adam" else AdamW
    return kind(groups, lr=config.peak_lr, fused=True)


def orthogonalized(module: nn.Module) -> list[Tensor]:
    """What Muon orthogonalizes: trainable weights of linear layers and convolutions, except for the last layer.

    The rows of a last layer are features or classes on their own, as those of prototypes and of embeddings are; Jordan
    et al. (2024) leave all of these to AdamW.
    """
    layers = [m for m in module.modules() if isinstance(m, (nn.Linear, _ConvNd))]
    return [layer.weight for layer in layers if layer.weight.requires_grad][:-1]


def _groups(parameters: Sequence[Tensor], config: OptimConfig) -> list[dict[str, Any]]:
    """Those that are decayed, and those that are not."""
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def schedule(
    optimizer: Optimizer, step: int, *, num_steps: int, warmup_steps: int, config: OptimConfig
) -> float:
    """Set learning rates and weight decay for a step; they are functions of the step alone.

    Returns:
        The learning rate, with Muon that of matrices and kernels.
    """
    lr = learning_rate(step, num_steps=num_steps, warmup_steps=warmup_steps, config=config)
    decay = weight_decay(step, num_steps=num_steps, config=config)
    for group in optimizer.param_groups:
        group["lr"] = lr if group.get("orthogonal", True) else lr / config.peak_lr * config.lr_rest
        if _is_decayed(group["params"]):
            group["weight_decay"] = decay
    return lr


def learning_rate(step: int, *, num_steps: int, warmup_steps: int, config: OptimConfig) -> float:
    """Learning rate of a step: a function of the step alone, so a schedule has no state to lose.

        warm-up   lr * (step + 1) / warmup_steps
        then      lr * (final + (1 - final) * fall(t)),   t from 0 to 1
                  fall(t) = (1 + cos(pi t)) / 2, or 1 - t

    Args:
        step: From 0.
        num_steps: Steps of the whole run.
        warmup_steps: Steps of the warm-up.
        config: Peak and final learning rate, and the way between them.
    """
    if step < warmup_steps:
        return config.peak_lr * (step + 1) / warmup_steps
    t = (step - warmup_steps) / max(1, num_steps - warmup_steps)
    fall = cosine(t) if config.schedule == "cosine" else 1 - t
    return config.peak_lr * (config.final_lr + (1 - config.final_lr) * fall)


def weight_decay(step: int, *, num_steps: int, config: OptimConfig) -> float:
    """Weight decay of a step, from its start to its end along a cosine over the whole run, as DINO raises it.

        end + (start - end) * (1 + cos(pi step / num_steps)) / 2

    Args:
        step: From 0.
        num_steps: Steps of the whole run.
        config: Weight decay at the start and at the end; constant without an end.
    """
    if config.weight_decay_end is None:
        return config.weight_decay
    start, end = config.weight_decay, config.weight_decay_end
    return end + (start - end) * cosine(step / num_steps)


def cosine(t: float) -> float:
    """From 1 at t = 0 to 0 at t = 1."""
    return (1 + math.cos(math.pi * t)) / 2


def _is_decayed(parameters: Sequence[Tensor]) -> bool:
    return all(parameter.ndim > 1 for parameter in parameters)
