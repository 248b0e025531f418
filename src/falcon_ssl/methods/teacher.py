"""A teacher: modules that are the running average of others."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping

import torch
from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from falcon_ssl.core.sharding import local


class Teacher(nn.ModuleDict):
    """Copies of a student's modules by name, without dropout and without gradient, that follow them.

    Args:
        student: The modules at the start.
    """

    def __init__(self, student: Mapping[str, nn.Module]) -> None:
        super().__init__(
            {
                name: _disable_dropout(copy.deepcopy(module)).requires_grad_(False)
                for name, module in student.items()
            }
        )

    @torch.no_grad()
    def follow(
        self, student: Mapping[str, nn.Module], *, momentum: float, step: int, num_steps: int
    ) -> None:
        """teacher = m teacher + (1 - m) student,   1 - m = (1 - momentum) (1 + cos(pi step / num_steps)) / 2.

        Args:
            student: The modules now.
            momentum: m at the first step; it increases to 1.
            step: This one, counted from 0.
            num_steps: Of the run.
        """
        weight = (1 - momentum) * (1 + math.cos(math.pi * step / num_steps)) / 2  # 1 - m
        mine = [local(p) for name in self for p in self[name].parameters()]
        theirs = [local(p) for name in self for p in student[name].parameters()]
        torch._foreach_lerp_(mine, theirs, weight)


def _disable_dropout(module: nn.Module) -> nn.Module:
    """Dropout and stochastic depth off, in training mode too; batch statistics stay those of the batch."""
    for child in module.modules():
        if isinstance(child, _DropoutNd):
            child.p = 0.0
        if isinstance(child, nn.MultiheadAttention):
            child.dropout = 0.0
        if isinstance(getattr(child, "drop_prob", None), (int, float)):  # timm's DropPath
            child.drop_prob = 0.0  # type: ignore[assignment]
    return module
