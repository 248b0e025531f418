"""Checks of what comes in."""

from __future__ import annotations

import math

import pytest
import torch

from falcon_ssl.core.checks import check_finite
from falcon_ssl.core.errors import InputError


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_large_numbers_whose_sum_overflows_are_finite(dtype: torch.dtype) -> None:
    values = torch.full((3, 4), torch.finfo(dtype).max, dtype=dtype)
    assert not values.sum().isfinite()
    check_finite("values", values, fix="")


@pytest.mark.parametrize("bad", [[math.nan], [math.inf], [-math.inf], [math.inf, -math.inf]])
def test_what_is_not_finite_is_counted(bad: list[float]) -> None:
    values = torch.zeros(10)
    values[: len(bad)] = torch.tensor(bad)
    with pytest.raises(InputError, match=f"{len(bad)} of 10 NaN or infinite"):
        check_finite("values", values.requires_grad_(), fix="")
