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
from falcon_ssl.core.errors import CollapseError
from falcon_ssl.engine import RunFolder
from falcon_ssl.methods import Method

PATIENCE = 20  # steps; the default of 200 is for runs that are longer than these 44
SHORT = RunConfig(epochs=2, batch_size=64, monitor=MonitorConfig(patience=PATIENCE, every_epochs=0))


def alarms(config: RunConfig, out: Path) -> dict[str, str]:
    run = commands.pretrain(config, out=out)
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return {line["alarm"]["name"]: line["alarm"]["text"] for line in lines if "alarm" in line}


def falcon(**options: Any) -> RunConfig:
    return replace(SHORT, falcon=FalconConfig(**options))


@pytest.mark.parametrize("dictionary", ["rademacher", "complete"])
def test_the_default_gives_no_alarm(dictionary: str, tmp_path: Path) -> None:
    assert alarms(falcon(dictionary=dictionary), tmp_path / "run") == {}


@pytest.mark.parametrize(
    ("config", "name", "words"),
    [
        (
            falcon(beta=0.0),
            "views_disagree",
            "two views of an image differ as much as at the start",
        ),
        (
            replace(falcon(beta=100.0), epochs=7, batch_size=128),
            "few_codes",
            "of 4096 codes used by 128 images: is beta too large?",
        ),
        (falcon(epsilon=0.999 / 4096), "uniform_assignment", "is the temperature right?"),
        (
            falcon(dictionary="complete", temperature=100.0),
            "uniform_assignment",
            "is the temperature right?",
        ),
        (
            replace(SHORT, optim=OptimConfig(lr=1e-12)),
            "views_disagree",
            "the learning rate too small",
        ),
    ],
    ids=["beta-0", "beta-100", "epsilon", "soft-complete", "learning-rate"],
)
def test_a_broken_configuration_gives_its_alarm(
    config: RunConfig, name: str, words: str, tmp_path: Path
) -> None:
    found = alarms(config, tmp_path / "run")
    assert words in found[name]
    beside = {"no_progress"} if config.optim.lr < 1e-9 else set()
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
    assert "1 of 4096 codes used" in found["few_codes"]


def test_on_collapse_stop_ends_the_run_and_keeps_it(tmp_path: Path) -> None:
    config = falcon(beta=0.0)
    stopping = replace(config, monitor=replace(config.monitor, on_collapse="stop"))
    with pytest.raises(CollapseError, match=r"step 2\d: for 20 steps: two views of an image"):
        commands.pretrain(stopping, out=tmp_path / "run")
    run = RunFolder.open(tmp_path / "run")
    assert json.loads((run.checkpoint / "state.json").read_text())["step"] < 30
    commands.load_run(run.path)  # the checkpoint of the last step is there


def test_on_collapse_stop_has_an_exit_code_and_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--epochs", "2", "--batch_size", "64", "--falcon.epsilon", "2.44e-4")
    watched = ("--monitor.on_collapse", "stop", "--monitor.patience", "10")
    out = str(tmp_path / "run")
    assert cli.main(["pretrain", "--out", out, *options, *watched]) == 3
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("falcon-ssl: collapsed: step 1")
    assert "invariance term at log C" in error
