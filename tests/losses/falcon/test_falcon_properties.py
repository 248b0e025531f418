"""What the loss may not depend on, what bounds it, and controls that show these tests can fail."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from falcon_ssl import RademacherDictionary, falcon_loss
from falcon_ssl.losses.falcon.reference import log_assignment
from support.problems import random_prior, unit_rows, value_and_gradients
from support.written_out import Listed

C, F, N = 40, 12, 6
DICTIONARY = RademacherDictionary(C, F, seed=4)
PRIORS = ("forward", "reverse", "renyi2")
few = settings(deadline=None, max_examples=15)
case = {
    "seed": st.integers(0, 10_000),
    "prior_matching": st.sampled_from(PRIORS),
    "beta": st.floats(0, 3),
    "backend": st.sampled_from(["reference", "dense", "chunked"]),
}


def recoded(change):
    """DICTIONARY with its codes permuted or its features flipped."""
    return Listed(change(DICTIONARY.block(0, C, dtype=torch.float64)))


def total(u1, u2, dictionary=DICTIONARY, **options):
    return float(falcon_loss((u1, u2), dictionary, logit_scale=9.0, **options).total)


@given(**case)
@few
def test_samples_may_be_permuted_together_only(seed, prior_matching, beta, backend):
    u1, u2 = unit_rows(N, F, seed=seed)
    options = {"prior_matching": prior_matching, "beta": beta + 0.1, "backend": backend}
    order = torch.randperm(N, generator=torch.Generator().manual_seed(seed))
    assert total(u1[order], u2[order], **options) == pytest.approx(
        total(u1, u2, **options), rel=1e-12
    )
    rolled = torch.arange(N).roll(1)
    assert total(u1[rolled], u2, **options) != pytest.approx(total(u1, u2, **options), rel=1e-6)


@given(**case)
@few
def test_codes_may_be_permuted_with_their_prior(seed, prior_matching, beta, backend):
    u1, u2 = unit_rows(N, F, seed=seed)
    q = random_prior(C, seed=seed)
    options = {"prior_matching": prior_matching, "beta": beta, "backend": backend}
    order = torch.randperm(C, generator=torch.Generator().manual_seed(seed))
    permuted = recoded(lambda codes: codes[order])
    value = total(u1, u2, prior=q, **options)
    assert total(u1, u2, permuted, prior=q[order], **options) == pytest.approx(value, rel=1e-12)
    assert total(u1, u2, permuted, prior=q, **options) != pytest.approx(value, rel=1e-9)


@given(**case)
@few
def test_views_may_be_exchanged_when_symmetric_only(seed, prior_matching, beta, backend):
    u1, u2 = unit_rows(N, F, seed=seed)
    options = {"prior_matching": prior_matching, "beta": beta, "backend": backend}
    assert total(u1, u2, **options) == pytest.approx(total(u2, u1, **options), rel=1e-12)
    one_way = total(u1, u2, num_targets=1, **options)
    assert one_way != pytest.approx(total(u2, u1, num_targets=1, **options), rel=1e-9)


@given(feature=st.integers(0, F - 1), **case)
@few
def test_a_feature_may_be_flipped_in_embeddings_and_codes(
    seed, prior_matching, beta, backend, feature
):
    u1, u2 = unit_rows(N, F, seed=seed)
    options = {"prior_matching": prior_matching, "beta": beta + 0.1, "backend": backend}
    sign = torch.ones(F, dtype=torch.float64)
    sign[feature] = -1
    flipped = recoded(lambda codes: codes * sign)
    value = total(u1, u2, **options)
    assert total(u1 * sign, u2 * sign, flipped, **options) == pytest.approx(value, rel=1e-12)
    assert total(u1 * sign, u2 * sign, **options) != pytest.approx(value, rel=1e-9)


@given(shift=st.floats(-50, 50), seed=st.integers(0, 99))
@few
def test_logits_may_be_shifted_per_row(shift, seed):
    s_NC = torch.randn(N, C, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    shifts = torch.linspace(-1, 1, N, dtype=torch.float64)[:, None] * shift
    assert torch.allclose(log_assignment(s_NC + shifts), log_assignment(s_NC), rtol=0, atol=1e-12)


@given(seed=st.integers(0, 10_000), scale=st.floats(0.5, 60))
@few
def test_lower_bounds(seed, scale):
    u1, u2 = unit_rows(N, F, seed=seed)
    q = random_prior(C, seed=seed)
    entropy_q = float(-(q * q.log()).sum())
    divergences = {}
    for prior_matching in PRIORS:
        terms = falcon_loss(
            (u1, u2), DICTIONARY, logit_scale=scale, prior_matching=prior_matching, prior=q
        )
        assert 0 <= terms.entropy <= math.log(C) + 1e-12
        assert terms.consistency >= -1e-12
        assert float(terms.invariance) == pytest.approx(
            float(terms.entropy + terms.consistency), rel=1e-12
        )
        divergences[prior_matching] = float(terms.prior_matching)
    assert divergences["forward"] >= entropy_q - 1e-12
    assert divergences["reverse"] >= -1e-12
    assert divergences["renyi2"] >= divergences["reverse"] - 1e-12


@given(seed=st.integers(0, 10_000), scale=st.floats(0.5, 60))
@few
def test_loss_reads_as_mutual_information(seed, scale):
    """loss = log C - MI + consistency, MI <= log min(N, C), one order of the views."""
    u1, u2 = unit_rows(N, F, seed=seed)
    terms = falcon_loss((u1, u2), DICTIONARY, logit_scale=scale, num_targets=1)
    information = math.log(C) - float(terms.prior_matching) - float(terms.entropy)
    assert -1e-12 <= information <= math.log(min(N, C)) + 1e-12
    assert float(terms.total) == pytest.approx(
        math.log(C) - information + float(terms.consistency), rel=1e-12
    )


@given(seed=st.integers(0, 10_000), beta=st.floats(0, 3), scale=st.floats(1, 40))
@few
def test_collapse_keeps_the_loss_above_its_threshold(seed, beta, scale):
    u1, _ = unit_rows(N, F, seed=seed)
    collapsed = u1[:1].expand(N, F)
    reverse = falcon_loss((collapsed, collapsed), DICTIONARY, logit_scale=scale, beta=beta)
    assert reverse.total >= min(beta, 1) * math.log(C) - 1e-9
    forward = falcon_loss(
        (collapsed, collapsed), DICTIONARY, logit_scale=scale, beta=beta, prior_matching="forward"
    )
    assert forward.total >= math.log(C) - 1e-9


@pytest.mark.parametrize("backend", ["reference", "dense", "chunked"])
def test_an_optimum_lies_below_the_collapse_threshold(backend):
    """The control of the test above: balanced, aligned embeddings are far below it."""
    u = normalize(DICTIONARY.block(0, C, dtype=torch.float64), dim=1)
    terms, gradients = value_and_gradients(u, u, DICTIONARY, logit_scale=40.0, backend=backend)
    assert terms.total < 0.1 * math.log(C)
    assert torch.isfinite(gradients).all()
