"""L, epsilon and the effective temperature."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from falcon_ssl import InputError, effective_temperature, logit_scale, logit_scale_from_temperature
from falcon_ssl.dictionary.hadamard import HadamardDictionary


@pytest.mark.parametrize("width", [4, 64, 384])
@pytest.mark.parametrize("epsilon", [1e-3, 1e-5, 1e-8])
def test_aligned_embedding_on_orthogonal_codes_gives_epsilon(width, epsilon):
    """p = (1 - eps (C - 1), eps, ..., eps), the identity that defines the temperature."""
    num_codes = width
    codes_CF = HadamardDictionary(num_codes, width).block(0, num_codes, dtype=torch.float64)
    u_F = codes_CF[1] / math.sqrt(width)
    p_C = (logit_scale(num_codes, epsilon) / math.sqrt(width) * codes_CF @ u_F).softmax(0)
    expected_C = torch.full((num_codes,), epsilon, dtype=torch.float64)
    expected_C[1] = 1 - epsilon * (num_codes - 1)
    assert torch.allclose(p_C, expected_C, rtol=1e-13, atol=0)


@given(num_codes=st.integers(2, 10**6), fraction=st.floats(1e-9, 0.999))
def test_definition(num_codes, fraction):
    epsilon = fraction / num_codes
    L = logit_scale(num_codes, epsilon)
    assert L > 0
    assert math.exp(L) * epsilon == pytest.approx(1 - epsilon * (num_codes - 1), rel=1e-9)


@given(width=st.integers(1, 4096), temperature=st.floats(1e-3, 1e3))
def test_temperature_is_inverted(width, temperature):
    L = logit_scale_from_temperature(width, temperature)
    assert effective_temperature(width, L) == pytest.approx(temperature, rel=1e-12)


@pytest.mark.parametrize(
    ("num_codes", "epsilon", "message"),
    [
        (
            100,
            0.01,
            r"too large for 100 codes: received 0.01, expected 0 < epsilon < 1/num_codes = 0.01",
        ),
        (4, 0.25, "1/num_codes = 0.25"),
        (2**128, 1e-8, r"too large for 2\^128 codes.*or state a temperature instead"),
        (2**2000, 1e-8, r"1/num_codes = 1/2\^2000"),
        (10, 0.0, "epsilon is not positive: received 0.0"),
        (10, float("nan"), "epsilon is not positive"),
        (1, 1e-8, "num_codes is too small: received 1"),
    ],
)
def test_bad_epsilon(num_codes, epsilon, message):
    with pytest.raises(InputError, match=message):
        logit_scale(num_codes, epsilon)


def test_the_largest_admissible_epsilon_is_admissible():
    largest = math.nextafter(1 / 128, 0)
    assert logit_scale(128, largest) >= 0


def test_bad_temperature():
    with pytest.raises(InputError, match="temperature is not positive"):
        logit_scale_from_temperature(8, 0.0)
    with pytest.raises(InputError, match="width is too small"):
        logit_scale_from_temperature(0, 1.0)
