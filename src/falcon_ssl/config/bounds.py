"""Bounds of options."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from falcon_ssl.core.errors import InputError


def at_least(name: str, value: float, least: float) -> None:
    """Raise InputError unless ``value`` is a number and ``>= least``; NaN never passes."""
    if not isinstance(value, (int, float)):
        raise InputError(
            f"{name} has the wrong type",
            received=repr(value),
            expected=f"a number >= {least}",
            fix="see falcon-ssl pretrain --help",
        )
    if not value >= least:
        raise InputError(
            f"{name} is too small", received=value, expected=f">= {least}", fix="raise it"
        )


def positive(name: str, value: float) -> None:
    """Raise InputError unless ``value`` is positive and finite; NaN never passes."""
    if not 0 < value < math.inf:
        wrong = "not finite" if value == math.inf else "not positive"
        expected = "a number > 0, not infinite"
        raise InputError(f"{name} is {wrong}", received=value, expected=expected, fix="change it")


def share(name: str, value: float, *, below_one: bool = False) -> None:
    """Raise InputError unless ``0 <= value <= 1``, or ``0 <= value < 1``."""
    if not 0 <= value <= 1 or (below_one and value == 1):
        raise InputError(
            f"{name} is out of range",
            received=value,
            expected=f"0 <= {name} {'<' if below_one else '<='} 1",
            fix="state it as a share",
        )


def at_defaults(options: Any, group: str, names: Sequence[str], *, unless: str) -> None:
    """Raise InputError for an option that would do nothing: one that another setting switches on."""
    for option in dataclasses.fields(options):
        value = getattr(options, option.name)
        if option.name in names and value != option.default:
            raise InputError(
                f"{group}.{option.name} does nothing without {unless}",
                received=value,
                expected=unless,
                fix="set it, or leave the option out",
            )
