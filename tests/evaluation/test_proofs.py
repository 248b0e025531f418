"""Proofs are never false: no batch with one assignment is certified, and bits never exceed what a batch can carry."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import normalize

from falcon_ssl.core.averaging import running_threshold, sampling_error
from falcon_ssl.core.monitor import Moment
from falcon_ssl.core.theory import collapse_threshold
from falcon_ssl.dictionary import CompleteDictionary, HadamardDictionary, RademacherDictionary
from falcon_ssl.evaluation import AlarmMonitor, Certificate, certify
from falcon_ssl.losses import FalconLoss, power_law_prior


@st.composite
def losses(draw: st.DrawFn) -> FalconLoss:
    """Any FALCON loss, small."""
    kind = draw(st.sampled_from(["rademacher", "hadamard", "complete"]))
    width = draw(st.sampled_from([8, 16, 32]))
    options: dict[str, Any] = {
        "beta": draw(st.sampled_from([0.0, 1.0]) | st.floats(0, 3)),
        "marginal": draw(st.sampled_from(["separate", "pooled"])),
        "temperature": draw(st.sampled_from([0.05, 0.2, 0.5, 2.0])),
    }
    if kind == "complete":
        matching = draw(st.sampled_from(["reverse", "renyi2"]))
        order = draw(st.sampled_from([None, 3])) if matching == "renyi2" else None
        dictionary: Any = CompleteDictionary(width, kernel_order=order)
        return FalconLoss(dictionary, prior_matching=matching, **options)
    codes = draw(st.sampled_from([8, 64, 256]))
    dictionary = (RademacherDictionary if kind == "rademacher" else HadamardDictionary)(
        codes, width, seed=0
    )
    exponent = draw(st.sampled_from([0.0, 0.0, 1.0]))
    return FalconLoss(
        dictionary,
        prior_matching=draw(st.sampled_from(["reverse", "forward", "renyi2"])),
        prior=power_law_prior(codes, exponent) if exponent else None,
        marginal_momentum=draw(st.sampled_from([0.0, 0.0, 0.5, 0.9, 0.99])),
        **options,
    )


def certificate_of(loss: FalconLoss, views: list[Tensor], num_targets: int) -> Certificate:
    terms = loss(*views, num_targets=num_targets).as_floats()
    return certify(terms, batch_size=len(views[0]), **options_of(loss, views, num_targets))


def options_of(loss: FalconLoss, views: list[Tensor], num_targets: int) -> dict[str, Any]:
    places = views[0].shape[1] if views[0].dim() == 3 else 1
    return {
        "num_codes": loss.dictionary.num_codes,
        "logit_scale": loss.logit_scale,
        "beta": loss.beta,
        "prior_matching": loss.prior_matching,
        "prior": None if loss.prior is None else loss.prior.tolist(),
        "complete": isinstance(loss.dictionary, CompleteDictionary),
        "rows_per_sample": places * (num_targets if loss.marginal == "pooled" else 1),
        "unbiased": loss.is_unbiased,
        "num_places": places,
        "marginal_momentum": loss.marginal_momentum,
        "draws": loss.draws(len(views[0])),
    }


def train_a_while(loss: FalconLoss, steps: int, width: int) -> None:
    """A history of the running marginal: batches that use all codes."""
    for _ in range(steps if loss.marginal_momentum else 0):
        u = normalize(torch.randn(64, width), dim=1)
        loss(u, u)


@settings(deadline=None, max_examples=150)
@given(
    loss=losses(),
    num_rows=st.integers(2, 24),
    num_views=st.integers(2, 4),
    num_places=st.sampled_from([1, 1, 1, 3]),
    by_view=st.booleans(),
    sharp=st.sampled_from(["random", "code", "tiny"]),
    steps=st.integers(0, 30),
    seed=st.integers(0, 10**6),
    data=st.data(),
)
def test_one_assignment_for_all_samples_is_never_certified(
    loss: FalconLoss,
    num_rows: int,
    num_views: int,
    num_places: int,
    by_view: bool,
    sharp: str,
    steps: int,
    seed: int,
    data: st.DataObject,
) -> None:
    """It may depend on the view and the place, and is otherwise the same for all samples."""
    torch.manual_seed(seed)
    width = loss.dictionary.width
    num_targets = data.draw(st.integers(1, num_views))
    train_a_while(loss, steps, width)
    places = torch.randn(num_views if by_view else 1, num_places, width)
    if sharp == "code" and not isinstance(loss.dictionary, CompleteDictionary):
        places = loss.dictionary.block(0, 1).expand_as(places).clone()
    u = normalize(places, dim=2) * (1e-3 if sharp == "tiny" else 1)
    rows = [one.expand(num_rows, num_places, width) for one in u.expand(num_views, -1, -1)]
    views = [row.squeeze(1) if num_places == 1 else row for row in rows]
    found = certificate_of(loss, views, num_targets)
    assert not found.certified, found.sentence


@settings(deadline=None, max_examples=100)
@given(
    loss=losses(),
    num_rows=st.integers(2, 24),
    num_views=st.integers(2, 4),
    noise=st.sampled_from([0.0, 0.1, 1.0]),
    steps=st.integers(0, 20),
    seed=st.integers(0, 10**6),
)
def test_bits_never_exceed_what_a_batch_can_carry(
    loss: FalconLoss, num_rows: int, num_views: int, noise: float, steps: int, seed: int
) -> None:
    torch.manual_seed(seed)
    width = loss.dictionary.width
    train_a_while(loss, steps, width)
    center = torch.randn(num_rows, width)
    views = [normalize(center + noise * torch.randn_like(center), dim=1) for _ in range(num_views)]
    terms = loss(*views).as_floats()
    found = certify(terms, batch_size=num_rows, **options_of(loss, views, num_views))
    rows = num_rows * (num_views if loss.marginal == "pooled" else 1)
    assert found.max_bits == pytest.approx(math.log2(min(rows, loss.dictionary.num_codes)))
    if found.mutual_information_bits is not None:
        nats = loss.dictionary.log_num_codes - terms["prior_matching"] - terms["entropy"]
        assert nats / math.log(2) <= found.max_bits + 1e-4, "not only because it is clipped"
        assert 0 <= found.mutual_information_bits <= found.max_bits


def collapsed_after_history(momentum: float) -> tuple[FalconLoss, dict[str, float]]:
    torch.manual_seed(0)
    loss = FalconLoss(RademacherDictionary(16, 16, seed=0), marginal_momentum=momentum)
    train_a_while(loss, 60, 16)
    u = normalize(loss.dictionary.block(0, 1), dim=1).expand(8, 16)
    return loss, loss(u, u).as_floats()


def test_the_hole_of_a_running_marginal_is_closed() -> None:
    loss, terms = collapsed_after_history(0.9)
    options = {"num_codes": 16, "logit_scale": loss.logit_scale, "beta": 1.0, "batch_size": 8}
    blind = certify(terms, prior_matching="reverse", **options)
    assert blind.certified, "the control: without knowing of the momentum it is believed"
    found = certify(terms, prior_matching="reverse", marginal_momentum=0.9, **options)
    assert not found.certified
    assert found.mutual_information_bits is found.shared_bits is None


def test_a_running_marginal_does_not_forbid_proofs() -> None:
    torch.manual_seed(0)
    loss = FalconLoss(
        RademacherDictionary(4096, 64), marginal_momentum=0.5, prior_matching="renyi2"
    )
    train_a_while(loss, 20, 64)
    u = normalize(torch.randn(512, 64), dim=1)
    found = certificate_of(loss, [u, u], 2)
    assert found.certified
    assert found.collapse_threshold == pytest.approx(math.log(4096) - 2 * math.log(2))


@pytest.mark.parametrize("matching", ["reverse", "renyi2"])
def test_without_momentum_the_running_threshold_is_the_plain_one(matching: str) -> None:
    for beta in (0.0, 0.3, 1.0, 2.0):
        plain = collapse_threshold(64, beta, matching)  # type: ignore[arg-type]
        running = running_threshold(math.log(64), beta, momentum=0, renyi2=matching == "renyi2")
        assert running == pytest.approx(plain)


def test_the_alarms_see_a_collapse_that_a_running_marginal_hides() -> None:
    loss, terms = collapsed_after_history(0.9)
    monitor = AlarmMonitor(
        loss.dictionary,
        logit_scale=loss.logit_scale,
        batch_size=8,
        patience=0,
        marginal_momentum=0.9,
    )
    u = normalize(loss.dictionary.block(0, 1), dim=1).expand(8, 16)
    method = torch.nn.Module()
    method.encoder = torch.nn.Linear(2, 2)
    found = monitor(Moment(1, 0.1, terms, u, method, False))
    assert "few_codes" in found.alarms
    assert "mutual_information_bits" not in found.metrics


def collapsed_samples(width: int, num_rows: int, draws: int, seeds: int) -> list[Certificate]:
    found = []
    for seed in range(seeds):
        torch.manual_seed(seed)
        loss = FalconLoss(CompleteDictionary(width), prior_matching="reverse")
        u = normalize(torch.randn(1, width), dim=1).expand(num_rows, width)
        terms = loss(u, u).as_floats()
        options = options_of(loss, [u, u], 2) | {"draws": draws}
        found.append(certify(terms, batch_size=num_rows, **options))
    return found


def test_drawn_codes_prove_nothing_about_a_collapsed_batch() -> None:
    found = collapsed_samples(32, 64, 64 * 16, seeds=200)
    assert sum(one.certified for one in found) == 0
    believed = sum(one.certified for one in collapsed_samples(32, 64, 10**12, seeds=50))
    assert believed > 10, "the control: with a margin of nothing half of them are certified"


def test_drawn_codes_prove_that_a_varied_batch_is_none() -> None:
    torch.manual_seed(0)
    loss = FalconLoss(CompleteDictionary(64), prior_matching="reverse")
    u = normalize(torch.randn(256, 64), dim=1)
    found = certificate_of(loss, [u, u], 2)
    assert found.certified
    assert "wrong with probability 1e-06 at most" in found.sentence
    options = options_of(loss, [u, u], 2) | {"draws": None}
    terms = loss(u, u).as_floats()
    assert certify(terms, batch_size=256, **options).collapse_threshold is None


def test_the_sampling_error_holds_where_it_is_measured() -> None:
    """Surprisals of product distributions, at a risk that can be counted; the normal quantile is less."""
    generator = torch.Generator().manual_seed(0)
    width, draws, risk = 32, 200, 0.05
    error = sampling_error(width, draws, risk=risk)
    exceeded, trials = 0, 2000
    for bit in (0.5, 0.3, 0.083, 0.01):
        p = torch.full((width,), bit, dtype=torch.float64)
        entropy = -(p * p.log() + (1 - p) * (1 - p).log()).sum()
        ones = torch.rand(trials, draws, width, generator=generator) < bit
        surprisal = -torch.where(ones, p.log(), (1 - p).log()).sum(2).mean(1)
        exceeded = max(exceeded, int((surprisal > entropy + error).sum()))
        spread = float(surprisal.std())
        assert error > 1.6 * spread
    assert exceeded <= risk * trials
