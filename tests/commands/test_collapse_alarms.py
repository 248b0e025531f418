"""Broken configurations of real runs on the digits give their alarm; the default gives none."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from falcon_ssl import cli, commands
from falcon_ssl.commands import loading
from falcon_ssl.config import FalconConfig, MonitorConfig, OptimConfig, RunConfig
from falcon_ssl.engine import RunFolder
from falcon_ssl.methods import Method

PATIENCE = 20  # steps; the default of 200 is for runs that are longer than these 44
CODES = 1024  # a quarter of the default: faster, and as easily broken
WATCHED = MonitorConfig(patience=PATIENCE, every_epochs=0)
SHORT = RunConfig(
    epochs=2,
    batch_size=64,
    monitor=WATCHED,
    optim=OptimConfig("adamw", lr=2e-3),
    falcon=FalconConfig(
        dictionary="rademacher", num_codes=CODES, embed_dim=128, epsilon=1e-8, beta=1.0
    ),
)


def alarms(config: RunConfig, out: Path) -> dict[str, str]:
    run = commands.pretrain(config, out=out)
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return {line["alarm"]["name"]: line["alarm"]["text"] for line in lines if "alarm" in line}


def falcon(**options: Any) -> RunConfig:
    return replace(SHORT, falcon=replace(SHORT.falcon, **options))


@pytest.mark.parametrize("dictionary", ["rademacher", "complete"])
def test_the_default_gives_no_alarm(dictionary: str, tmp_path: Path) -> None:
    config = replace(SHORT, falcon=FalconConfig(dictionary=dictionary), optim=OptimConfig())
    assert alarms(config, tmp_path / "run") == {}


@pytest.mark.parametrize(
    ("config", "name", "words"),
    [
        (
            falcon(beta=0.0),
            "views_disagree",
            "two views of an image differ as much as at the start",
        ),
        (
            replace(SHORT, falcon=FalconConfig(beta=0.0), optim=OptimConfig()),
            "views_disagree",
            "two views of an image differ as much as at the start",
        ),
        (
            replace(falcon(beta=100.0), epochs=6, batch_size=128),
            "few_codes",
            f"of {CODES} codes used by 128 images: is beta too large?",
        ),
        (falcon(epsilon=0.999 / CODES), "uniform_assignment", "is the temperature right?"),
        (
            replace(SHORT, falcon=FalconConfig(dictionary="complete", temperature=100.0)),
            "uniform_assignment",
            "is the temperature right?",
        ),
        (
            replace(SHORT, optim=OptimConfig("adamw", lr=1e-12)),
            "views_disagree",
            "the learning rate too small",
        ),
    ],
    ids=["beta-0", "default-beta-0", "beta-100", "epsilon", "soft-complete", "learning-rate"],
)
def test_a_broken_configuration_gives_its_alarm(
    config: RunConfig, name: str, words: str, tmp_path: Path
) -> None:
    found = alarms(config, tmp_path / "run")
    assert words in found[name]
    beside = {"no_progress"} if config.optim.peak_lr < 1e-9 else set()
    assert found.keys() == {name} | beside, "no alarm that misleads beside it"


def break_encoder(monkeypatch: pytest.MonkeyPatch, how: Callable[[nn.Module], object]) -> None:
    """Damage the encoder of the next run, whatever its options."""
    built = loading.build_method

    def build(*args: Any, **options: Any) -> Method:
        method = built(*args, **options)
        how(method.encoder)
        return method

    monkeypatch.setattr(loading, "build_method", build)


def test_a_frozen_encoder_is_noticed_although_the_projector_learns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_encoder(monkeypatch, lambda encoder: encoder.requires_grad_(False))
    found = alarms(SHORT, tmp_path / "run")
    assert "the weights of the encoder do not change: is it frozen?" in found["frozen_encoder"]


def test_an_encoder_that_answers_zeros_has_no_directions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_encoder(
        monkeypatch, lambda encoder: encoder.register_forward_hook(lambda _, images, z: 0 * z)
    )
    found = alarms(SHORT, tmp_path / "run")
    assert found.keys() >= {"uniform_assignment", "few_directions", "few_codes"}
    assert "0 of 128 embedding directions" in found["few_directions"]
    assert f"1 of {CODES} codes used" in found["few_codes"]


def test_on_collapse_stop_ends_the_run_and_keeps_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunFolder(tmp_path / "run")
    options = ("--epochs", "2", "--batch_size", "64", "--falcon.beta", "0")
    watched = ("--monitor.on_collapse", "stop", "--monitor.patience", "10")
    assert cli.main(["pretrain", "--out", str(run.path), *options, *watched]) == 3
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("falcon-ssl: collapsed: step 1")
    assert "for 10 steps: two views of an image" in error
    assert json.loads((run.path / "checkpoint" / "state.json").read_text())["step"] < 20
    commands.load_run(run.path)  # the checkpoint of the last step is there
