import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from falcon_ssl.core.errors import InputError
from falcon_ssl.core.theory import collapse_threshold, least_entropy, logit_scale
from falcon_ssl.dictionary.rademacher import RademacherDictionary
from falcon_ssl.evaluation.certificate import certify
from falcon_ssl.losses import falcon_loss

C, N, F = 64, 32, 16
L = logit_scale(C, 1e-8)


def terms_of(u1, u2, *, beta=1.0, prior_matching="reverse", prior=None, scale=L):
    terms = falcon_loss(
        (u1, u2), RademacherDictionary(C, F, seed=0),
        logit_scale=scale, beta=beta, prior_matching=prior_matching, prior=prior, backend="reference",
    )  # fmt: skip
    return terms.as_floats()


def embeddings(*, seed: int, noise: float, same: bool = False):
    """Two views; every sample the same embedding when ``same``."""
    generator = torch.Generator().manual_seed(seed)
    center = torch.randn(1 if same else N, F, generator=generator, dtype=torch.float64)
    views = [
        center.expand(N, F) + noise * torch.randn(N, F, generator=generator, dtype=torch.float64)
        for _ in range(2)
    ]
    return [normalize(view, dim=1) for view in views]


@settings(deadline=None, max_examples=20)
@given(
    seed=st.integers(0, 100),
    noise=st.floats(0, 2),
    beta=st.floats(0, 3),
    prior_matching=st.sampled_from(["reverse", "forward", "renyi2"]),
)
def test_the_three_gaps_add_up_to_the_loss_above_its_bound(seed, noise, beta, prior_matching):
    options = {"beta": beta, "prior_matching": prior_matching}
    terms = terms_of(*embeddings(seed=seed, noise=noise), **options)
    found = certify(terms, num_codes=C, logit_scale=L, batch_size=N, **options)
    assert found.gap == pytest.approx(terms["total"] - found.bound, abs=1e-6)
    assert found.gap_consistency >= -1e-9
    assert found.gap_prior >= -1e-9


def test_at_the_optimum_all_gaps_vanish():
    # Orthogonal codes: 8 rows of a Hadamard matrix; each sample aligned with one, all equally often.
    hadamard = torch.tensor([[1.0]], dtype=torch.float64)
    for _ in range(3):
        hadamard = torch.cat(
            [torch.cat([hadamard, hadamard], 1), torch.cat([hadamard, -hadamard], 1)]
        )

    class Orthogonal(RademacherDictionary):
        def block(self, start, stop, *, device="cpu", dtype=torch.float32):
            return hadamard[start:stop].to(device, dtype)

    u = hadamard.repeat(4, 1) / math.sqrt(8)
    scale = logit_scale(8, 1e-3)
    for prior_matching in ("reverse", "forward", "renyi2"):
        terms = falcon_loss(
            (u, u), Orthogonal(8, 8), logit_scale=scale, prior_matching=prior_matching, backend="reference"
        )  # fmt: skip
        found = certify(
            terms.as_floats(),
            num_codes=8,
            logit_scale=scale,
            beta=1.0,
            prior_matching=prior_matching,
            batch_size=32,
        )
        gaps = (found.gap_entropy, found.gap_consistency, found.gap_prior)
        assert gaps == pytest.approx((0, 0, 0), abs=1e-12)
        assert found.certified


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


@pytest.mark.parametrize("prior_matching", ["reverse", "forward", "renyi2"])
@pytest.mark.parametrize("beta", [0.5, 1.0, 2.0])
def test_a_collapsed_batch_is_never_certified(prior_matching, beta):
    for seed in range(10):
        options = {"beta": beta, "prior_matching": prior_matching}
        terms = terms_of(*embeddings(seed=seed, noise=0.0, same=True), **options)
        found = certify(terms, num_codes=C, logit_scale=L, batch_size=N, **options)
        assert not found.certified
        assert "Not proven" in found.sentence
        if found.mutual_information_bits is not None:
            assert found.mutual_information_bits == pytest.approx(0, abs=1e-6)


def test_a_varied_batch_with_agreeing_views_is_certified():
    terms = terms_of(*embeddings(seed=0, noise=0.0))
    found = certify(
        terms, num_codes=C, logit_scale=L, beta=1.0, prior_matching="reverse", batch_size=N
    )
    assert found.certified
    assert "Proven not collapsed" in found.sentence
    assert found.max_bits == 5
    assert 3 < found.mutual_information_bits <= 5
    # Agreeing views: loss = log C - MI exactly.
    assert terms["total"] == pytest.approx(
        math.log(C) - found.mutual_information_bits * math.log(2), abs=1e-6
    )


def test_mutual_information_of_renyi2_is_a_lower_bound():
    views = embeddings(seed=3, noise=0.5)
    options = {"num_codes": C, "logit_scale": L, "beta": 1.0, "batch_size": N}
    exact, bound = (
        certify(terms_of(*views, prior_matching=name), prior_matching=name, **options)
        for name in ("reverse", "renyi2")
    )
    assert bound.mutual_information_bits <= exact.mutual_information_bits
    assert "at least" in bound.sentence
    assert "at least" not in exact.sentence


def test_what_the_terms_do_not_tell_is_left_out():
    prior = [1 / C] * C
    terms = terms_of(*embeddings(seed=0, noise=0.1), prior_matching="forward")
    found = certify(
        terms, num_codes=C, logit_scale=L, beta=1.0, prior_matching="forward", batch_size=N, prior=prior
    )  # fmt: skip
    assert found.mutual_information_bits is None
    assert found.collapse_threshold is None
    assert not found.certified
    assert "proves nothing" in found.sentence


def test_the_complete_dictionary_has_too_many_codes_for_floats_and_still_a_certificate():
    log_codes = 2048 * math.log(2)
    terms = {"entropy": log_codes - 1.0, "consistency": 0.2, "prior_matching": 0.3}
    terms["invariance"] = terms["entropy"] + 0.2
    terms["total"] = terms["invariance"] + 0.3
    found = certify(
        terms, num_codes=2**2048, logit_scale=73.0, beta=1.0, prior_matching="renyi2", batch_size=256, complete=True
    )  # fmt: skip
    assert found.certified  # 0.5 nats below log C
    assert found.mutual_information_bits == pytest.approx(0.7 / math.log(2))
    assert found.max_bits == 8
    assert found.gap == pytest.approx(terms["total"] - found.bound)
    assert found.to_dict()["sentence"] == found.sentence


GOOD = dict.fromkeys(("total", "invariance", "prior_matching", "entropy", "consistency"), 1.0)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"terms": {"total": 1.0}}, "loss terms are missing: received no invariance, prior"),
        ({"terms": GOOD | {"entropy": math.nan}}, "loss terms are not finite"),
        ({"num_codes": 1}, "num_codes is too small"),
        ({"batch_size": 0}, "batch_size is too small"),
        ({"beta": -1.0}, "beta is too small"),
        ({"logit_scale": 0.0}, "logit_scale is not positive"),
        ({"prior_matching": "sideways"}, "unknown prior_matching: received 'sideways'"),
        ({"prior": [0.5, 0.5]}, "prior has the wrong length: received 2"),
        ({"num_codes": 48, "complete": True}, r"a complete dictionary has 2\^F codes: received 48"),
    ],
)
def test_bad_input(changed, message):
    options = {
        "terms": GOOD, "num_codes": C, "logit_scale": L, "beta": 1.0, "prior_matching": "reverse", "batch_size": N,
    }  # fmt: skip
    with pytest.raises(InputError, match=message):
        certify(**(options | changed))
