"""Places of a view and pooled marginals: every back end against all pairs written out, and what stays proven."""

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
from falcon_ssl.core.theory import DEFAULT_TEMPERATURE
from falcon_ssl.losses.falcon.complete import kernel_error, renyi2
from support.problems import random_prior, stacked
from support.tolerances import EXACT, EXACT_SATURATED, relative_error

N, C, F = 5, 60, 12
SIZES = [(2, 1, 3), (2, 2, 4), (3, 2, 2), (4, 4, 2), (3, 3, 1)]  # V, K, S


def places(num_views: int, num_places: int, *, rows: int = N, width: int = F, seed: int = 0):
    """Views [V, N, S, F] of which rows of one sample resemble each other."""
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(rows, 1, width, dtype=torch.float64, generator=generator)
    shape = (num_views, rows, num_places, width)
    noise = torch.randn(shape, dtype=torch.float64, generator=generator)
    return normalize(base + 0.7 * noise, dim=3)


def written_out(
    u_VNSF, codes_CF, *, num_targets, logit_scale, beta, prior, prior_matching, marginal
) -> LossTerms:
    """Pairs of places one after the other, and the marginals of N S rows or of all of them."""
    s = logit_scale / math.sqrt(u_VNSF.shape[3]) * u_VNSF @ codes_CF.T
    log_p = s.log_softmax(dim=3)
    p, (V, _, S, _) = log_p.exp(), u_VNSF.shape
    pairs, entropies = [], []
    for o in range(num_targets):
        for a in range(S):
            entropies.append(-(p[o, :, a] * log_p[o, :, a]).sum(dim=1).mean())
            for v in range(V):
                if v != o:
                    pairs += [-(p[o, :, a] * log_p[v, :, b]).sum(dim=1).mean() for b in range(S)]
    m_KC = p[:num_targets].mean(dim=(1, 2))
    m_MC = m_KC.mean(dim=0, keepdim=True) if marginal == "pooled" else m_KC
    if prior_matching == "forward":
        divergence_M = -(prior * m_MC.log()).sum(dim=1)
    elif prior_matching == "reverse":
        divergence_M = (m_MC * (m_MC / prior).log()).sum(dim=1)
    else:
        divergence_M = (m_MC**2 / prior).sum(dim=1).log()
    invariance, entropy = torch.stack(pairs).mean(), torch.stack(entropies).mean()
    total = beta * invariance + divergence_M.mean()
    return LossTerms(total, invariance, divergence_M.mean(), entropy, invariance - entropy)


@pytest.mark.parametrize("backend", ["reference", "dense", "chunked"])
@pytest.mark.parametrize("prior_matching", ["forward", "reverse", "renyi2"])
@pytest.mark.parametrize("marginal", ["separate", "pooled"])
@pytest.mark.parametrize(("num_views", "num_targets", "num_places"), SIZES)
def test_finite_dictionaries_equal_all_pairs_of_places(
    num_views, num_targets, num_places, marginal, prior_matching, backend
):
    for kind, scale in ((RademacherDictionary, 9.0), (HadamardDictionary, 400.0)):
        dictionary, u = kind(C, F, seed=1), places(num_views, num_places).requires_grad_()
        options = {
            "num_targets": num_targets,
            "logit_scale": scale,  # 400 takes the back end's shifted exponentials
            "beta": 0.7,
            "prior": random_prior(C),
            "prior_matching": prior_matching,
            "marginal": marginal,
        }
        codes_CF = dictionary.block(0, C, dtype=torch.float64)
        theirs = written_out(u, codes_CF, **options)
        ours = falcon_loss(tuple(u), dictionary, backend=backend, **options)
        torch.testing.assert_close(stacked(ours), stacked(theirs), rtol=1e-12, atol=1e-12)
        (expected,) = torch.autograd.grad(theirs.total, u)
        (found,) = torch.autograd.grad(ours.total, u)
        assert relative_error(found, expected) < (EXACT_SATURATED if scale > 100 else EXACT)


