"""Schedules, parameter groups, and LARS against its formula; Muon has its own file."""

from __future__ import annotations

from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from falcon_ssl.config.run import OPTIMIZERS, OptimConfig
from falcon_ssl.core.errors import InputError
from falcon_ssl.engine.lars import LARS
from falcon_ssl.engine.optim import build_optimizer, learning_rate, schedule, weight_decay


def rates(**options: Any) -> list[float]:
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


def test_a_line_falls_to_the_final_rate() -> None:
    assert rates(schedule="linear", final_lr=0.25)[4:] == pytest.approx(
        [2.0, 1.75, 1.5, 1.25, 1.0, 0.75]
    )
    assert rates(schedule="linear")[:4] == rates()[:4], "the warm-up is the same"


def test_both_learning_rates_of_muon_follow_the_schedule() -> None:
    network = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    config = OptimConfig(name="muon", lr=0.02, lr_rest=0.002, schedule="linear")
    optimizer = build_optimizer(network, config)
    for step, matrices, rest in ((0, 0.01, 0.001), (1, 0.02, 0.002), (6, 0.01, 0.001)):
        found = schedule(optimizer, step, num_steps=10, warmup_steps=2, config=config)
        assert found == pytest.approx(matrices)
        rates_now = [group["lr"] for group in optimizer.param_groups]
        assert rates_now == pytest.approx([matrices, rest, rest])


def test_decay_of_adam_is_part_of_the_gradient() -> None:
    """At its first step Adam moves by the sign of what it is given: coupled decay turns a small gradient around."""
    moved = {}
    for name in ("adam", "adamw"):
        layer = nn.Linear(1, 1, bias=False)
        nn.init.ones_(layer.weight)
        optimizer = build_optimizer(layer, OptimConfig(name=name, lr=0.1, weight_decay=0.5))
        layer.weight.grad = torch.tensor([[-0.1]])
        optimizer.step()
        moved[name] = layer.weight.item()
    assert moved == pytest.approx({"adam": 1 - 0.1, "adamw": 1 + 0.1 - 0.1 * 0.5})


def test_a_run_without_warm_up_starts_at_the_peak() -> None:
    assert learning_rate(0, num_steps=5, warmup_steps=0, config=OptimConfig(lr=2.0)) == 2.0


def test_norms_and_biases_are_not_decayed() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    network[3].weight.requires_grad_(False)
    decayed, free = build_optimizer(network, OptimConfig(weight_decay=0.1)).param_groups
    assert [tuple(p.shape) for p in decayed["params"]] == [(4, 3, 3, 3)]
    assert [tuple(p.shape) for p in free["params"]] == [(4,), (4,), (4,), (2,)]
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.1, 0.0)


def test_weight_decay_follows_a_cosine_where_it_is_decayed_at_all() -> None:
    network = nn.Linear(4, 2)
    config = OptimConfig(weight_decay=0.04, weight_decay_end=0.4)
    optimizer = build_optimizer(network, config)
    found = []
    for step in (0, 5, 10):
        schedule(optimizer, step, num_steps=10, warmup_steps=0, config=config)
        found.append([group["weight_decay"] for group in optimizer.param_groups])
    assert [matrix for matrix, _ in found] == pytest.approx([0.04, 0.22, 0.4])
    assert [bias for _, bias in found] == [0.0, 0.0, 0.0]
    constant = OptimConfig(weight_decay=0.04)
    assert {weight_decay(step, num_steps=10, config=constant) for step in range(10)} == {0.04}


def by_the_paper(
    w: np.ndarray,
    gradients: list[np.ndarray],
    rates: list[float],
    *,
    decay: float,
    trust: float,
    clip_trust: bool,
) -> np.ndarray:
    """Algorithm 1 of arXiv 1708.03888, number by number."""
    v = np.zeros_like(w)
    for g, lr in zip(gradients, rates, strict=True):
        local = trust * float(np.sqrt((w**2).sum()))
        local /= float(np.sqrt((g**2).sum())) + decay * float(np.sqrt((w**2).sum()))
        if clip_trust:
            local = min(local / lr, 1.0)
        v = 0.9 * v + lr * local * (g + decay * w)
        w = w - v
    return w


