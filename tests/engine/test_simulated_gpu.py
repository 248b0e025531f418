"""Whole training steps, losses, views and evaluation on a simulated GPU: right devices, no waits, few launches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from falcon_ssl.commands.loading import build
from falcon_ssl.config.run import RunConfig, from_mapping
from falcon_ssl.data import ResidentLoader, TensorSource
from falcon_ssl.engine.accelerator import build_accelerator
from falcon_ssl.engine.lars import LARS
from falcon_ssl.engine.muon import Muon
from falcon_ssl.engine.skipping import assign_unless
from falcon_ssl.engine.step import TrainingStep
from falcon_ssl.evaluation.evaluate import evaluate_features
from falcon_ssl.evaluation.features import extract
from falcon_ssl.methods import Method
from falcon_ssl.views import build_views
from support.every_method import METHODS
from support.falcon_losses import FALCON
from support.simulated_gpu import Log, Simulated, on_gpu, simulated_gpu

ROWS, SIDE = 8, 8
SHAPE = (3, SIDE, SIDE)
SMALL = {"hidden_dim": 16, "embed_dim": 8}
KINDS: dict[str, dict[str, Any]] = METHODS | {
    "byol": {"byol": SMALL},
    "simclr": {"simclr": SMALL},
    "dino with small views": METHODS["dino"] | {"views": {"small_views": 2, "small_size": 8}},
    "places": {"falcon": {"embed_dim": 16, "places": True}, "encoder": {"name": "resnet8"}},
}


def configuration(kind: str, **optim: Any) -> RunConfig:
    options = KINDS[kind]
    methods = set(options) - {"views", "encoder"}
    config: dict[str, Any] = {
        "method": methods.pop(),
        "batch_size": ROWS,
        "epochs": 2,
        "engine": {"device": "cpu", "precision": "no"},
        "encoder": {"name": "digits_cnn"},
        "optim": {"warmup_epochs": 0, **optim},
        **options,
    }
    config["views"] = {"preset": "cifar", "size": SIDE, **options.get("views", {})}
    return from_mapping(config)


def images() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (ROWS, *SHAPE), dtype=torch.uint8, generator=generator)


def step_of(config: RunConfig, *, gpu: bool) -> tuple[Method, TrainingStep]:
    torch.manual_seed(0)
    views, method = build(config, SHAPE)
    accelerator = build_accelerator(config.engine)
    if gpu:
        accelerator = on_gpu(accelerator)
    step = TrainingStep(method, views, config=config, num_steps=20, accelerator=accelerator)
    return method, step


def two_steps(config: RunConfig, *, gpu: bool, log: Log | None = None) -> dict[str, float]:
    """Terms of the second of two steps; the log holds that one alone."""
    _, step = step_of(config, gpu=gpu)
    batch = images().to("cuda") if gpu else images()
    for number in range(2):
        if log is not None:
            log.clear()
        step(batch, number)
    if log is not None:
        assert log.waits == []
    terms = step.terms()
    assert log is None or len(log.waits) == 1, "one wait when a step is logged"
    return terms


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_runs_on_a_gpu_without_waiting_and_computes_what_a_cpu_does(kind: str) -> None:
    config = configuration(kind)
    with simulated_gpu() as log:
        there = two_steps(config, gpu=True, log=log)
    here = two_steps(config, gpu=False)
    assert there == pytest.approx(here, rel=2e-3, abs=1e-4)


@pytest.mark.parametrize("optimizer", ["lars", "muon", "adamw"])
def test_an_optimizer_moves_all_parameters_with_few_launches(optimizer: str) -> None:
    """As many for a hundred parameters as for ten; only the matrices of a shape share those of Muon."""
    config = configuration("byol", name=optimizer, clip_norm=1.0)
    with simulated_gpu() as log:
        there = two_steps(config, gpu=True, log=log)
    assert log.launches["optimizer"] <= {"lars": 50, "muon": 220, "adamw": 6}[optimizer]
    assert log.launches["clip"] <= 8
    assert log.launches["hooks"] <= 2, "the average follows"
    assert log.launches["check"] <= 30
    here = two_steps(config, gpu=False)
    assert there == pytest.approx(here, rel=2e-3, abs=1e-4)


def test_views_and_loss_take_few_launches() -> None:
    config = configuration("complete")
    with simulated_gpu() as log:
        two_steps(config, gpu=True, log=log)
    assert log.launches["views"] <= 110
    assert log.launches["loss"] <= 60


@pytest.mark.parametrize("name", [*FALCON, "triton"])
def test_a_back_end_runs_on_a_gpu_without_waiting(name: str) -> None:
    def gradient(u_VNF: Tensor, log: Log | None = None) -> Tensor:
        torch.manual_seed(0)
        u_VNF.requires_grad_()
        loss = FALCON["chunked" if name == "triton" else name]().to(u_VNF.device)
        loss(*u_VNF)  # norms are checked once
        torch.manual_seed(0)
        if log is not None:
            log.clear()
        loss(*u_VNF).total.backward()
        assert log is None or log.waits == []
        assert u_VNF.grad is not None
        return u_VNF.grad

    u_VNF = normalize(torch.randn(2, 9, 16, generator=torch.Generator().manual_seed(1)), dim=2)
    expected = gradient(u_VNF.clone())
    with simulated_gpu() as log:
        found = gradient(u_VNF.to("cuda"), log)
        assert isinstance(found, Simulated)
    torch.testing.assert_close(found.values, expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("preset", ["cifar", "imagenet", "grayscale", "bands", "digits"])
def test_views_are_made_on_a_gpu_without_waiting(preset: str) -> None:
    channels = {"grayscale": 1, "digits": 1, "bands": 5}.get(preset, 3)
    pixels = torch.randint(256, (6, channels, 20, 16), dtype=torch.uint8)
    config: Any = preset if preset == "digits" else {"preset": preset, "size": 12}
    views = build_views(config if preset == "digits" else from_mapping({"views": config}).views)

    def drawn(images: Tensor) -> list[Tensor]:
        return views(images, generator=torch.Generator().manual_seed(3))

    with simulated_gpu() as log:
        batch = pixels.to("cuda")
        drawn(batch)
        log.clear()
        found = drawn(batch)
        assert log.waits == []
        assert all(isinstance(view, Simulated) for view in found)
        whole = views.evaluate(batch)
    for there, here in zip(found, drawn(pixels), strict=True):
        if preset not in ("grayscale", "bands", "digits"):  # whose noise is the device's own
            torch.testing.assert_close(there.values, here, rtol=0, atol=1e-3)
    torch.testing.assert_close(whole.values, views.evaluate(pixels), rtol=0, atol=1e-5)


def test_batches_come_to_a_gpu_without_waiting() -> None:
    source = TensorSource(torch.randint(256, (64, *SHAPE), dtype=torch.uint8), name="noise")
    with simulated_gpu() as log:
        loader = ResidentLoader(source, batch_size=ROWS, seed=0, device="cuda")
        batches = loader.epoch_batches(epoch=0)
        next(batches)  # the images are copied once
        log.clear()
        _, pixels = next(batches)
        assert isinstance(pixels, Simulated)
        assert log.waits == []


def test_features_are_extracted_and_evaluated_on_a_gpu() -> None:
    config = configuration("falcon")
    source = TensorSource(torch.randint(256, (64, *SHAPE), dtype=torch.uint8), name="noise")
    source.labels = torch.arange(64) % 3
    views, method = build(config, SHAPE)

    def numbers(device: str) -> dict[str, float]:
        features = extract(
            method.to(device), source, views, device=device, dictionary=method.dictionary
        )
        return evaluate_features(
            features,
            features,
            num_classes=3,
            num_codes=64,
            dictionary=method.dictionary,
            device=device,
        )

    here = numbers("cpu")
    with simulated_gpu():
        there = numbers("cuda")
    assert there == pytest.approx(here, rel=1e-3, abs=0.02)


MISTAKES: dict[str, Callable[[Tensor], object]] = {
    "item": lambda x: x.sum().item(),
    "bool": lambda x: bool(x.any()),
    "tolist": lambda x: x.tolist(),
    "cpu": lambda x: x.cpu(),
    "nonzero": lambda x: x.nonzero(),
    "mask": lambda x: x[x > 0],
    "assigned by a mask": lambda x: x.clone().__setitem__(x > 0, torch.zeros((), device=x.device)),
    "index of the host": lambda x: x[torch.tensor([0, 1])],
    "constant": lambda x: x.new_tensor([1.0, 2.0]),
    "blocking copy": lambda x: torch.ones(2).to(x.device),
    "copied over": lambda x: x.copy_(torch.ones(3)),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_simulation_notes_every_wait(mistake: str) -> None:
    with simulated_gpu() as log:
        x = torch.ones(3, device="cuda")
        assert log.waits == []
        MISTAKES[mistake](x)
    assert len(log.waits) == 1, log.waits


def test_the_simulation_refuses_tensors_of_the_host() -> None:
    with simulated_gpu() as log:
        x = torch.ones(3, device="cuda")
        assert (x + torch.tensor(1.0)).device.type == "cuda"  # 0-dim, as on CUDA
        for wrong in (lambda y: x + y, lambda y: x.dot(y), lambda y: torch.cat([x, y])):
            with pytest.raises(RuntimeError, match="same device"):
                wrong(torch.ones(3))
        x.to("cuda", non_blocking=True)
        torch.ones(3).to("cuda", non_blocking=True)
        assert log.waits == []
        assert len(log.uploads) == 1


def test_a_wait_and_a_wrong_device_in_a_method_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control of the tests of whole steps."""
    config = configuration("vicreg")
    with simulated_gpu() as log:
        method, step = step_of(config, gpu=True)
        batch = images().to("cuda")
        project = method.project
        monkeypatch.setattr(
            method, "project", lambda views: (views[0].mean().item(), project(views))[1]
        )
        step(batch, 0)
        log.clear()
        step(batch, 1)
        assert len(log.waits) == 1
        monkeypatch.setattr(
            method, "project", lambda views: project([v + torch.ones(SIDE) for v in views])
        )
        with pytest.raises(RuntimeError, match="same device"):
            step(batch, 2)