@pytest.mark.parametrize("marginal", ["separate", "pooled"])
@pytest.mark.parametrize(("num_views", "num_targets", "num_places"), SIZES)
def test_the_complete_dictionary_equals_all_pairs_of_places(
    num_views, num_targets, num_places, marginal
):
    dictionary, u = CompleteDictionary(F), places(num_views, num_places).requires_grad_()
    options = {"num_targets": num_targets, "logit_scale": 6.0, "beta": 0.7, "marginal": marginal}
    codes_CF = dictionary.block(0, 2**F, dtype=torch.float64)
    prior = torch.full((2**F,), 2.0**-F, dtype=torch.float64)
    theirs = written_out(u, codes_CF, prior=prior, prior_matching="renyi2", **options)
    if marginal == "pooled":
        divergence = over_pairs_of_samples((6.0 / math.sqrt(F) * u[:num_targets]).tanh())
        theirs = theirs._replace(total=0.7 * theirs.invariance + divergence)
        theirs = theirs._replace(prior_matching=divergence)
    ours = falcon_loss(tuple(u), dictionary, **options)
    torch.testing.assert_close(stacked(ours), stacked(theirs), rtol=1e-12, atol=1e-12)
    (expected,) = torch.autograd.grad(theirs.total, u)
    (found,) = torch.autograd.grad(ours.total, u)
    assert relative_error(found, expected) < EXACT


def over_pairs_of_samples(t_KNSF):
    """log mean exp K over all pairs of rows of different samples, one by one."""
    num_rows = t_KNSF.shape[1]
    logs = [
        torch.log1p(t_KNSF[:, i].flatten(0, 1)[:, None] * t_KNSF[:, k].flatten(0, 1)).sum(dim=2)
        for i in range(num_rows)
        for k in range(num_rows)
        if i != k
    ]
    return torch.stack(logs).flatten().logsumexp(dim=0) - math.log(torch.stack(logs).numel())


@pytest.mark.parametrize("backend", ["dense", "chunked"])
def test_gradient_is_the_numerical_one(backend):
    loss = FalconLoss(RademacherDictionary(30, 4), backend=backend, marginal="pooled")

    def total(u):
        return loss(*u, num_targets=2).total

    u = places(3, 2, rows=2, width=4).requires_grad_()
    assert torch.autograd.gradcheck(total, (u,), check_undefined_grad=False)


