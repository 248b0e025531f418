"""The loop: resume is bit-identical, a non-finite step never reaches the weights, folders are safe."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from falcon_ssl import commands
from falcon_ssl.config import (
    EncoderConfig,
    OptimConfig,
    RunConfig,
    ViewsConfig,
    from_mapping,
)
from falcon_ssl.core.errors import InputError
from falcon_ssl.core.monitor import Moment, Observation
from falcon_ssl.engine import NonFiniteError, RunFolder
from falcon_ssl.losses import FalconLoss, LossTerms
from falcon_ssl.records.lock import LOCK
from falcon_ssl.views import BatchSlice, Views
from support.short_runs import SHORT, differing, lines_of, tensors_of


class Watcher:
    """A monitor that counts its calls and may pull the plug."""

    def __init__(self, pull_at: int | None = None, stop_at: int | None = None) -> None:
        self.calls, self.pull_at, self.stop_at = 0, pull_at, stop_at
        self.seen: list[Moment] = []

    def __call__(self, moment: Moment) -> Observation:
        self.calls += 1
        self.seen.append(moment)
        if moment.step == self.pull_at:
            raise KeyboardInterrupt
        alarms = {"test": "something looks wrong"} if moment.step == 2 else {}
        at_end = {"top1_knn": 0.5} if moment.is_epoch_end else {}
        return Observation(
            metrics={"calls": self.calls},
            evaluation=at_end,
            alarms=alarms,
            stop=moment.step == self.stop_at,
        )

    def state_dict(self) -> dict[str, Any]:
        return {"calls": self.calls}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.calls = state["calls"]


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return commands.pretrain(
        SHORT, out=tmp_path_factory.mktemp("runs") / "whole", monitors=[Watcher()]
    )


@pytest.mark.parametrize("pull_at", [3, 5], ids=["after an epoch", "inside an epoch"])
def test_resume_is_bit_identical(whole_run: Path, tmp_path: Path, pull_at: int) -> None:
    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        commands.pretrain(SHORT, out=out, monitors=[Watcher(pull_at=pull_at)])
    torch.manual_seed(1234)  # whatever happened to the generators in between
    commands.pretrain(SHORT, out=out, monitors=[Watcher()], resume=True)
    assert differing(whole_run, out) == []
    assert lines_of(out) == lines_of(whole_run)


@pytest.mark.parametrize(
    "optim",
    [
        OptimConfig("adamw", weight_decay=0.04, weight_decay_end=0.4),
        OptimConfig(name="lars", lr=0.3, trust=0.02, clip_trust=True),
        OptimConfig(name="muon", lr=0.02, schedule="linear"),
    ],
    ids=["rising-decay", "lars", "muon"],
)
def test_resume_is_bit_identical_with_every_optimizer(optim: OptimConfig, tmp_path: Path) -> None:
    config = replace(SHORT, epochs=2, optim=optim)
    whole = commands.pretrain(config, out=tmp_path / "whole", monitors=[Watcher()])
    with pytest.raises(KeyboardInterrupt):
        commands.pretrain(config, out=tmp_path / "run", monitors=[Watcher(pull_at=3)])
    commands.pretrain(config, out=tmp_path / "run", monitors=[Watcher()], resume=True)
    assert differing(whole, tmp_path / "run") == []
    plain = commands.pretrain(
        replace(config, optim=OptimConfig("adamw")), out=tmp_path / "plain", monitors=[Watcher()]
    )
    name = "projector.linear.weight"
    assert not torch.equal(tensors_of(whole)[name], tensors_of(plain)[name])


def test_another_seed_is_another_run(whole_run: Path, tmp_path: Path) -> None:
    other = commands.pretrain(replace(SHORT, seed=1), out=tmp_path / "run", monitors=[])
    assert "projector.linear.weight" in differing(whole_run, other)


def test_records(whole_run: Path) -> None:
    lines = lines_of(whole_run, clock=True)
    steps = [line for line in lines if "total" in line]
    assert [line["step"] for line in steps] == [1, 2, 3, 4, 5, 6]
    needed = {"epoch", "seconds", "images_per_s", "lr", "grad_norm", "invariance", "prior_matching"}
    assert needed <= steps[0].keys()
    assert steps[0]["total"] == pytest.approx(
        SHORT.falcon.beta * steps[0]["invariance"] + steps[0]["prior_matching"], abs=1e-5
    )
    assert {"step": 2, "epoch": 1.0, "monitor": {"top1_knn": 0.5}} in lines
    alarm = {"step": 2, "epoch": 1.0, "alarm": {"name": "test", "text": "something looks wrong"}}
    assert alarm in lines
    environment = json.loads((whole_run / "environment.json").read_text())
    assert {"torch", "python", "device", "num_parameters", "command"} <= environment.keys()


def test_nothing_is_pickled(whole_run: Path) -> None:
    kinds = {path.suffix for path in whole_run.rglob("*") if path.is_file() and path.name != LOCK}
    assert kinds == {".yaml", ".jsonl", ".json", ".safetensors"}


def test_a_monitor_may_end_the_run(tmp_path: Path) -> None:
    run = commands.pretrain(SHORT, out=tmp_path / "run", monitors=[Watcher(stop_at=3)])
    assert lines_of(run)[-1]["step"] == 3
    assert json.loads((run / "checkpoint" / "state.json").read_text())["step"] == 3


@pytest.mark.parametrize("where", ["consistency", "grad_norm"])
def test_nan_stops_before_the_weights_move(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    forward, calls, before = FalconLoss.forward, [0], {}

    def poisoned(self: FalconLoss, *views: Tensor, num_targets: int | None = None) -> LossTerms:
        calls[0] += 1
        terms = forward(self, *views, num_targets=num_targets)
        if calls[0] < 3:
            return terms
        if where == "grad_norm":
            views[0].register_hook(lambda grad: grad * torch.inf)
            return terms
        return terms._replace(consistency=terms.consistency * torch.nan)

    class Snapshot(Watcher):
        def __call__(self, moment: Moment) -> Observation:
            before.update({k: v.clone() for k, v in moment.method.named_parameters()})
            self.method = moment.method
            return Observation()

    monkeypatch.setattr(FalconLoss, "forward", poisoned)
    snapshot = Snapshot()
    with pytest.raises(NonFiniteError, match=rf"step 3: {where} is (nan|inf)"):
        commands.pretrain(SHORT, out=tmp_path / "run", monitors=[snapshot])
    after = dict(snapshot.method.named_parameters())
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(
    "options",
    [
        {
            "falcon": {
                "dictionary": "rademacher",
                "num_codes": 64,
                "embed_dim": 16,
                "marginal_momentum": 0.9,
            }
        },
        {
            "method": "swav",
            "swav": {"hidden_dim": 32, "num_prototypes": 20, "queue_length": 512},
            "optim": {"name": "lars", "lr": 0.3, "trust": 0.02},
        },
        {"method": "dino", "dino": {"hidden_dim": 32, "num_prototypes": 20}},
    ],
    ids=["marginal", "lars, queue", "teacher"],
)
def test_nan_between_logged_steps_is_named_at_the_next(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two steps an epoch, of which the second is logged: the third is bad, the fourth good again and too late."""
    views, calls, methods = Views.__call__, [0], []

    def poisoned(self: Views, images: Tensor, *, generator: Any) -> list[Tensor]:
        calls[0] += isinstance(generator, BatchSlice)
        drawn = views(self, images, generator=generator)
        return [view * torch.nan for view in drawn] if calls[0] == 3 else drawn

    class Keeper(Watcher):
        def __call__(self, moment: Moment) -> Observation:
            methods.append(moment.method)
            return Observation()

    monkeypatch.setattr(Views, "__call__", poisoned)
    config = from_mapping(
        {"epochs": 3, "batch_size": 512, "engine": {"device": "cpu", "log_every": 10}, **options}
    )
    with pytest.raises(
        NonFiniteError, match=r"step 3: \w+ is nan.*the weights are those of step 2"
    ):
        commands.pretrain(config, out=tmp_path / "run", monitors=[Keeper()])
    assert calls == [4]
    checkpoint = tmp_path / "run" / "checkpoint"
    assert json.loads((checkpoint / "state.json").read_text())["step"] == 2
    assert [line["step"] for line in lines_of(tmp_path / "run")] == [2]
    kept, now = load_file(checkpoint / "model.safetensors"), methods[0].state_dict()
    assert [name for name in kept if not torch.equal(kept[name], now[name])] == []