@pytest.mark.parametrize("clip_trust", [False, True])
@pytest.mark.parametrize("shape", [(4, 3), (2, 3, 3, 3)])
def test_lars_is_the_formula_of_its_paper(shape: tuple[int, ...], clip_trust: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    start, *gradients = torch.randn(6, *shape, generator=generator, dtype=torch.float64)
    gradients[3] *= 100  # a layer that LARC slows down; the others it leaves alone
    rates = [0.1, 0.3, 0.3, 0.2, 0.1]
    options = {"trust": 0.5, "clip_trust": clip_trust}
    w = nn.Parameter(start.clone())
    optimizer = LARS([w], lr=1.0, weight_decay=0.2, **options)
    for g, lr in zip(gradients, rates, strict=True):
        optimizer.param_groups[0]["lr"] = lr
        w.grad = g.clone()
        optimizer.step()
    arrays = [g.numpy() for g in gradients]
    expected = by_the_paper(start.numpy(), arrays, rates, decay=0.2, **options)
    np.testing.assert_allclose(w.detach().numpy(), expected, rtol=1e-13)
    other = by_the_paper(
        start.numpy(), arrays, rates, decay=0.2, trust=0.5, clip_trust=not clip_trust
    )
    assert np.abs(other - expected).max() > 0.01, "the option matters here"


def test_lars_leaves_norms_and_biases_to_plain_momentum() -> None:
    network = nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2))
    optimizer = build_optimizer(network, OptimConfig(name="lars", lr=0.5, weight_decay=0.1))
    vectors = [p for p in network.parameters() if p.ndim == 1]
    before = [p.detach().clone() for p in vectors]
    for _ in range(2):
        for p in network.parameters():
            p.grad = torch.ones_like(p)
        optimizer.step()
    for p, start in zip(vectors, before, strict=True):
        torch.testing.assert_close(p.detach(), start - 0.5 - 0.5 * 1.9)  # v = 1, then 0.9 + 1


@pytest.mark.parametrize("what", ["weights", "gradient"])
def test_lars_moves_what_is_zero_at_the_plain_rate(what: str) -> None:
    w = nn.Parameter(torch.zeros(2, 2) if what == "weights" else torch.ones(2, 2))
    w.grad = torch.ones(2, 2) if what == "weights" else torch.zeros(2, 2)
    LARS([w], lr=0.5, weight_decay=0.1).step()
    expected = -0.5 if what == "weights" else 1 - 0.5 * 0.1
    torch.testing.assert_close(w.detach(), torch.full((2, 2), expected))


def test_options_of_muon_need_muon() -> None:
    assert OptimConfig(name="muon", lr_rest=0.1, newton_schulz=3).lr_rest == 0.1
    for options in ({"lr_rest": 0.1}, {"newton_schulz": 3}):
        with pytest.raises(InputError, match=r"does nothing without optim\.name=muon"):
            OptimConfig("adamw", **options)


def test_options_of_lars_need_lars() -> None:
    assert OptimConfig(name="lars", trust=0.02, clip_trust=True).trust == 0.02
    for options in ({"trust": 0.02}, {"clip_trust": True}):
        with pytest.raises(InputError, match=r"does nothing without optim\.name=lars"):
            OptimConfig(**options)
    with pytest.raises(InputError, match=r"optim\.weight_decay_end is too small"):
        OptimConfig(weight_decay_end=-1.0)


def test_every_optimizer_has_its_facts() -> None:
    names = get_args(get_type_hints(OptimConfig)["name"])
    assert set(OPTIMIZERS) == set(names)
    for name in names:
        network = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))  # the last layer is not Muon's
        optimizer = build_optimizer(network, OptimConfig(name))
        assert optimizer.param_groups[0]["lr"] == OPTIMIZERS[name].lr
        network(torch.ones(1, 3)).sum().backward()
        optimizer.step()
        state = optimizer.state[network[0].weight]
        kept = [one for one in state.values() if isinstance(one, Tensor) and one.numel() > 1]
        assert len(kept) == OPTIMIZERS[name].moments
