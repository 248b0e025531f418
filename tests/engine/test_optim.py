"""Schedule and parameter groups."""

from __future__ import annotations

import pytest
from torch import nn

from falcon_ssl.config import OptimConfig
from falcon_ssl.engine.optim import build_optimizer, learning_rate


def rates(**options: float) -> list[float]:
    config = OptimConfig(lr=2.0, **options)
    return [learning_rate(t, num_steps=10, warmup_steps=4, config=config) for t in range(10)]


def test_warm_up_is_linear_and_reaches_the_peak() -> None:
    assert rates()[:5] == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.0])


def test_cosine_falls_towards_the_final_rate() -> None:
    after = rates(final_lr=0.25)[4:]
    assert after == sorted(after, reverse=True)
    assert (
        learning_rate(10, num_steps=10, warmup_steps=4, config=OptimConfig(lr=2.0, final_lr=0.25))
        == 0.5
    )
    assert learning_rate(
        7, num_steps=10, warmup_steps=4, config=OptimConfig(lr=2.0)
    ) == pytest.approx(1.0)


def test_a_run_without_warm_up_starts_at_the_peak() -> None:
    assert learning_rate(0, num_steps=5, warmup_steps=0, config=OptimConfig(lr=2.0)) == 2.0


def test_norms_and_biases_are_not_decayed() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    network[3].weight.requires_grad_(False)
    decayed, free = build_optimizer(network, OptimConfig(weight_decay=0.1)).param_groups
    assert [tuple(p.shape) for p in decayed["params"]] == [(4, 3, 3, 3)]
    assert [tuple(p.shape) for p in free["params"]] == [(4,), (4,), (4,), (2,)]
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.1, 0.0)