def test_an_existing_folder_is_kept(whole_run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the run folder exists.*--resume.*--overwrite"):
        commands.pretrain(SHORT, out=whole_run, monitors=[])
    precious = tmp_path / "thesis"
    precious.mkdir()
    (precious / "chapter1.tex").write_text("once")
    with pytest.raises(InputError, match="not a run folder"):
        commands.pretrain(SHORT, out=precious, overwrite=True, monitors=[])
    assert (precious / "chapter1.tex").read_text() == "once"


def test_a_finished_run_trains_on_with_more_epochs(
    whole_run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "run"
    shutil.copytree(whole_run, out)
    caplog.set_level(logging.INFO)
    more = replace(SHORT, epochs=SHORT.epochs + 1)
    for _ in range(2):  # the second time it is finished again
        commands.pretrain(more, out=out, monitors=[Watcher()], resume=True)
    assert f"{more.epochs} epochs in place of {SHORT.epochs}" in caplog.text
    assert caplog.text.count("nothing is left to do; more --epochs train on") == 1
    kept = lines_of(whole_run, clock=True)
    assert lines_of(out, clock=True)[: len(kept)] == kept
    before, after = ([one for one in lines_of(r) if "lr" in one] for r in (whole_run, out))
    assert after[-1]["epoch"] == more.epochs
    assert after[len(before)]["lr"] > before[-1]["lr"], "as in a run of so many epochs"
    with pytest.raises(InputError, match="other values of epochs"):
        commands.pretrain(SHORT, out=out, monitors=[Watcher()], resume=True)


def test_resume_needs_the_same_options(whole_run: Path, tmp_path: Path) -> None:
    other = replace(SHORT, epochs=2, optim=OptimConfig(lr=1.0))
    with pytest.raises(
        InputError, match=r"of epochs, optim.lr: epochs 2, not 3; optim.lr 1.0, not None"
    ):
        commands.pretrain(other, out=whole_run, resume=True, monitors=[Watcher()])
    with pytest.raises(InputError, match=r"no run folder: received .*nowhere"):
        commands.pretrain(SHORT, out=tmp_path / "nowhere", resume=True, monitors=[])
    with pytest.raises(InputError, match="contradict each other"):
        commands.pretrain(SHORT, out=whole_run, resume=True, overwrite=True, monitors=[])


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"seed": 3}, "seed"),
        ({"optim": OptimConfig(lr=1.0)}, "optim.lr"),
        ({"encoder": EncoderConfig("resnet8")}, "encoder.name"),
        ({"views": ViewsConfig(size=6)}, "views.size"),
    ],
)
def test_other_options_are_refused_before_images_are_read(
    changed: dict[str, Any], name: str, whole_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what auto has chosen is compared afterwards."""

    def read(*args: object, **options: object) -> None:
        raise AssertionError("images are read")

    monkeypatch.setattr("falcon_ssl.commands.loading.load_splits", read)
    with pytest.raises(InputError, match=f"other values of {name}: "):
        commands.pretrain(replace(SHORT, **changed), out=whole_run, resume=True, monitors=[])
    with pytest.raises(AssertionError, match="images are read"):
        commands.pretrain(SHORT, out=whole_run, resume=True, monitors=[])


def test_a_batch_larger_than_the_images_is_named_before_its_memory(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="batch_size is larger than the data set"):
        commands.pretrain(replace(SHORT, batch_size=10**12), out=tmp_path / "run", monitors=[])


def test_a_damaged_checkpoint_says_so(tmp_path: Path) -> None:
    run = commands.pretrain(replace(SHORT, epochs=1), out=tmp_path / "run", monitors=[])
    weights = run / "checkpoint" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(InputError, match=r"cannot read .*model\.safetensors.*damaged"):
        commands.load_run(run)
    (run / "config.yaml").write_text("falcon: [")
    with pytest.raises(InputError, match="cannot read the configuration"):
        commands.load_run(run)
    with pytest.raises(InputError, match="no run folder"):
        RunFolder.open(tmp_path / "missing")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": 3}, "data has the wrong type: received 3"),
        ({"epochs": 2.5}, r"epochs has the wrong type: received 2\.5"),
        ({"seed": None}, "seed has the wrong type: received None"),
        ({"method": "fly"}, "unknown method: received 'fly'"),
    ],
)
def test_wrong_types_from_python_are_named(
    options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        commands.pretrain(RunConfig(**options), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
