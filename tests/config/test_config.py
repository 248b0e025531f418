"""Configurations are checked when they are made and survive YAML."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from falcon_ssl.config import (
    EngineConfig,
    FalconConfig,
    OptimConfig,
    RunConfig,
    from_mapping,
    to_mapping,
)
from falcon_ssl.core.errors import InputError


@settings(deadline=None)  # a busy machine is no failure
@given(
    st.builds(
        RunConfig,
        epochs=st.integers(1, 100),
        seed=st.integers(0, 9),
        falcon=st.builds(
            FalconConfig,
            dictionary=st.just("hadamard"),
            num_codes=st.integers(2, 99),
            beta=st.floats(0, 9),
        ),
        engine=st.builds(EngineConfig, trackers=st.sampled_from([(), ("tensorboard",)])),
    )
)
def test_yaml_round_trip(config: RunConfig) -> None:
    assert from_mapping(yaml.safe_load(yaml.safe_dump(to_mapping(config)))) == config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epoch": 3}, "unknown option: received epoch, expected one of data"),
        ({"falcon": {"codes": 3}}, "received falcon.codes, expected one of dictionary"),
        ({"falcon": 3}, "falcon has the wrong type: received 3, expected a mapping"),
        ({"epochs": "many"}, "epochs has the wrong type: received 'many', expected an integer"),
        ({"epochs": True}, "epochs has the wrong type: received True, expected an integer"),
        (
            {"falcon": {"beta": [1]}},
            "falcon.beta has the wrong type: received [1], expected a number",
        ),
        (
            {"falcon": {"dictionary": "full"}},
            "unknown falcon.dictionary: received full, expected rademacher, hadamard or complete",
        ),
        ({"views": {"scale": [0.2]}}, "views.scale has the wrong type: received [0.2]"),
        ({"epochs": 0}, "epochs is too small: received 0, expected >= 1"),
        ({"batch_size": 1}, "batch_size is too small: received 1, expected >= 2"),
        ({"falcon": {"num_codes": 1}}, "falcon.num_codes is too small: received 1, expected >= 2"),
        ({"falcon": {"embed_dim": 0}}, "falcon.embed_dim is too small: received 0, expected >= 1"),
        ({"optim": {"lr": 0.0}}, "optim.lr is not positive: received 0.0, expected > 0"),
        ({"optim": {"lr": float("nan")}}, "optim.lr is not positive: received nan"),
        ({"epochs": 2, "optim": {"warmup_epochs": 3}}, "warm-up is longer than the run"),
        ({"engine": {"log_every": 0}}, "engine.log_every is too small: received 0, expected >= 1"),
    ],
)
def test_bad_values_are_refused_by_name(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        from_mapping(values)
    assert message in str(error.value)


def test_yaml_numbers_are_numbers() -> None:
    """YAML 1.1 reads 1e-8 as a word."""
    config = from_mapping(
        yaml.safe_load("falcon: {epsilon: 1e-8, beta: 1}\nviews: {scale: [1e-1, 1]}")
    )
    assert (config.falcon.epsilon, config.falcon.beta) == (1e-8, 1.0)
    assert config.views.scale == (0.1, 1.0)


def test_configurations_cannot_be_changed_in_place() -> None:
    with pytest.raises(AttributeError):
        OptimConfig().lr = 3.0  # type: ignore[misc]


def test_a_group_that_is_a_string_is_its_name() -> None:
    config = from_mapping({"encoder": "resnet18", "init": "runs/x", "views": {"preset": "cifar"}})
    assert (config.encoder.name, config.init.weights) == ("resnet18", "runs/x")
    for wrong in ({"falcon": "4096"}, {"optim": "lars"}, {"encoder": 3}):
        with pytest.raises(InputError, match="has the wrong type"):
            from_mapping(wrong)
