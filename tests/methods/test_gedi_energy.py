"""GEDI's energy term: samples by Langevin dynamics, and what they do to a run."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from falcon_ssl import commands
from falcon_ssl.config import GEDIConfig
from falcon_ssl.config.run import from_mapping
from falcon_ssl.core.errors import InputError
from falcon_ssl.methods import GEDI
from support.learning import learned_classes
from support.small_methods import parts, views


def gedi(**options: float) -> GEDI:
    config = GEDIConfig(32, 20, generative=True, buffer_size=40, **options)
    return GEDI(parts(), config)


def images(seed: int = 0, rows: int = 8) -> Tensor:
    return views(seed, rows)[0]


def begun(**options: float) -> GEDI:
    """With samples that have been continued before."""
    method = gedi(**options).eval()
    method.langevin.samples.uniform_(-1, 1, generator=torch.Generator().manual_seed(3))
    method.langevin.started.fill_(True)
    return method


def test_langevin_dynamics_lowers_the_energy() -> None:
    method = begun(sgld_steps=30, sgld_noise=0.0, restart=0.0)
    start = method.langevin.samples.clone()
    drawn = method.draw(images())
    kept = method.langevin.samples
    moved = [i for i in range(40) if not torch.equal(kept[i], start[i])]
    assert len(moved) == 8
    with torch.no_grad():
        assert method.energies(drawn).mean() < method.energies(start[moved]).mean() - 1e-3
    assert {tuple(x.flatten().tolist()) for x in drawn} == {
        tuple(kept[i].flatten().tolist()) for i in moved
    }


def test_one_langevin_step_is_the_formula() -> None:
    method = begun(sgld_steps=1, sgld_noise=0.0, sgld_step_size=0.7, restart=0.0)
    start = method.langevin.samples.clone()
    method.draw(images())
    x = start.clone().requires_grad_()
    slope = torch.autograd.grad(method.energies(x).sum(), x)[0]
    changed = (method.langevin.samples != start).flatten(1).any(dim=1)
    assert int(changed.sum()) == 8
    torch.testing.assert_close(method.langevin.samples[changed], (start - 0.7 * slope)[changed])


def test_samples_leave_batch_statistics_and_gradients_alone() -> None:
    method, plain = gedi(sgld_steps=3, energy_weight=0.2), gedi(sgld_steps=3)
    plain.langevin = None
    out, other = method(views()), plain(views())
    for (name, mine), theirs in zip(
        method.encoder.named_buffers(), plain.encoder.buffers(), strict=True
    ):
        assert torch.equal(mine, theirs), name
    assert method.training
    assert all(child.training for child in method.modules())
    assert all(p.grad is None for p in method.parameters())
    assert float(out.terms["total"]) == pytest.approx(
        float(other.terms["total"]) + 0.2 * float(out.terms["energy"]), rel=1e-5
    )
    out.loss.backward()
    assert math.isfinite(float(method.encoder[1].weight.grad.sum()))


@pytest.mark.parametrize("restart", [0.0, 1.0])
def test_samples_start_uniform_in_the_range_of_the_images(restart: float) -> None:
    method = gedi(sgld_steps=1, sgld_noise=0.0, sgld_step_size=0.0, restart=restart)
    method.langevin.samples.fill_(7.0)
    seen = images(rows=20) * 0.5 + 3
    drawn = method.draw(seen)  # no sample has been started yet, so all are
    low, high = float(seen.min()), float(seen.max())
    assert low <= float(drawn.min()) < low + 0.05
    assert high - 0.05 < float(drawn.max()) <= high
    assert float(drawn.var()) == pytest.approx((high - low) ** 2 / 12, rel=0.1)
    method.step = 1
    kept = {tuple(x.flatten().tolist()) for x in method.langevin.samples}
    again = [tuple(x.flatten().tolist()) in kept for x in method.draw(torch.cat([seen, seen]))]
    assert sum(again) == (20 if restart == 0 else 0)


def test_samples_stay_in_the_range_of_the_images() -> None:
    drawn = begun(sgld_steps=3, sgld_step_size=1e4).draw(images())
    assert images().min() <= drawn.min() < drawn.max() <= images().max()


def test_the_energy_has_a_temperature_of_its_own() -> None:
    method, other = gedi(temperature=0.1).eval(), gedi(temperature=0.5).eval()
    with torch.no_grad():
        s_NC = method.head(method.encoder(images()))
    torch.testing.assert_close(method.energies(images()), -s_NC.logsumexp(dim=1))
    torch.testing.assert_close(method.energies(images()), other.energies(images()))
    hot = gedi(energy_temperature=2.0).eval()
    torch.testing.assert_close(hot.energies(images()), -(s_NC / 2).logsumexp(dim=1))


def test_images_of_the_energy_term_are_noisy() -> None:
    seen: list[Tensor] = []
    method = gedi(sgld_steps=1, data_noise=0.5)
    method.encoder.register_forward_hook(lambda _, x, __: seen.append(x[0].detach()))
    method(views(rows=40))
    noise = seen[-1][:40] - images(rows=40)
    assert float(noise.std()) == pytest.approx(0.5, rel=0.05)
    method.step = 1
    method(views(rows=40))
    assert not torch.allclose(seen[-1][:40] - images(rows=40), noise)


def test_a_buffer_smaller_than_the_batch_is_refused() -> None:
    with pytest.raises(InputError, match="buffer of samples is smaller than the batch"):
        gedi().draw(images(rows=41))
    with pytest.raises(InputError, match="no samples"):
        GEDI(parts(), GEDIConfig(32, 20)).draw(images())
    with pytest.raises(InputError, match="another size than the samples"):
        gedi().draw(images()[:, :, :4])


def test_an_energy_term_does_not_undo_what_is_learned(tmp_path: Path) -> None:
    """At a temperature of .1 and a weight of 1 its energy ran to -77 here, and to thousands in longer runs."""
    clear = {"beta": 0.3, "temperature": 0.3}  # learns the classes in four epochs
    energy = {"generative": True, "sgld_steps": 3, "buffer_size": 1000}
    config = from_mapping(
        {
            "method": "gedi",
            "gedi": {"hidden_dim": 128, "num_prototypes": 60, **clear, **energy},
            "epochs": 4,
            "batch_size": 128,
            "optim": {"warmup_epochs": 0.5},
            "engine": {"device": "cpu", "log_every": 1},
        }
    )
    run = commands.pretrain(config, out=tmp_path / "run", monitors=[])
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert all(abs(line["energy"]) < 5 and line["grad_norm"] < 20 for line in lines)
    assert learned_classes(run) > 0.05