def test_launches_are_counted_by_lists_that_a_kernel_takes() -> None:
    with simulated_gpu() as log:
        xs = [torch.ones(2, device="cuda"), torch.ones(3, device="cuda")]
        log.clear()
        torch._foreach_add(xs, xs)
        assert log.launches.total() == 1
        torch._foreach_mul(xs, [x.sum() for x in xs])  # broadcast: one by one
        assert log.launches.total() == 1 + 2 + 2


@pytest.mark.parametrize("skip", [0.0, 1.0])
def test_assignments_are_skipped_whatever_is_assigned(skip: float) -> None:
    def outcome(device: str) -> list[Tensor]:
        old = [torch.tensor([1.0, torch.nan]), torch.tensor([3, 4]), torch.tensor([True, False])]
        new = [torch.tensor([torch.nan, -0.0]), torch.tensor([-1, 7]), torch.tensor([False, True])]
        old, new = ([x.to(device) for x in xs] for xs in (old, new))
        expected = [x.clone() for x in (old if skip else new)]
        assign_unless(torch.tensor(skip, device=device), old, new)
        for found, wanted in zip(old, expected, strict=True):
            assert torch.equal(found.cpu().nan_to_num(9), wanted.cpu().nan_to_num(9))
        return old

    outcome("cpu")
    with simulated_gpu():
        outcome("cuda")


@pytest.mark.parametrize("kind", [LARS, Muon])
def test_lars_and_muon_move_alike_on_both_devices(kind: type[LARS] | type[Muon]) -> None:
    def moved(device: str) -> list[Tensor]:
        generator = torch.Generator().manual_seed(0)
        shapes = [(4, 3), (4, 3), (6, 3, 3, 3)] + ([(5,)] if kind is LARS else [])
        weights = [
            torch.nn.Parameter(torch.randn(s, generator=generator).to(device)) for s in shapes
        ]
        options: dict[str, Any] = {} if kind is LARS else {"bf16": False}
        optimizer = kind(weights, lr=0.1, weight_decay=0.01, **options)
        for _ in range(3):
            for w in weights:
                w.grad = torch.randn(w.shape, generator=generator).to(device)
            optimizer.step()
        return [w.detach() for w in weights]

    here = moved("cpu")
    with simulated_gpu():
        there = moved("cuda")
    for a, b in zip(there, here, strict=True):
        torch.testing.assert_close(a.values, b, rtol=1e-3, atol=2e-3 if kind is Muon else 1e-6)
