"""V views: every back end against the explicit average over ordered pairs, and what the terms mean."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import normalize

from falcon_ssl import (
    CompleteDictionary,
    FalconLoss,
    HadamardDictionary,
    InputError,
    LossTerms,
    RademacherDictionary,
    certify,
    falcon_loss,
)
from support.problems import random_prior, stacked
from support.tolerances import EXACT, EXACT_SATURATED, relative_error

N, C, F = 7, 60, 12
SIZES = [(2, 1), (2, 2), (3, 1), (3, 3), (5, 2), (8, 8)]


def similar_views(num_views: int, *, rows: int = N, width: int = F, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(rows, width, dtype=torch.float64, generator=generator)
    noise = torch.randn(num_views, rows, width, dtype=torch.float64, generator=generator)
    return normalize(base + 0.5 * noise, dim=2)


def mean_of_pairs(u_VNF, dictionary, *, num_targets, **options) -> LossTerms:
    """The one-directional loss of two views, averaged over all pairs (target, other view)."""
    pairs = [
        falcon_loss((u_VNF[o], u_VNF[v]), dictionary, num_targets=1, **options)
        for o in range(num_targets)
        for v in range(len(u_VNF))
        if v != o
    ]
    return LossTerms(*(torch.stack(term).mean() for term in zip(*pairs, strict=True)))


def check_against_pairs(u_VNF, dictionary, *, num_targets, backend, **options):
    """Terms and gradients; the average of pairs by the same back end's formulas, or the reference."""
    u_VNF = u_VNF.requires_grad_()
    theirs = mean_of_pairs(u_VNF, dictionary, num_targets=num_targets, **options)
    ours = falcon_loss(u_VNF, dictionary, num_targets=num_targets, backend=backend, **options)
    torch.testing.assert_close(stacked(ours), stacked(theirs), rtol=1e-12, atol=1e-12)
    (expected,) = torch.autograd.grad(theirs.total, u_VNF)
    (found,) = torch.autograd.grad(ours.total, u_VNF)
    assert relative_error(found, expected) < (
        EXACT_SATURATED if options["logit_scale"] > 100 else EXACT
    )


@pytest.mark.parametrize("backend", ["reference", "dense", "chunked"])
@pytest.mark.parametrize("prior_matching", ["forward", "reverse", "renyi2"])
@pytest.mark.parametrize(("num_views", "num_targets"), SIZES)
def test_finite_dictionaries_average_over_pairs(num_views, num_targets, prior_matching, backend):
    for kind, scale, with_prior in (
        (RademacherDictionary, 9.0, False),
        (HadamardDictionary, 400.0, True),
    ):
        check_against_pairs(
            similar_views(num_views),
            kind(C, F, seed=1),
            num_targets=num_targets,
            backend=backend,
            logit_scale=scale,  # 400 takes the back end's shifted exponentials
            beta=0.7,
            prior=random_prior(C) if with_prior else None,
            prior_matching=prior_matching,
        )


@pytest.mark.parametrize(("num_views", "num_targets"), SIZES)
def test_the_complete_dictionary_averages_over_pairs(num_views, num_targets):
    options = {"num_targets": num_targets, "logit_scale": 6.0, "beta": 0.7, "backend": "auto"}
    check_against_pairs(similar_views(num_views), CompleteDictionary(F), **options)


def test_all_targets_is_the_default():
    u_VNF, loss = similar_views(4), FalconLoss(RademacherDictionary(C, F))
    assert loss(*u_VNF).total == loss(*u_VNF, num_targets=4).total
    assert loss(*u_VNF).total != loss(*u_VNF, num_targets=2).total


@pytest.mark.parametrize("backend", ["dense", "chunked"])
def test_gradient_is_the_numerical_one(backend):
    dictionary = RademacherDictionary(30, 4)

    def total(u_VNF):
        return falcon_loss(u_VNF, dictionary, logit_scale=4.0, num_targets=2, backend=backend).total

    u_VNF = similar_views(4, rows=3, width=4).requires_grad_()
    assert torch.autograd.gradcheck(total, (u_VNF,), check_undefined_grad=False)


def test_the_order_of_the_views_does_not_matter():
    u_VNF, dictionary = similar_views(5), RademacherDictionary(C, F)
    first = falcon_loss(u_VNF, dictionary, logit_scale=9.0)
    other = falcon_loss(u_VNF[[3, 1, 4, 0, 2]], dictionary, logit_scale=9.0)
    torch.testing.assert_close(stacked(first), stacked(other), rtol=1e-12, atol=0)


