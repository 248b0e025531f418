import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from falcon_ssl.core.errors import InputError
from falcon_ssl.core.theory import logit_scale
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
        (
            {"terms": {"total": 1.0}},
            "loss terms are missing or not finite: received .*'invariance': None, 'prior",
        ),
        (
            {"terms": GOOD | {"entropy": math.nan}},
            "loss terms are missing or not finite: received .*'entropy': nan",
        ),
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
