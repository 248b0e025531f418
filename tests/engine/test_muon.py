"""Muon: against its formula and against torch's own, what it leaves to AdamW, steps that are skipped."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from falcon_ssl.config import METHODS
from falcon_ssl.config.run import OptimConfig, from_mapping
from falcon_ssl.engine import muon
from falcon_ssl.engine.muon import Muon, orthogonal
from falcon_ssl.engine.optim import build_optimizer, orthogonalized
from falcon_ssl.methods import build_method


def gradients(*shape: int, count: int = 4) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return list(torch.randn(count, *shape, generator=generator))


def trained(optimizer: torch.optim.Optimizer, w: Tensor, grads: list[Tensor]) -> Tensor:
    for g in grads:
        w.grad = g.clone().to(w.dtype)
        optimizer.step()
    return w.detach()


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="came with torch 2.9")
@pytest.mark.parametrize("shape", [(8, 8), (6, 20), (20, 6)])
def test_it_is_the_muon_of_torch(shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(muon, "_dtype_of_products", lambda device: torch.bfloat16)
    ours, theirs = (nn.Parameter(torch.ones(shape)) for _ in range(2))
    mine = Muon([ours], lr=0.1, weight_decay=0.2, momentum=0.8, newton_schulz=5)
    reference = torch.optim.Muon(
        [theirs],
        lr=0.1,
        weight_decay=0.2,
        momentum=0.8,
        nesterov=True,
        ns_steps=5,
        adjust_lr_fn="match_rms_adamw",
    )
    found, expected = (
        trained(optimizer, w, gradients(*shape))
        for optimizer, w in ((mine, ours), (reference, theirs))
    )
    size = 0.1 * 0.2 * math.sqrt(max(shape))
    torch.testing.assert_close(found, expected, rtol=0, atol=0.02 * size)  # bfloat16
    plain = nn.Parameter(torch.ones(shape))
    other = trained(Muon([plain], lr=0.1, momentum=0.8), plain, gradients(*shape))
    assert (other - expected).abs().max() > 0.1 * size, "the decay matters here"


def by_the_formula(w: Tensor, grads: list[Tensor], lr: float, decay: float) -> Tensor:
    """With exact singular vectors."""
    v = torch.zeros_like(w)
    for g in grads:
        v = 0.9 * v + 0.1 * g
        u, _, vh = torch.linalg.svd((0.9 * v + 0.1 * g).flatten(1), full_matrices=False)
        size = lr * 0.2 * math.sqrt(max(w.flatten(1).shape))
        w = w - lr * decay * w - size * (u @ vh).view_as(w)
    return w


@pytest.mark.parametrize("shape", [(6, 20), (20, 6), (8, 3, 3, 3), (32, 2, 3, 3)])
@pytest.mark.parametrize("channels_last", [False, True])
def test_kernels_move_along_the_orthogonal_factor(
    shape: tuple[int, ...], channels_last: bool
) -> None:
    w = nn.Parameter(torch.ones(shape, dtype=torch.float64))
    if channels_last and w.ndim == 4:
        w.data = w.data.to(memory_format=torch.channels_last)
    grads = [g.double() for g in gradients(*shape)]
    expected = by_the_formula(w.detach().clone(), grads, lr=0.1, decay=0.2)
    found = trained(Muon([w], lr=0.1, weight_decay=0.2, newton_schulz=10), w, grads)
    size = 4 * 0.1 * 0.2 * math.sqrt(max(w.flatten(1).shape))  # of four steps
    # Jordan's polynomial leaves singular values within [.68, 1.14] and does not converge to 1.
    assert (found - expected).norm() < 0.3 * size * math.sqrt(min(w.flatten(1).shape))
    cosine = torch.cosine_similarity((found - 1).flatten(), (expected - 1).flatten(), dim=0)
    assert cosine > 0.97


@pytest.mark.parametrize("shape", [(16, 16), (2, 5, 40), (40, 5), (3, 8, 30)])
def test_singular_values_end_near_one_and_vectors_stay(shape: tuple[int, ...]) -> None:
    g = gradients(*shape, count=1)[0].double()
    found = orthogonal(g, 6)
    assert found.shape == g.shape
    values = torch.linalg.svdvals(found)
    assert values.min() > 0.65
    assert values.max() < 1.25
    u, _, vh = torch.linalg.svd(g, full_matrices=False)
    torch.testing.assert_close(u @ (u.mT @ found @ vh.mT) @ vh, found)  # the same subspaces
    inside = u.mT @ found @ vh.mT
    off = inside - torch.diag_embed(inside.diagonal(dim1=-2, dim2=-1))
    assert off.abs().max() < 1e-12
    assert torch.linalg.svdvals(orthogonal(g, 0)).min() < 0.65, "they were not there before"


def test_several_at_once_are_orthogonalized_alike() -> None:
    g = gradients(3, 8, 30, count=1)[0].double()
    torch.testing.assert_close(orthogonal(g, 5), torch.stack([orthogonal(one, 5) for one in g]))


def test_float32_is_as_good_as_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    g = gradients(2, 12, 30, count=1)[0]
    exact = orthogonal(g.double(), 5).float()
    for dtype, tolerance in ((torch.float32, 1e-4), (torch.bfloat16, 0.05)):
        monkeypatch.setattr(muon, "_dtype_of_products", lambda device, dtype=dtype: dtype)
        found = orthogonal(g, 5)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, exact, rtol=0, atol=tolerance)


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
def test_a_kernel_is_a_matrix_and_back(memory_format: torch.memory_format) -> None:
    w = torch.randn(4, 3, 2, 5).to(memory_format=memory_format)
    matrix = muon._as_matrix(w, w)
    assert matrix.shape == (4, 30)
    assert matrix.data_ptr() == w.data_ptr(), "nothing is copied"
    back = muon._as_kernel(matrix, w)
    assert torch.equal(back, w)
    assert back.stride() == w.stride()


def test_matrices_of_one_shape_do_not_touch_each_other() -> None:
    first, second, third = (nn.Parameter(torch.ones(4, 6)) for _ in range(3))
    trained(Muon([first], lr=0.1), first, gradients(4, 6))
    both = Muon([second, third], lr=0.1)
    third.grad = torch.eye(4, 6)
    trained(both, second, gradients(4, 6))
    torch.testing.assert_close(second, first, rtol=0, atol=0.002)
    assert not torch.equal(second, third)


def test_the_rest_is_torchs_adamw_bit_for_bit() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    config = OptimConfig(name="muon", lr=0.02, lr_rest=0.004, weight_decay=0.1)
    optimizer = build_optimizer(network, config)
    twins = [nn.Parameter(p.detach().clone()) for p in (network[3].weight, network[3].bias)]
    reference = torch.optim.AdamW(
        [
            {"params": twins[:1], "weight_decay": 0.1},
            {"params": twins[1:], "weight_decay": 0.0},
        ],
        lr=0.004,
        fused=True,
    )
    for step in range(3):
        for p in (*network.parameters(), *twins):
            p.grad = torch.full_like(p, 0.1 * step - 0.05)
        optimizer.step()
        reference.step()
    assert torch.equal(network[3].weight, twins[0])
    assert torch.equal(network[3].bias, twins[1])


def test_last_layer_norms_tokens_and_what_is_frozen_are_not_orthogonalized() -> None:
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token, self.scale = nn.Parameter(torch.ones(1, 1, 4)), nn.Parameter(torch.ones(()))
            self.frozen = nn.Linear(4, 4).requires_grad_(False)
            self.inner, self.norm = nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4)
            self.last = nn.Linear(4, 2)
            self.teacher = nn.Linear(4, 2).requires_grad_(False)

    network = Network()
    assert [p is network.inner.weight for p in orthogonalized(network)] == [True]
    optimizer = build_optimizer(network, OptimConfig(name="muon", lr=0.1, weight_decay=0.1))
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    for p in network.parameters():
        p.grad = torch.ones_like(p) if p.requires_grad else None
    network.last.bias.grad = None  # prototypes while they are frozen
    optimizer.step()
    same = {name for name, p in network.named_parameters() if torch.equal(p, before[name])}
    frozen = {"frozen.weight", "frozen.bias", "teacher.weight", "teacher.bias", "last.bias"}
    assert same == frozen


@pytest.mark.parametrize("name", METHODS)
def test_every_method_keeps_its_outputs_for_adamw(name: str) -> None:
    method = build_method(
        from_mapping({"method": name, "encoder": {"name": "digits_cnn"}}), image_shape=(1, 8, 8)
    )
    orthogonal_ids = {id(p) for p in orthogonalized(method)}
    names = [n for n, p in method.named_parameters() if id(p) in orthogonal_ids]
    assert any(n.startswith("encoder.") for n in names)
    trainable = [m for m in method.modules() if isinstance(m, nn.Linear) and m.weight.requires_grad]
    head = {"falcon": "projector", "byol": "predictor"}.get(name, "head")
    outputs = [m for m in getattr(method, head).modules() if isinstance(m, nn.Linear)]
    assert outputs[-1] is trainable[-1]
    assert id(outputs[-1].weight) not in orthogonal_ids
    assert not any("prototypes" in n or "classifiers" in n for n in names)


def test_a_skipped_step_changes_nothing() -> None:
    kernel, vector = nn.Parameter(torch.ones(3, 4)), nn.Parameter(torch.ones(4))
    optimizer = Muon(
        [{"params": [kernel]}, {"params": [vector], "orthogonal": False}], lr=0.1, weight_decay=0.1
    )
    for p in (kernel, vector):
        p.grad = torch.ones_like(p)
    optimizer.step()
    before = [x.clone() for x in (kernel, vector, *tensors_of(optimizer))]
    optimizer.found_inf = torch.ones(())
    for p in (kernel, vector):
        p.grad = torch.full_like(p, torch.nan)
    optimizer.step()
    after = [kernel, vector, *tensors_of(optimizer)]
    assert all(torch.equal(x, y) for x, y in zip(before, after, strict=True))
    optimizer.found_inf = torch.zeros(())
    for p in (kernel, vector):
        p.grad = torch.ones_like(p)
    optimizer.step()
    assert not any(torch.equal(x, y) for x, y in zip(before, after, strict=True))


def test_a_gradient_scaler_skips_steps_and_takes_its_scale_back() -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    plain, scaled = (nn.Parameter(torch.ones(3, 4)) for _ in range(2))
    x = torch.arange(12.0).view(3, 4)
    steps = [Muon([plain], lr=0.1), Muon([scaled], lr=0.1)]
    (plain * x).sum().backward()
    steps[0].step()
    scaler.scale((scaled * x).sum()).backward()
    scaler.step(steps[1])
    scaler.update()
    assert torch.equal(plain, scaled)
    scaled.grad = torch.full_like(scaled, torch.inf)
    scaler.step(steps[1])
    assert torch.equal(plain, scaled)


def tensors_of(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [x for entry in optimizer.state_dict()["state"].values() for x in entry.values()]


@pytest.mark.parametrize("out", [8, 10, 3])
def test_blocks_of_rows_are_matrices_of_their_own(out: int) -> None:
    whole = nn.Parameter(torch.zeros(out, 6))
    whole.grad = torch.randn(out, 6, generator=torch.Generator().manual_seed(0))
    Muon([whole], lr=1.0, block_rows=4).step()
    for first in range(0, out, 4):
        alone = nn.Parameter(torch.zeros_like(whole[first : first + 4]))
        alone.grad = whole.grad[first : first + 4].clone()
        Muon([alone], lr=1.0).step()
        torch.testing.assert_close(whole[first : first + 4], alone)
