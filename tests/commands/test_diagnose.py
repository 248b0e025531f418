"""`diagnose` of networks of other people: encoders by name with their weights, features, prototypes."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from falcon_ssl import cli, commands
from falcon_ssl.config import FalconConfig, MonitorConfig, RunConfig
from falcon_ssl.core.errors import InputError
from falcon_ssl.networks import build_encoder
from falcon_ssl.networks import timm as timm_encoders
from falcon_ssl.report import build_report

TIMM = "timm:resnet10t"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = RunConfig(
        epochs=1,
        falcon=FalconConfig(
            dictionary="rademacher",
            num_codes=64,
            embed_dim=16,
            epsilon=1e-8,
            beta=1.0,
            prior_exponent=1.0,
        ),
        monitor=MonitorConfig(every_epochs=0),
    )
    return commands.pretrain(config, out=tmp_path_factory.mktemp("diagnosing") / "run")


@pytest.fixture
def features() -> dict[str, np.ndarray[Any, Any]]:
    z = np.random.default_rng(0).normal(size=(300, 64)).astype(np.float32)
    return {"z": z}


def test_a_timm_encoder_with_its_weights_beside_an_untrained_one(tmp_path: Path) -> None:
    torch.manual_seed(1)
    encoder = build_encoder(TIMM, in_channels=1)
    weights = encoder.state_dict() | {"fc.weight": torch.zeros(10, 512)}  # a head that is left out
    save_file(weights, tmp_path / "weights.safetensors")
    found = commands.diagnose(TIMM, data="digits", weights=tmp_path / "weights.safetensors")
    rank = {m.name: m for m in found["dimensional"].measures}["effective_rank_z"]
    assert rank.random is not None
    assert rank.value != rank.random, "the weights were loaded"

    dead = {name: torch.zeros_like(value) for name, value in encoder.state_dict().items()}
    save_file(dead, tmp_path / "dead.safetensors")
    found = commands.diagnose(TIMM, data="digits", weights=tmp_path / "dead.safetensors")
    assert found.verdict == "collapsed"


def test_weights_that_timm_downloads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a network: what timm is asked for, and what is said when it fails."""
    timm = timm_encoders.import_beside_torchvision("timm")
    create = timm.create_model
    asked = []

    def create_offline(name: str, *, pretrained: bool, **options: Any) -> Any:
        asked.append(pretrained)
        return create(name, pretrained=False, **options)

    monkeypatch.setattr(timm, "create_model", create_offline)
    commands.diagnose(TIMM, data="digits", weights="pretrained")
    assert asked == [False, True]

    def fail(name: str, *, pretrained: bool, **options: Any) -> Any:
        if pretrained:
            raise ConnectionError("no network")
        return create(name, pretrained=False, **options)

    monkeypatch.setattr(timm, "create_model", fail)
    with pytest.raises(InputError, match=r"cannot get the weights of resnet10t: .*no network"):
        commands.diagnose(TIMM, data="digits", weights="pretrained")


def test_the_certificate_knows_a_prior_that_is_not_uniform(run: Path) -> None:
    certificate = commands.evaluate(run)["certificate"]
    assert certificate["mutual_information_bits"] is None, "the terms do not determine it"
    largest = 1 / sum(1 / j for j in range(1, 65))
    assert certificate["collapse_threshold"] == pytest.approx(-math.log(largest))