@pytest.mark.parametrize("beta", [0.25, 1.0, 2.0])
@pytest.mark.parametrize(
    "dictionary", [RademacherDictionary(C, F), CompleteDictionary(F)], ids=repr
)
@pytest.mark.parametrize(("num_views", "num_targets"), [(2, 2), (6, 2), (6, 6)])
def test_a_collapsed_network_of_many_views_is_never_certified(
    num_views, num_targets, dictionary, beta
):
    """All samples alike in every view, views alike or not: the loss is at least that of the threshold."""
    generator = torch.Generator().manual_seed(0)
    for noise in (0.0, 1.0):
        one = torch.randn(1, 1, F, generator=generator, dtype=torch.float64)
        own = torch.randn(num_views, 1, F, generator=generator, dtype=torch.float64)
        u_VNF = normalize(one + noise * own, dim=2).expand(-1, N, -1)
        scale = 9.0
        terms = falcon_loss(
            u_VNF, dictionary, num_targets=num_targets, logit_scale=scale, beta=beta
        )
        complete = isinstance(dictionary, CompleteDictionary)
        certificate = certify(
            terms.as_floats(),
            num_codes=dictionary.num_codes,
            logit_scale=scale,
            beta=beta,
            prior_matching="renyi2" if complete else "reverse",
            batch_size=N,
            complete=complete,
        )
        assert not certificate.certified
        assert certificate.loss >= min(beta, 1) * math.log(dictionary.num_codes) * (1 - 1e-12)


def test_consistency_is_the_mean_divergence_from_the_targets():
    u_VNF, dictionary = similar_views(4), RademacherDictionary(C, F)
    terms = falcon_loss(u_VNF, dictionary, logit_scale=9.0, num_targets=2)
    p_VNC = (9.0 / math.sqrt(F) * u_VNF @ dictionary.block(0, C, dtype=torch.float64).T).softmax(
        dim=2
    )
    divergences = [
        (p_VNC[o] * (p_VNC[o] / p_VNC[v]).log()).sum(dim=1).mean()
        for o in range(2)
        for v in range(4)
        if v != o
    ]
    assert float(terms.consistency) == pytest.approx(float(torch.stack(divergences).mean()))
    assert terms.consistency >= 0
    assert float(terms.entropy) == pytest.approx(
        float(-(p_VNC[:2] * p_VNC[:2].log()).sum(dim=2).mean())
    )


@pytest.mark.parametrize(
    ("views", "options", "words"),
    [
        (similar_views(1), {}, "too few views: received 1"),
        (similar_views(3), {"num_targets": 0}, "num_targets is out of range: received 0"),
        (similar_views(3), {"num_targets": 4}, "expected 1 to 3"),
        ([*similar_views(2), similar_views(1, rows=5)[0]], {}, "u1 and u3 differ in shape"),
        ([*similar_views(2), similar_views(1)[0].float()], {}, "u1 and u3 differ in dtype"),
    ],
)
def test_bad_views(views, options, words):
    with pytest.raises(InputError, match=words):
        falcon_loss(views, RademacherDictionary(C, F), logit_scale=9.0, **options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(("num_views", "num_targets"), [(2, 1), (3, 3), (5, 2)])
def test_kernels_take_many_views(num_views, num_targets, dtype):
    pytest.importorskip("triton")
    dictionary = RademacherDictionary(130, 20)
    options = {"logit_scale": 9.0, "num_targets": num_targets, "beta": 0.7}
    u_VNF = similar_views(num_views, rows=70, width=20).requires_grad_()
    exact = falcon_loss(u_VNF, dictionary, backend="dense", **options)
    half_VNF = u_VNF.detach().to(dtype).requires_grad_()
    found = falcon_loss(half_VNF, dictionary, backend="triton", **options)
    tolerance = 1e-5 if dtype == torch.float32 else 5e-3
    torch.testing.assert_close(
        stacked(found).double(), stacked(exact), rtol=tolerance, atol=tolerance
    )
    (expected,) = torch.autograd.grad(exact.total, u_VNF)
    (gradient,) = torch.autograd.grad(found.total, half_VNF)
    assert relative_error(gradient.double(), expected) < 10 * tolerance
