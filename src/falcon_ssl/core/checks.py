"""Checks of what comes in; every complaint is an `InputError` (see `falcon_ssl.core.errors`)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from falcon_ssl.core.errors import InputError, did_you_mean

if TYPE_CHECKING:  # the report checks numbers where there is no torch
    from torch import Tensor


def check_at_least(name: str, value: float, least: float, *, fix: str = "") -> None:
    """Raise InputError unless ``value >= least``; NaN never passes."""
    if not value >= least:
        raise InputError(f"{name} is too small", received=value, expected=f">= {least}", fix=fix)


def check_positive(name: str, value: float, *, fix: str = "") -> None:
    """Raise InputError unless ``value`` is positive and finite; NaN never passes."""
    if not 0 < value < math.inf:
        wrong = "not finite" if value == math.inf else "not positive"
        raise InputError(f"{name} is {wrong}", received=value, expected="a number > 0", fix=fix)


def check_fraction(name: str, value: float, *, below_one: bool = False, fix: str = "") -> None:
    """Raise InputError unless ``0 <= value <= 1``, or ``0 <= value < 1``; NaN never passes."""
    if not 0 <= value <= 1 or (below_one and value == 1):
        expected = f"0 <= {name} {'<' if below_one else '<='} 1"
        raise InputError(f"{name} is out of range", received=value, expected=expected, fix=fix)


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Raise InputError unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise InputError(
            f"unknown {name}",
            received=repr(value),
            expected=f"one of {', '.join(choices)}",
            fix=did_you_mean(value, choices),
        )


def check_label_amount(name: str, amount: float) -> None:
    """Raise InputError unless an amount of labels is a fraction below 1, or from 1 on a whole number a class."""
    if not (0 < amount < 1 or (amount >= 1 and amount % 1 == 0)):
        raise InputError(
            f"unknown amount in {name}",
            received=amount,
            expected="a fraction below 1, or a whole number of images a class",
        )


def check_matrix(name: str, value: Tensor, *, columns: int | None = None) -> None:
    """Raise InputError unless ``value`` is a real floating [N, columns] tensor with N >= 1."""
    if value.dim() != 2:
        raise InputError(
            f"{name} has the wrong number of dimensions",
            received=f"shape {tuple(value.shape)}",
            expected="a matrix [N, F]",
            fix="pass one row per sample",
        )
    if not value.is_floating_point():
        raise InputError(
            f"{name} is not floating point",
            received=value.dtype,
            expected="float64, float32, bfloat16 or float16",
            fix=f"convert with {name}.float()",
        )
    if value.shape[0] == 0:
        raise InputError(
            f"{name} is empty", received="0 rows", expected="at least 1", fix="pass a batch"
        )
    if columns is not None and value.shape[1] != columns:
        raise InputError(
            f"{name} has the wrong width",
            received=f"{value.shape[1]} columns",
            expected=f"{columns}",
            fix="use the same width for embedding and dictionary",
        )


def check_entries(name: str, value: Tensor, count: int, *, each: str, fix: str) -> None:
    """Raise InputError unless ``value`` is a vector of so many entries, one for each code, prototype, ..."""
    if value.shape != (count,):
        raise InputError(
            f"{name} has the wrong shape",
            received=tuple(value.shape),
            expected=f"({count},), one entry a {each}",
            fix=fix,
        )


def check_same_shape(name1: str, value1: Tensor, name2: str, value2: Tensor) -> None:
    """Raise InputError unless the two tensors have the same shape."""
    if value1.shape != value2.shape:
        raise InputError(
            f"{name1} and {name2} differ in shape",
            received=f"{tuple(value1.shape)} and {tuple(value2.shape)}",
            expected="equal shapes, row i of each from the same sample",
            fix="pair the two views",
        )


def check_same_length(name1: str, rows1: Tensor, name2: str, rows2: Tensor) -> None:
    """Raise InputError unless the two have equally many rows."""
    if len(rows1) != len(rows2):
        raise InputError(
            f"{name1} and {name2} differ in length",
            received=f"{len(rows1)} and {len(rows2)}",
            expected="equal lengths, row i of each from the same sample",
        )


def check_finite(name: str, value: Tensor, *, fix: str) -> None:
    """Raise InputError when ``value`` holds NaN or infinity; says how many."""
    if bool(value.detach().sum().isfinite()):  # both survive a sum, which needs no copy
        return
    bad = int((~value.isfinite()).sum())
    if bad:  # and not a sum that is too large
        raise InputError(
            f"{name} holds values that are not finite",
            received=f"{bad} of {value.numel()} NaN or infinite",
            expected="finite numbers",
            fix=fix,
        )