def test_exit_codes_of_health_and_collapse(
    tmp_path: Path, features: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    healthy, collapsed = str(tmp_path / "healthy.npz"), str(tmp_path / "collapsed.npz")
    np.savez(healthy, **features)
    np.savez(collapsed, z=np.ones_like(features["z"]))
    assert cli.main(["diagnose", healthy, "--fail_on_collapse"]) == 0
    assert cli.main(["diagnose", collapsed]) == 0
    capsys.readouterr()
    assert cli.main(["diagnose", collapsed, "--fail_on_collapse"]) == 3
    said = capsys.readouterr()
    assert "falcon-ssl: collapsed: Collapsed: all images get nearly the same" in said.err
    assert "mean_cosine_z" in said.out, "the table is there all the same"


def test_prototypes_beside_features_and_in_a_file_of_their_own(
    tmp_path: Path, features: dict[str, Any]
) -> None:
    without = tmp_path / "features.npz"
    np.savez(without, **features)
    assert commands.diagnose(without)["cluster"].verdict == "unknown"

    spread = np.random.default_rng(1).normal(size=(50, 64)).astype(np.float32)
    np.savez(tmp_path / "both.npz", **features, prototypes=spread)
    np.savez(tmp_path / "head.npz", prototypes=spread)
    inside = commands.diagnose(tmp_path / "both.npz")
    assert inside["cluster"].verdict == "healthy"
    assert inside == commands.diagnose(without, prototypes=tmp_path / "head.npz")

    # A head whose prototypes all point one way, with one that is nearest to everything.
    one = np.abs(features["z"]).max() * np.ones((1, 64), np.float32)
    np.savez(tmp_path / "one.npz", z=features["z"] + 10, prototypes=np.vstack([one, -spread * 9]))
    assert commands.diagnose(tmp_path / "one.npz")["cluster"].verdict == "collapsed"


def test_prototypes_of_another_method_for_a_run(run: Path, tmp_path: Path) -> None:
    own = commands.diagnose(run)
    record = (run / "diagnosis.json").read_text()
    assert json.loads(record)["verdict"] == own.verdict
    np.savez(tmp_path / "head.npz", prototypes=np.eye(16, dtype=np.float32)[:2])
    other = commands.diagnose(run, prototypes=tmp_path / "head.npz")
    used = {m.name: m.value for m in other["cluster"].measures}["codes_used"]
    assert used <= 2
    assert (run / "diagnosis.json").read_text() == record, "the record is about the run's own codes"


def test_a_run_of_few_steps_says_so_where_nobody_measured_more(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Five steps: no alarm can have been raised. A run whose labels are evaluated is judged by them."""
    commands.diagnose(run)
    sentence = "5 steps in all: too few to judge, as alarms need 200 on end"
    assert sentence in caplog.text
    shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("evaluation.json"))
    assert sentence in build_report(tmp_path / "run").read_text()
    (tmp_path / "run" / "environment.json").write_text("{")
    caplog.clear()
    commands.diagnose(tmp_path / "run")
    assert "steps in all" not in caplog.text


@pytest.mark.parametrize(
    ("target", "options", "message"),
    [
        ("nowhere", {}, "nothing to diagnose"),
        ("resnet99", {"data": "digits"}, "unknown encoder"),
        ("timm:resnet10t", {"data": "cats"}, "unknown data"),
        ("timm:resnet10t", {"data": "digits", "weights": "none.safetensors"}, "no initial weights"),
        ("resnet18", {"data": "digits", "weights": "pretrained"}, "only encoders of timm are pretrained"),
        ("FEATURES", {"data": "digits"}, "features in a file need no images"),
        ("FEATURES", {"weights": "w.safetensors"}, "weights are for an encoder by name"),
        ("FEATURES", {"prototypes": "FEATURES"}, "has no array prototypes"),
    ],
)  # fmt: skip
def test_bad_input(
    target: str,
    options: dict[str, Any],
    message: str,
    tmp_path: Path,
    features: dict[str, Any],
) -> None:
    path = tmp_path / "features.npz"
    np.savez(path, **features)
    given = {k: path if v == "FEATURES" else v for k, v in options.items()}
    with pytest.raises(InputError, match=message):
        commands.diagnose(path if target == "FEATURES" else target, **given)


def test_weights_of_another_encoder(tmp_path: Path) -> None:
    save_file({"nothing": torch.zeros(1)}, tmp_path / "weights.safetensors")
    with pytest.raises(InputError, match=r"does not fit the encoder DigitsCNN: received 0 of"):
        commands.diagnose("digits_cnn", data="digits", weights=tmp_path / "weights.safetensors")