@pytest.mark.parametrize(("num_places", "kept"), [(4, 1), (4, 2), (3, 2), (2, 2), (2, 5)])
@pytest.mark.parametrize("kernel_order", [None, 3])
def test_some_places_of_every_view_enter_the_kernel(num_places, kept, kernel_order):
    u = places(3, num_places)
    options = {"kernel_order": kernel_order, "kernel_places": kept}
    some = FalconLoss(CompleteDictionary(F, **options), marginal="pooled")(*u, num_targets=2)
    every = FalconLoss(CompleteDictionary(F, kernel_order=kernel_order), marginal="pooled")
    torch.testing.assert_close(some.invariance, every(*u, num_targets=2).invariance)
    kept = min(kept, num_places)
    chosen = [
        [(n + j * num_places // kept) % num_places for n in range(N)]
        if kept < num_places
        else [j] * N
        for j in range(kept)
    ]
    t_KRNF = torch.stack(
        [torch.stack([u[v, range(N), place] for place in chosen]) for v in range(2)]
    )
    t_GNF = (math.sqrt(1 / DEFAULT_TEMPERATURE) * t_KRNF).tanh().flatten(0, 1)
    expected = renyi2(t_GNF, N, order=kernel_order, same_sample=False)
    torch.testing.assert_close(some.prior_matching, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kernel_order", [None, 1, 3, 5])
@pytest.mark.parametrize("marginal", ["separate", "pooled"])
def test_gradient_over_all_codes_is_the_numerical_one(marginal, kernel_order):
    loss = FalconLoss(CompleteDictionary(5, kernel_order=kernel_order), marginal=marginal)
    u = places(2, 2, rows=3, width=5).requires_grad_()
    assert torch.autograd.gradcheck(lambda u: loss(*u).total, (u,), check_undefined_grad=False)


@pytest.mark.parametrize("backend", ["auto", "reference", "dense", "chunked"])
def test_one_place_is_a_view(backend):
    u = places(3, 1)
    for marginal in ("separate", "pooled"):
        loss = FalconLoss(RademacherDictionary(C, F), backend=backend, marginal=marginal)
        assert torch.equal(stacked(loss(*u)), stacked(loss(*u[:, :, 0])))
    loss = FalconLoss(CompleteDictionary(F))
    assert torch.equal(stacked(loss(*u)), stacked(loss(*u[:, :, 0])))


def test_places_are_not_views():
    """A place does not meet the places of its own view, and all of them have one marginal."""
    u, loss = places(2, 2), FalconLoss(RademacherDictionary(C, F))
    by_place, as_views = loss(*u), loss(*u.transpose(1, 2).flatten(0, 1))
    assert by_place.consistency != as_views.consistency
    assert by_place.prior_matching < as_views.prior_matching


@pytest.mark.parametrize("order", [1, 3, 5])
def test_the_series_is_never_too_small_and_at_most_as_much_too_large_as_its_bound(order):
    generator = torch.Generator().manual_seed(0)
    for size in (0.03, 0.1, 0.3, 0.8):
        t = size * (2 * torch.rand(2, 9, 40, dtype=torch.float64, generator=generator) - 1)
        for same_sample in (True, False):
            exact = renyi2(t, 9, same_sample=same_sample)
            series = renyi2(t, 9, order=order, same_sample=same_sample)
            bound = kernel_error(t.flatten(0, 1), order)
            assert -1e-12 <= series - exact <= bound
            if size == 0.8 and order == 1:
                assert series - exact > 0.01  # the control


def test_error_of_the_series_at_the_size_of_the_speed_run():
    """768 rows, F = 512, T = .25: 1e-4 of the value in float32 and 1e-3 with products in bfloat16."""
    generator = torch.Generator().manual_seed(0)
    u = normalize(torch.randn(8, 96, 512, generator=generator), dim=2)
    u = normalize(u + u.mean(dim=0), dim=2)  # views of one image resemble each other
    t_GNF = (u / 0.25**0.5).tanh()
    exact = renyi2(t_GNF.double(), 96, same_sample=False)
    single, half = (
        renyi2(t_GNF, 96, order=3, dtype=dtype, same_sample=False)
        for dtype in (None, torch.bfloat16)
    )
    assert kernel_error(t_GNF.flatten(0, 1), 3) < 1e-3
    assert abs(single - exact) < 1e-5
    assert abs(half - exact) < 1e-3


@pytest.mark.parametrize("beta", [0.25, 1.0, 2.0])
@pytest.mark.parametrize("marginal", ["separate", "pooled"])
@pytest.mark.parametrize(
    "dictionary",
    [RademacherDictionary(C, F), CompleteDictionary(F), CompleteDictionary(F, kernel_order=3)],
    ids=repr,
)
def test_what_depends_on_the_place_and_not_on_the_image_is_never_certified(
    dictionary, marginal, beta
):
    """Every image has the same embeddings, which differ from view to view and from place to place."""
    complete = isinstance(dictionary, CompleteDictionary)
    generator = torch.Generator().manual_seed(0)
    for noise in (0.0, 0.5, 3.0):
        one = torch.randn(1, 1, 1, F, generator=generator, dtype=torch.float64)
        own = torch.randn(3, 1, 4, F, generator=generator, dtype=torch.float64)
        u = normalize(one + noise * own, dim=3).expand(-1, N, -1, -1)
        loss = FalconLoss(dictionary, temperature=0.38, beta=beta, marginal=marginal)
        certificate = certify(
            loss(*u, num_targets=2).as_floats(),
            num_codes=dictionary.num_codes,
            logit_scale=loss.logit_scale,
            beta=beta,
            prior_matching="renyi2" if complete else "reverse",
            batch_size=N,
            complete=complete,
        )
        assert not certificate.certified
        assert certificate.loss >= min(beta, 1) * dictionary.log_num_codes * (1 - 1e-12)


@pytest.mark.parametrize("marginal", ["separate", "pooled"])
@pytest.mark.parametrize(
    ("rows", "num_places", "kept"), [(9, 4, 1), (7, 3, 2), (8, 4, 1), (11, 5, 3)]
)
def test_nor_where_the_kernel_sees_some_places_of_each_image(rows, num_places, kept, marginal):
    """The threshold falls by what the places that it does not see, or sees less often, may hide."""
    dictionary = CompleteDictionary(F, kernel_places=kept)
    generator, thresholds, least = torch.Generator().manual_seed(0), set(), math.inf
    for noise in (0.0, 0.02, 0.1, 0.5, 3.0):
        for _ in range(5):
            one = torch.randn(1, 1, 1, F, generator=generator, dtype=torch.float64)
            own = torch.randn(2, 1, num_places, F, generator=generator, dtype=torch.float64)
            u = normalize(one + noise * own, dim=3).expand(-1, rows, -1, -1)
            loss = FalconLoss(dictionary, temperature=0.38, marginal=marginal)
            certificate = certify(
                loss(*u).as_floats(),
                num_codes=2**F,
                logit_scale=loss.logit_scale,
                beta=1.0,
                prior_matching="renyi2",
                batch_size=rows,
                complete=True,
                unbiased=loss.is_unbiased,
                num_places=num_places,
                kernel_places=kept,
            )
            assert not certificate.certified
            assert certificate.mutual_information_bits is None
            thresholds.add(certificate.collapse_threshold)
            least = min(least, certificate.loss)
    assert len(thresholds) == 1
    assert least >= max(thresholds)
    balanced = rows % num_places == 0 and marginal == "separate"
    assert (max(thresholds) == F * math.log(2)) == balanced


def test_a_kernel_that_misses_a_place_proves_nothing():
    terms = {
        "total": 0.0,
        "invariance": 0.0,
        "prior_matching": 0.0,
        "entropy": 0.0,
        "consistency": 0.0,
    }
    certificate = certify(
        terms,
        num_codes=2**F,
        logit_scale=9.0,
        beta=1.0,
        prior_matching="renyi2",
        batch_size=3,
        complete=True,
        num_places=4,
        kernel_places=1,
    )
    assert certificate.collapse_threshold is None
    assert not certificate.certified


@pytest.mark.parametrize("marginal", ["separate", "pooled"])
@pytest.mark.parametrize("same", [False, True])
def test_shared_bits_are_about_the_image_and_never_about_its_places(marginal, same):
    """log C - D - I <= MI(image; code), the code drawn at a random place of a random target."""
    for seed in range(5):
        u, dictionary = places(3, 4, seed=seed), RademacherDictionary(C, F)
        if same:  # every image the same places
            u = u[:, :1].expand(-1, N, -1, -1)
        terms = falcon_loss(
            tuple(u), dictionary, logit_scale=12.0, num_targets=2, marginal=marginal
        ).as_floats()
        certificate = certify(
            terms,
            num_codes=C,
            logit_scale=12.0,
            beta=1.0,
            prior_matching="reverse",
            batch_size=N,
            rows_per_sample=8 if marginal == "pooled" else 4,
        )
        codes_CF = dictionary.block(0, C, dtype=torch.float64)
        p_KNSC = (12.0 / math.sqrt(F) * u[:2] @ codes_CF.T).softmax(dim=3)
        p_KNC = p_KNSC.mean(dim=2)
        p_GNC = p_KNC.mean(dim=0, keepdim=True) if marginal == "pooled" else p_KNC
        entropies = [-(p * p.log()).sum(dim=-1) for p in (p_GNC.mean(dim=1), p_GNC)]
        about_image = float(entropies[0].mean() - entropies[1].mean()) / math.log(2)
        assert certificate.shared_bits <= about_image + 1e-12
        assert certificate.mutual_information_bits > about_image  # of places and views, too
        assert certificate.max_bits == math.log2(min(C, N * (8 if marginal == "pooled" else 4)))
        assert "the code of a place or view carries" in certificate.sentence


def test_an_unbiased_divergence_says_nothing_about_mutual_information():
    u = torch.tensor([[1.0], [-1.0]], dtype=torch.float64).expand(2, 8) / math.sqrt(8)
    loss = FalconLoss(CompleteDictionary(8), temperature=0.25, marginal="pooled")
    assert loss.is_unbiased
    assert not FalconLoss(CompleteDictionary(8), temperature=0.25).is_unbiased
    assert not FalconLoss(RademacherDictionary(C, F), marginal="pooled").is_unbiased
    terms = loss(u, u).as_floats()
    told = {}
    for unbiased in (False, True):
        told[unbiased] = certify(
            terms,
            num_codes=2**8,
            logit_scale=loss.logit_scale,
            beta=1.0,
            prior_matching="renyi2",
            batch_size=2,
            complete=True,
            unbiased=unbiased,
        )
    # Otherwise the most that a batch of two can carry would be claimed, whatever the divergence is.
    assert told[False].mutual_information_bits == told[False].max_bits == 1
    assert told[True].mutual_information_bits is None
    assert told[True].shared_bits is None
    assert told[True].certified


def test_the_divergence_over_pairs_of_images_may_be_negative():
    u = torch.eye(4, 8, dtype=torch.float64)
    u = torch.cat([u, -u])  # as far from one another as rows can be
    separate, pooled = (
        FalconLoss(CompleteDictionary(8), marginal=marginal)(u, u).prior_matching
        for marginal in ("separate", "pooled")
    )
    assert pooled < 0 < separate
    # Not without bound: log((N - e^(1/T)) / (N - 1)), where that is defined.
    loss = FalconLoss(CompleteDictionary(8), temperature=2.0, marginal="pooled")
    least = math.log((8 - math.exp(1 / 2.0)) / 7)
    assert least <= loss(u, u).prior_matching < 0


@pytest.mark.parametrize(
    ("views", "words"),
    [
        ([places(1, 2)[0], places(1, 3)[0]], r"u1 and u2 differ in shape: received \(5, 2, 12\)"),
        ([places(1, 2)[0], places(1, 2)[0, :, 0]], "u1 and u2 differ in shape"),
        ([places(1, 2)[0], places(1, 2, rows=4)[0]], "u1 and u2 differ in shape"),
        ([places(1, 2)[0]], "too few views: received 1"),
        ([places(2, 2), places(2, 2)], "u1 has the wrong number of dimensions"),
        ([places(1, 2)[0, :, :0]] * 2, "u1 is empty"),
        ([places(1, 2, width=7)[0]] * 2, "u1 has the wrong width: received 7 columns"),
    ],
)
def test_bad_places(views, words):
    with pytest.raises(InputError, match=words):
        falcon_loss(views, RademacherDictionary(C, F), logit_scale=9.0)


def test_bad_options():
    with pytest.raises(InputError, match="unknown marginal: received 'both'"):
        FalconLoss(RademacherDictionary(C, F), marginal="both")
    with pytest.raises(InputError, match="kernel_order is not odd: received 2"):
        CompleteDictionary(F, kernel_order=2)
    with pytest.raises(InputError, match="kernel_order does nothing with prior_matching='reverse'"):
        FalconLoss(CompleteDictionary(F, kernel_order=3), prior_matching="reverse")
    one = places(2, 3, rows=1)
    with pytest.raises(InputError, match="number of samples is too small: received 1"):
        FalconLoss(CompleteDictionary(F), marginal="pooled")(*one)


@pytest.mark.parametrize("marginal", ["separate", "pooled"])
@pytest.mark.parametrize(("num_views", "num_targets", "num_places"), [*SIZES, (2, 2, 1)])
def test_kernels_take_places(num_views, num_targets, num_places, marginal):
    pytest.importorskip("triton")
    dictionary = RademacherDictionary(130, 20)
    options = {"logit_scale": 9.0, "num_targets": num_targets, "beta": 0.7, "marginal": marginal}
    u = places(num_views, num_places, rows=70, width=20).requires_grad_()
    exact = falcon_loss(tuple(u), dictionary, backend="dense", **options)
    single = u.detach().float().requires_grad_()
    found = falcon_loss(tuple(single), dictionary, backend="triton", **options)
    torch.testing.assert_close(stacked(found).double(), stacked(exact), rtol=1e-5, atol=1e-5)
    (expected,) = torch.autograd.grad(exact.total, u)
    (gradient,) = torch.autograd.grad(found.total, single)
    assert relative_error(gradient.double(), expected) < 1e-4
