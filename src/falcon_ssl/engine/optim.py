"""Optimizer and schedule: AdamW, no decay on norms and biases, warm-up then cosine."""

from __future__ import annotations

import math

from torch import nn
from torch.optim import AdamW

from falcon_ssl.config import OptimConfig


def build_optimizer(module: nn.Module, config: OptimConfig) -> AdamW:
    """AdamW over the trainable parameters of ``module``.

    Vectors and scalars (norms, biases, tokens) are not decayed: decay would move what a normalised network computes
    without regularising it.
    """
    trainable = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    return AdamW(groups, lr=config.lr, fused=True)


def learning_rate(step: int, *, num_steps: int, warmup_steps: int, config: OptimConfig) -> float:
    """Learning rate of a step: a function of the step alone, so a schedule has no state to lose.

        warm-up   lr * (step + 1) / warmup_steps
        then      lr * (final + (1 - final) * (1 + cos(pi t)) / 2),   t from 0 to 1

    Args:
        step: From 0.
        num_steps: Steps of the whole run.
        warmup_steps: Steps of the warm-up.
        config: Peak and final learning rate.
    """
    if step < warmup_steps:
        return config.lr * (step + 1) / warmup_steps
    t = (step - warmup_steps) / max(1, num_steps - warmup_steps)
    cosine = (1 + math.cos(math.pi * t)) / 2
    return config.lr * (config.final_lr + (1 - config.final_lr) * cosine)
