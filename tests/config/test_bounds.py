"""Every option states its meaning and bounds once, and one check reads them."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import pytest

from falcon_ssl.config import METHODS, RunConfig
from falcon_ssl.config.bounds import Options, option
from falcon_ssl.core.errors import InputError


@dataclass(frozen=True)
class TryConfig(Options, group="try"):
    """Options to try."""

    rate: float = option(0.5, "Step size.", above=0)
    fraction: float = option(0.0, "Of the run.", at_least=0, below=1)
    sizes: tuple[int, ...] = option((3,), "Widths.", at_least=2)
    start: float | None = option(None, "Where it starts.", at_least=0)
    kind: str = option("plain", "Plain or fancy.")
    extra: int = option(0, "Of the fancy kind.", at_least=0, needs="kind=fancy")
    more: int = option(0, "Only with a start.", needs="start")


def test_the_docstring_lists_the_options() -> None:
    assert TryConfig.__doc__ is not None
    assert TryConfig.__doc__.startswith("Options to try.\n\nArgs:\n    rate: Step size.\n")


@pytest.mark.parametrize(
    "given",
    [
        {"rate": 1},
        {"fraction": 0.9},
        {"sizes": (2, 9)},
        {"kind": "fancy", "extra": 2},
        {"start": None},
    ],
)
def test_values_within_their_bounds_pass(given: dict[str, Any]) -> None:
    assert TryConfig(**given) != TryConfig(kind="other")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rate": 0}, "try.rate is not positive: received 0, expected > 0"),
        ({"rate": math.nan}, "try.rate is not positive: received nan, expected > 0"),
        ({"rate": math.inf}, "try.rate is not finite: received inf, expected > 0"),
        ({"rate": None}, "try.rate has the wrong type: received None, expected > 0"),
        ({"fraction": 1.0}, "try.fraction is out of range: received 1.0, expected >= 0 and < 1"),
        ({"sizes": (3, 1)}, "try.sizes is too small: received 1, expected >= 2"),
        ({"start": -1}, "try.start is too small: received -1, expected >= 0"),
        ({"extra": 1}, "try.extra does nothing without try.kind=fancy: received 1"),
        ({"more": 1}, "try.more does nothing without try.start: received 1"),
    ],
)
def test_others_are_refused_by_name(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        TryConfig(**given)
    assert str(error.value).startswith(message)


def test_every_option_of_a_run_has_a_meaning() -> None:
    config = RunConfig()
    for of in fields(config):
        group = getattr(config, of.name)
        options = fields(group) if isinstance(group, Options) else [of]
        assert all(option.metadata["text"].endswith(".") for option in options), of.name


def test_the_meaning_of_the_method_names_them_all() -> None:
    (method,) = (of for of in fields(RunConfig) if of.name == "method")
    assert method.metadata["text"].startswith(", ".join(METHODS) + ", or python:")


def test_a_method_is_a_group_of_its_own_name() -> None:
    assert [getattr(RunConfig(), name).group for name in METHODS] == list(METHODS)
