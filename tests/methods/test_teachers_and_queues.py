"""What single methods keep between batches: DINO's teacher and center, SwAV's queue."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from falcon_ssl import commands
from falcon_ssl.config import BYOLConfig, DINOConfig, GEDIConfig, LeJEPAConfig, SwAVConfig
from falcon_ssl.config.run import from_mapping
from falcon_ssl.core.monitor import Moment, Observation
from falcon_ssl.dictionary.assign import nearest_codes
from falcon_ssl.methods import BYOL, DINO, GEDI, LeJEPA, Method, Parts, SwAV
from falcon_ssl.networks import build_encoder
from support.small_methods import parts, views


def dino(**options: float) -> DINO:
    return DINO(parts(), DINOConfig(32, 16, 20, **options))


def step(method: nn.Module, seed: int, *, at: int = 0, num_steps: int = 10) -> None:
    """One step of gradient descent as the training loop takes it."""
    method.before_step(at, num_steps)
    method.zero_grad()
    method(views(seed)).loss.backward()
    with torch.no_grad():
        for parameter in method.parameters():
            if parameter.grad is not None:
                parameter -= 0.1 * parameter.grad
    method.after_step(at, num_steps)


def byol(**options: float) -> BYOL:
    return BYOL(parts(), BYOLConfig(32, 16, **options))


@pytest.mark.parametrize("name", ["dino", "byol"])
@pytest.mark.parametrize(("at", "momentum"), [(0, 0.9), (5, 0.95), (10, 1.0)])
def test_the_teacher_is_a_running_average_of_the_student(
    name: str, at: int, momentum: float
) -> None:
    method = dino(teacher_momentum=0.9) if name == "dino" else byol(target_momentum=0.9)
    teacher = method.teacher if isinstance(method, DINO) else method.target
    step(method, 0)
    before = {k: v.clone() for k, v in teacher.named_parameters()}
    student = dict(method.named_parameters())
    method.after_step(at, 10)
    for name, now in teacher.named_parameters():
        expected = momentum * before[name] + (1 - momentum) * student[name]
        torch.testing.assert_close(now, expected)


def test_the_target_of_byol_starts_as_the_online_network_and_is_not_trained() -> None:
    method = byol()
    online = dict(method.named_parameters())
    for name, parameter in method.target.named_parameters():
        assert torch.equal(parameter, online[name])
        assert not parameter.requires_grad
    assert method.evaluated_encoder is method.encoder, "the paper keeps the online encoder"
    assert any(name.startswith("predictor") for name in online), "which has a predictor alone"


def test_the_teacher_starts_as_the_student_and_is_not_trained() -> None:
    method = dino()
    for name, parameter in method.teacher.named_parameters():
        assert torch.equal(parameter, dict(method.named_parameters())[name])
        assert not parameter.requires_grad
    assert method.evaluated_encoder is method.teacher["encoder"]


def test_the_teacher_has_no_dropout() -> None:
    """The student drops paths and units at random; its teacher, as the authors', is built without."""
    encoder = build_encoder(
        "timm:vit_tiny_patch16_224", in_channels=1, image_size=16, patch_size=8, drop_path=0.5
    )
    encoder = nn.Sequential(encoder, nn.Dropout(0.3))
    method = DINO(Parts(encoder, 192, (1, 16, 16)), DINOConfig(32, 16, 20))
    images = torch.randn(8, 1, 16, 16)
    student, teacher = method.encoder, method.teacher["encoder"]
    assert student.training
    assert teacher.training
    assert torch.equal(teacher(images), teacher(images))
    torch.testing.assert_close(teacher(images), student.eval()(images))
    student.train()
    assert not torch.equal(student(images), student(images))


def test_the_teacher_is_evaluated_not_the_student() -> None:
    method = dino().eval()
    before = method.embed(views()[0])[0]
    with torch.no_grad():
        method.encoder[1].weight.add_(1.0)
    assert torch.equal(method.embed(views()[0])[0], before)
    with torch.no_grad():
        method.teacher["encoder"][1].weight.add_(1.0)
    assert not torch.equal(method.embed(views()[0])[0], before)


def test_the_temperature_of_the_teacher_warms_up() -> None:
    options = {"teacher_temperature_start": 0.02, "teacher_temperature_warmup": 0.4}
    method = dino(teacher_temperature=0.06, **options)
    seen = []
    for at in (0, 10, 20, 39, 40, 100):
        method.before_step(at, 100)
        seen.append(method.teacher_temperature)
    assert seen == pytest.approx([0.02, 0.03, 0.04, 0.059, 0.06, 0.06])
    # ... and it is that of the loss.
    cold, warm = dino(teacher_temperature=0.03), dino(teacher_temperature=0.06, **options)
    for at, alike in ((10, True), (11, False)):
        cold.before_step(at, 100)
        warm.before_step(at, 100)
        cold.center.zero_()
        warm.center.zero_()
        totals = [float(m(views()).terms["entropy"]) for m in (cold, warm)]
        assert (totals[0] == pytest.approx(totals[1], rel=1e-6)) is alike


