"""L, epsilon and the effective temperature; the least entropy and the least loss of a collapsed network."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from falcon_ssl import (
    InputError,
    RademacherDictionary,
    codes_needed,
    effective_temperature,
    logit_scale,
    logit_scale_from_temperature,
)
from falcon_ssl.core.theory import collapse_threshold, least_entropy
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


C = 64


@pytest.mark.parametrize("epsilon", [1e-8, 1e-4, 1e-3, 0.9 / 64])
def test_least_entropy_is_the_formula_of_the_theory(epsilon):
    kept = 1 - (C - 1) * epsilon
    expected = -kept * math.log(kept) - (C - 1) * epsilon * math.log(epsilon)
    assert least_entropy(C, logit_scale(C, epsilon)) == pytest.approx(expected, rel=1e-9)


@settings(deadline=None, max_examples=30)
@given(width=st.integers(1, 8), scale=st.floats(0.1, 30), seed=st.integers(0, 1000))
def test_no_embedding_is_surer_on_the_complete_dictionary(width, scale, seed):
    least = least_entropy(2**width, scale, complete=True)
    codes = np.array([[1 - 2 * (j >> f & 1) for f in range(width)] for j in range(2**width)])
    u = np.random.default_rng(seed).standard_normal(width)

    def entropy(u):
        s = scale * codes @ u / np.linalg.norm(u) / math.sqrt(width)
        p = np.exp(s - s.max())
        p /= p.sum()
        return -(p * np.log(np.maximum(p, 1e-300))).sum()

    assert entropy(u) >= least - 1e-9
    assert entropy(np.ones(width)) == pytest.approx(least, abs=1e-9)  # the bound is reached


def test_no_collapsed_network_is_below_the_threshold():
    """Over random assignments p, sharp and soft: the loss of everybody having p."""
    rng = np.random.default_rng(0)
    log_prior = rng.normal(size=C)
    prior = np.exp(log_prior) / np.exp(log_prior).sum()
    uniform = np.full(C, 1 / C)
    for _ in range(300):
        logits = rng.normal(size=C) * rng.uniform(0, 10)
        if rng.random() < 0.5:
            logits[rng.integers(C)] += rng.uniform(0, 15)
        log_p = logits - np.log(np.exp(logits - logits.max()).sum()) - logits.max()
        p = np.exp(log_p)
        entropy, beta = -(p * log_p).sum(), rng.uniform(0, 3)
        for q, given_prior in ((uniform, None), (prior, prior.tolist())):
            reverse = collapse_threshold(C, beta, "reverse", prior=given_prior)
            assert beta * entropy + (p * (log_p - np.log(q))).sum() >= reverse - 1e-9
            renyi2 = collapse_threshold(C, beta, "renyi2", prior=given_prior)
            assert beta * entropy + np.log((p**2 / q).sum()) >= renyi2 - 1e-9
        forward = collapse_threshold(C, beta, "forward")
        assert beta * entropy - (log_p / C).sum() >= forward - 1e-9


@pytest.mark.parametrize("num_codes", [2, 64, 4096, 65536])
@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0, 5.0])
def test_the_forward_threshold_is_reached(num_codes, beta):
    found = collapse_threshold(num_codes, beta, "forward")
    r = np.exp(np.linspace(-50, math.log1p(-1 / num_codes), 400_001))
    with np.errstate(divide="ignore", invalid="ignore"):
        other = r / (num_codes - 1)
        entropy = -np.where(r < 1, (1 - r) * np.log1p(-r), 0) - r * np.log(other)
        loss = beta * entropy - (np.log1p(-r) + (num_codes - 1) * np.log(other)) / num_codes
    assert found == pytest.approx(loss.min(), abs=1e-5)
    assert found <= (1 + beta) * math.log(num_codes) + 1e-9


def test_forward_at_small_beta_is_least_at_the_uniform_assignment():
    assert collapse_threshold(64, 0.01, "forward") == pytest.approx(1.01 * math.log(64), rel=1e-6)


def test_forward_at_beta_1_is_far_below_the_uniform_assignment():
    # One code with most of the mass pays less than a uniform assignment: certifying by (1 + beta) log C would be wrong.
    assert collapse_threshold(4096, 1.0, "forward") < 0.75 * 2 * math.log(4096)


@pytest.mark.parametrize(("num_codes", "temperature"), [(64, 0.38), (2048, 0.38), (512, 1.0)])
def test_codes_needed_is_what_drawn_dictionaries_deviate(num_codes, temperature):
    """Relative standard deviation of Z = sum_j exp(L cos(u, w_j)) over 400 dictionaries."""
    width = 128
    generator = torch.Generator().manual_seed(0)
    u_F = torch.nn.functional.normalize(torch.randn(width, generator=generator), dim=0)
    scale = logit_scale_from_temperature(width, temperature) / math.sqrt(width)
    z = torch.stack(
        [
            (scale * RademacherDictionary(num_codes, width, seed).block(0, num_codes) @ u_F)
            .exp()
            .sum()
            for seed in range(400)
        ]
    )
    drawn = float(z.std() / z.mean())
    assert codes_needed(temperature, drawn) == pytest.approx(num_codes, rel=0.35)
    assert codes_needed(temperature, drawn / 2) > 2 * num_codes


def test_codes_needed_refuses_nothing_positive():
    with pytest.raises(InputError, match="temperature is not positive"):
        codes_needed(0, 0.1)
    with pytest.raises(InputError, match="accuracy is not positive"):
        codes_needed(0.38, -1)
    with pytest.raises(InputError, match=r"exp\(1005\) codes are needed"):
        codes_needed(0.001, 0.1)
    assert codes_needed(0.0015, 0.1) > 10**290
