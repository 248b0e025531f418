"""One training step: nothing in it waits for the device, and nothing that is not finite leaves a trace."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from falcon_ssl.config import EngineConfig, RunConfig, from_mapping
from falcon_ssl.core import distributed
from falcon_ssl.engine import NonFiniteError
from falcon_ssl.engine.accelerator import build_accelerator
from falcon_ssl.engine.finite import FiniteGuard
from falcon_ssl.engine.step import TrainingStep
from falcon_ssl.methods import Method, build_method
from support.every_method import METHODS
from support.host_reads import host_reads

SHAPE = (1, 8, 8)
ROWS = 16


class Plain:
    """Views without augmentation, of which one batch may be broken."""

    def __init__(self, broken: bool = False) -> None:
        self.broken = broken

    def at(self, progress: float) -> Plain:
        return self

    def __call__(self, images: Tensor, *, generator: object) -> list[Tensor]:
        views = [images / 255, images.flip(3) / 255]
        return [view * torch.nan for view in views] if self.broken else views


def configuration(kind: str, **optim: Any) -> RunConfig:
    method = kind if kind in METHODS[kind] else "falcon"
    config = {
        "method": method,
        "batch_size": ROWS,
        "epochs": 2,
        "engine": {"device": "cpu", "precision": "no"},
        "encoder": {"name": "digits_cnn"},
        "optim": {"warmup_epochs": 0, **optim},
        **METHODS[kind],
    }
    return from_mapping(config)


def training_step(config: RunConfig, views: Plain) -> tuple[Method, TrainingStep]:
    torch.manual_seed(0)
    method = build_method(config, image_shape=SHAPE)
    accelerator = build_accelerator(config.engine)
    step = TrainingStep(method, views, config=config, num_steps=20, accelerator=accelerator)
    return method, step


def images(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (ROWS, *SHAPE), dtype=torch.uint8, generator=generator)


def remembered(method: nn.Module, step: TrainingStep) -> dict[str, Tensor]:
    """Everything that a checkpoint keeps."""
    moments = step.optimizer.state_dict()["state"]
    state = {f"{k}.{name}": v for k, entry in moments.items() for name, v in entry.items()}
    return {name: value.clone() for name, value in (method.state_dict() | state).items()}


def differing(before: dict[str, Tensor], after: dict[str, Tensor]) -> list[str]:
    assert before.keys() == after.keys()
    return [name for name in before if not torch.equal(before[name], after[name])]


@pytest.mark.parametrize("name", METHODS)
def test_a_step_does_not_wait_for_the_device(name: str) -> None:
    _, step = training_step(configuration(name), Plain())
    step(images(0), 0)  # what is measured or copied once
    with host_reads() as reads:
        for number in (1, 2):
            step(images(number), number)
        assert reads == []
        step.terms()
    assert reads == ["tolist"], "one read when the step is logged"


@pytest.mark.parametrize("name", ["adam", "lars", "muon"])
def test_no_optimizer_waits_for_the_device(name: str) -> None:
    _, step = training_step(configuration("vicreg", name=name), Plain())
    with host_reads() as reads:
        step(images(0), 0)
    assert reads == []


@pytest.mark.parametrize("optimizer", ["adamw", "lars", "muon"])
@pytest.mark.parametrize("name", METHODS)
def test_nothing_of_a_bad_step_is_kept(name: str, optimizer: str) -> None:
    """Weights, moments, batch statistics, teachers, queues and running marginals are those before it, bit for bit."""
    views = Plain()
    method, step = training_step(configuration(name, name=optimizer), views)
    for number in range(4):
        step(images(number), number)
    before = remembered(method, step)
    views.broken = True
    step(images(4), 4)
    views.broken = False
    for number in (5, 6):  # good batches, before the next logged step
        step(images(number), number)
    assert differing(before, remembered(method, step)) == []
    with pytest.raises(NonFiniteError, match=r"step 5: \w+ is nan.*weights are those of step 4"):
        step.terms()


@pytest.mark.parametrize("name", ["falcon", "swav", "dino"])
def test_the_next_good_step_would_have_changed_all_of_it(name: str) -> None:
    """The control of the test above."""
    method, step = training_step(configuration(name), Plain())
    for number in range(4):
        step(images(number), number)
    before = remembered(method, step)
    step(images(4), 4)
    changed = differing(before, remembered(method, step))
    state = {"falcon": "loss.running_marginal", "swav": "queue", "dino": "center"}[name]
    assert state in changed
    assert set(dict(method.named_parameters())) & set(changed)
    step.terms()


def test_an_infinite_gradient_is_found_although_all_terms_are_finite() -> None:
    method, step = training_step(configuration("falcon"), Plain())
    step(images(0), 0)
    before = remembered(method, step)
    hook = method.projector.register_full_backward_hook(
        lambda _, grads, __: tuple(grad * torch.inf for grad in grads)
    )
    step(images(1), 1)
    hook.remove()
    step(images(2), 2)
    assert differing(before, remembered(method, step)) == []
    with pytest.raises(NonFiniteError, match=r"step 2: grad_norm is (inf|nan)"):
        step.terms()


def test_a_gradient_scaler_decides_over_infinite_gradients() -> None:
    """It skips such a step by itself; a term that is not finite is an error, at once and without a trace."""
    mean, weight = torch.zeros(3), nn.Parameter(torch.ones(2))
    optimizer = torch.optim.AdamW([weight], fused=True)
    guard = FiniteGuard(optimizer, [mean], device=weight.device, scaled=True)
    assert not hasattr(optimizer, "found_inf"), "the scaler sets and deletes it"
    good, bad = {"total": torch.tensor(1.0)}, {"total": torch.tensor(torch.nan)}
    guard.begin()
    mean.fill_(1.0)
    guard.check(1, good, torch.tensor(torch.inf))
    guard.end()
    assert guard.read() == {"total": 1.0, "grad_norm": float("inf")}
    guard.begin()
    mean.fill_(2.0)
    with pytest.raises(NonFiniteError, match="step 2: total is nan"):
        guard.check(2, bad, torch.tensor(1.0))
    assert mean.tolist() == [1.0] * 3


def test_ranks_wait_for_each_other_as_long_as_was_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(
        distributed, "join_after_restart", lambda device, timeout: asked.append((device, timeout))
    )
    build_accelerator(EngineConfig(device="cpu", precision="no", timeout_minutes=3))
    assert asked == [("cpu", timedelta(minutes=3))]