def test_the_center_follows_the_teacher() -> None:
    method = dino(center_momentum=0.0)
    method.teacher.eval()
    with torch.no_grad():
        t_NC = torch.cat([method.teacher["prototypes"](method.embed(v)[1]) for v in views()])
    method(views())
    torch.testing.assert_close(method.center, t_NC.mean(dim=0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_codes_of_images_are_centered_as_the_teacher_is(dtype: torch.dtype) -> None:
    method = (
        dino().eval().to(dtype)
    )  # a moved module keeps prototypes and center that the dictionary follows
    with torch.no_grad():
        _, u_NF = method.embed(views(rows=40)[0].to(dtype))
        s_NC = method.teacher["prototypes"](u_NF)
        method.center.copy_(s_NC.mean(dim=0))
    assert method.dictionary is not None
    code_N = nearest_codes(u_NF, method.dictionary)
    assert torch.equal(code_N, (s_NC - method.center).argmax(dim=1))
    assert not torch.equal(code_N, s_NC.argmax(dim=1)), "the center decides some codes"


@pytest.mark.parametrize("name", ["dino", "swav"])
def test_prototypes_are_frozen_at_the_start(name: str) -> None:
    method = (
        dino(prototypes_frozen=0.2)
        if name == "dino"
        else SwAV(parts(), SwAVConfig(32, 16, 20, prototypes_frozen=0.2))
    )
    # Adam counts steps, and decays, wherever there is a gradient, be it zero.
    trained = [p for p in method.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.1, weight_decay=0.1)
    weight = method.prototypes.weight
    start = weight.detach().clone()
    for at in (0, 1):
        adam_step(method, optimizer, at)
        torch.testing.assert_close(weight.detach(), start)
        assert weight not in optimizer.state
    adam_step(method, optimizer, 2)
    assert not torch.allclose(weight, start)
    assert float(optimizer.state[weight]["step"]) == 1


def adam_step(method: Method, optimizer: torch.optim.Optimizer, at: int) -> None:
    """One step as the training loop takes it."""
    method.before_step(at, 10)
    method(views(at)).loss.backward()
    method.after_backward(at, 10)
    optimizer.step()
    optimizer.zero_grad()
    method.after_step(at, 10)


class Watch:
    """A monitor that keeps the prototypes of every step."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def __call__(self, moment: Moment) -> Observation:
        assert isinstance(moment.method, DINO)
        self.seen.append(moment.method.prototypes.weight.detach().clone())
        return Observation()

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: object) -> None:
        pass


def test_a_run_leaves_frozen_prototypes_where_they_are(tmp_path: Path) -> None:
    """No step and no decay: the loop takes their gradient away."""
    watch = Watch()
    config = from_mapping(
        {
            "method": "dino",
            "dino": {"hidden_dim": 32, "num_prototypes": 20, "prototypes_frozen": 0.5},
            "epochs": 2,
            "batch_size": 512,
            "optim": {"lr": 0.1, "weight_decay": 0.1},
            "engine": {"device": "cpu", "log_every": 1},
        }
    )
    commands.pretrain(config, out=tmp_path / "run", monitors=[watch])
    first, second, third, fourth = watch.seen
    assert torch.equal(first, second)
    assert not torch.equal(second, third)
    assert not torch.equal(third, fourth)


def test_prototypes_of_swav_have_length_one_after_every_step() -> None:
    method = SwAV(parts(), SwAVConfig(32, 16, 20, prototypes_frozen=0.0))
    step(method, 0)
    torch.testing.assert_close(method.prototypes.weight.norm(dim=1), torch.ones(20))


def test_the_queue_holds_the_newest_embeddings_and_is_used_once_full() -> None:
    method = SwAV(parts(), SwAVConfig(32, 16, 20, queue_length=20))
    plain = SwAV(parts(), SwAVConfig(32, 16, 20))
    plain.load_state_dict(method.state_dict(), strict=False)
    seen = []
    for seed in range(3):
        with_queue, without = method(views(seed)), plain(views(seed))
        assert torch.equal(
            with_queue.terms["total"], without.terms["total"]
        )  # 0, 8, 16 rows: not full
        seen.insert(0, with_queue.u_NF)
    torch.testing.assert_close(method.queue[0], torch.cat(seen)[:20])
    assert int(method.queue_rows) == 24
    assert not torch.equal(method(views(3)).terms["total"], plain(views(3)).terms["total"])


def test_the_queue_may_wait_for_a_fraction_of_the_run() -> None:
    """Until then nothing is kept, as in the authors' code; from then on it fills."""
    method = SwAV(parts(), SwAVConfig(32, 16, 20, queue_length=8, queue_starts=0.2))
    plain = SwAV(parts(), SwAVConfig(32, 16, 20))
    plain.load_state_dict(method.state_dict(), strict=False)
    kept, used = [], []
    for at in range(4):
        method.before_step(at, 10)
        alike = torch.equal(method(views(at)).terms["total"], plain(views(at)).terms["total"])
        kept.append(int(method.queue_rows))
        used.append(not alike)
    assert kept == [0, 0, 8, 16]
    assert used == [False, False, False, True]


def test_directions_of_lejepa_change_with_the_step() -> None:
    method = LeJEPA(parts(), LeJEPAConfig(32, 16, num_directions=4))
    totals = []
    for at in (0, 1, 0):
        method.before_step(at, 10)
        totals.append(float(method(views()).terms["total"]))
    assert totals[0] == totals[2] != totals[1]


def test_the_code_of_gedi_is_the_largest_output_of_its_head() -> None:
    method = GEDI(parts(), GEDIConfig(32, 20)).eval()
    with torch.no_grad():
        z_ND, u_NF = method.embed(views(rows=40)[0])
        s_NC = method.head(z_ND)
    assert method.dictionary is not None
    assert torch.equal(nearest_codes(u_NF, method.dictionary, block_size=7), s_NC.argmax(dim=1))
    assert len(s_NC.argmax(dim=1).unique()) > 3
    layers = [type(layer).__name__ for layer in method.head]
    assert layers == ["Linear", "GlobalBatchNorm", "ReLU", "Linear"], (
        "two layers, straight to the classes"
    )
