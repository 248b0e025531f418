"""What holds for every loss that FALCON is compared with."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from falcon_ssl.core.errors import InputError
from falcon_ssl.losses import (
    barlow_twins_loss,
    byol_loss,
    dino_loss,
    energy,
    gedi_loss,
    lejepa_loss,
    random_directions,
    self_classifier_loss,
    simclr_loss,
    sinkhorn,
    swav_loss,
    updated_center,
    vicreg_loss,
)
from support.compared import LOSSES, WIDTH, byol_targets, extremes, views
from support.tolerances import EXACT, relative_error

every_loss = pytest.mark.parametrize("name", list(LOSSES))
# One view stands for the samples of the model, and a queue belongs to one view.
ORDERS_VIEWS = {"gedi with energy", "swav with queue"}


def value_and_gradients(name: str, inputs: list[Tensor]) -> tuple[Any, Tensor]:
    inputs = [x.detach().clone().requires_grad_() for x in inputs]
    terms = LOSSES[name][1](inputs)
    return terms, torch.stack(torch.autograd.grad(terms.total, inputs))


@every_loss
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    num, loss = LOSSES[name]
    frozen = views(
        num
    )  # SwAV's assignments, teachers and targets carry no gradient: hold them still

    def total(*inputs: Tensor) -> Tensor:
        if name.startswith("swav"):
            queue = "queue" in name
            return swav_at(list(inputs), frozen, queue=queue)
        if name.startswith("dino"):
            center = updated_center(torch.zeros(WIDTH).double(), frozen[:2], momentum=0.3)
            return dino_loss(
                inputs, frozen[:2], center, student_temperature=0.5, teacher_temperature=0.3
            ).total
        if name == "byol":
            return byol_loss(*inputs, *byol_targets(frozen)).total
        return loss(list(inputs)).total

    inputs = [x.clone().requires_grad_() for x in frozen]
    assert torch.autograd.gradcheck(total, inputs)
    # ... and what was held still is what the loss itself holds still.
    _, gradients = value_and_gradients(name, frozen)
    expected = torch.stack(torch.autograd.grad(total(*inputs), inputs))
    assert relative_error(gradients, expected) < EXACT


def swav_at(inputs: list[Tensor], frozen: list[Tensor], *, queue: bool) -> Tensor:
    """SwAV's cross-entropy with the assignments of ``frozen``."""
    total = torch.zeros((), dtype=torch.float64)
    queued = torch.randn(2, 11, WIDTH, generator=torch.Generator().manual_seed(5)).double()
    for v in range(2):
        rows = torch.cat([queued[v], frozen[v]]) if queue else frozen[v]
        q_NC = sinkhorn(rows, eps=0.3)[-len(frozen[v]) :]
        for other, scores in enumerate(inputs):
            if other != v:
                log_p_NC = (scores / 0.5).log_softmax(dim=1)
                total = total - (q_NC * log_p_NC).sum() / len(scores)
    return total / (2 * (len(inputs) - 1))


@every_loss
def test_only_the_total_carries_a_gradient(name: str) -> None:
    num, loss = LOSSES[name]
    terms = loss([x.requires_grad_() for x in views(num)])
    assert terms.total.requires_grad
    assert [key for key, term in terms._asdict().items() if term.requires_grad] == ["total"]
    assert all(term.shape == () for term in terms)


@every_loss
def test_the_order_of_samples_does_not_matter(name: str) -> None:
    num, loss = LOSSES[name]
    order = torch.randperm(9, generator=torch.Generator().manual_seed(1))
    plain, shuffled = loss(views(num)), loss([x[order] for x in views(num)])
    assert relative_error(torch.stack(shuffled), torch.stack(plain)) < EXACT


@pytest.mark.parametrize("name", [name for name in LOSSES if name not in ORDERS_VIEWS])
def test_the_large_views_are_alike(name: str) -> None:
    num, loss = LOSSES[name]
    inputs = views(num)
    swapped = [inputs[1], inputs[0], *inputs[2:][::-1]]
    assert relative_error(torch.stack(loss(swapped)), torch.stack(loss(inputs))) < EXACT


@pytest.mark.parametrize("name", ["swav", "dino", "self_classifier", "gedi"])
def test_the_order_of_prototypes_does_not_matter(name: str) -> None:
    num, loss = LOSSES[name]
    order = torch.randperm(WIDTH, generator=torch.Generator().manual_seed(1))
    plain, shuffled = loss(views(num)), loss([x[:, order] for x in views(num)])
    assert relative_error(torch.stack(shuffled), torch.stack(plain)) < EXACT


@pytest.mark.parametrize("name", ["barlow_twins", "vicreg"])
def test_a_shift_of_all_samples_does_not_matter(name: str) -> None:
    _, loss = LOSSES[name]
    shifted = [x + 3 for x in views(2)]
    assert relative_error(torch.stack(loss(shifted)), torch.stack(loss(views(2)))) < 1e-10


ROTATION = torch.linalg.qr(
    torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
)[0]
SIGNS = torch.tensor([1, -1, 1, -1, -1, 1], dtype=torch.float64)
SHIFTS = torch.linspace(-1, 3, 9, dtype=torch.float64)[:, None]  # of every row its own


def change(name: str, *changed: Any) -> float:
    """How much the terms differ when the views are changed, each by its own function."""
    num, loss = LOSSES[name]
    plain = torch.stack(loss(views(num)))
    other = [one(x) for one, x in zip(changed, views(num), strict=True)]
    return relative_error(torch.stack(loss(other)), plain)


def same(x: Tensor) -> Tensor:
    return x


@pytest.mark.parametrize("name", ["barlow_twins", "vicreg", "simclr"])
def test_names_and_signs_of_features_do_not_matter(name: str) -> None:
    order = torch.randperm(WIDTH, generator=torch.Generator().manual_seed(1))
    assert change(name, *[lambda x: x[:, order]] * 2) < EXACT
    assert change(name, *[lambda x: x * SIGNS] * 2) < EXACT
    # ... if they are those of both views.
    assert change(name, lambda x: x[:, order], same) > 0.01
    assert change(name, lambda x: x * SIGNS, same) > 0.01


def test_a_rotation_does_not_matter_to_lejepa() -> None:
    directions = random_directions(5, WIDTH, seed=3).double()
    inputs = views(2)
    turned = [x @ ROTATION for x in inputs]
    plain = torch.stack(lejepa_loss(inputs, directions))
    assert relative_error(torch.stack(lejepa_loss(turned, directions @ ROTATION)), plain) < EXACT
    # ... if the directions are rotated with the embeddings.
    assert relative_error(torch.stack(lejepa_loss(turned, directions)), plain) > 1e-3


def test_a_shift_of_all_scores_of_a_sample_does_not_matter() -> None:
    s1, s2 = views(2)
    t1, t2 = views(2, seed=1)
    center = torch.linspace(-1, 1, WIDTH).double()
    plain = torch.stack(dino_loss([s1, s2], [t1, t2], center))
    shifted = dino_loss([s1 + SHIFTS, s2 - SHIFTS], [t1 + 2 * SHIFTS, t2], center)
    assert relative_error(torch.stack(shifted), plain) < 1e-10
    assert change("gedi", lambda s: s + SHIFTS, lambda s: s - SHIFTS) < 1e-10
    # An energy is not the same for shifted scores, nor is what is normalized over samples.
    for name in ("gedi with energy", "swav", "self_classifier"):
        assert change(name, lambda s: s + SHIFTS, lambda s: s - SHIFTS) > 1e-3, name


@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("extreme", list(extremes()))
def test_extreme_inputs_give_finite_values_and_gradients(
    name: str, dtype: torch.dtype, extreme: str
) -> None:
    num, _ = LOSSES[name]
    inputs = [x.to(dtype) for x in extremes()[extreme](num)]
    terms, gradients = value_and_gradients(name, inputs)
    assert all(torch.isfinite(term) for term in terms), terms
    beyond = {("vicreg", "huge"), ("byol", "tiny")}  # cubes of 6e4; directions of rows of 1e-7
    if dtype == torch.float16 and (name, extreme) in beyond:
        assert gradients.isinf().any()  # see the next test
        assert not gradients.isnan().any()
    else:
        assert gradients.isfinite().all()


def test_a_gradient_scaler_finds_a_scale_for_gradients_beyond_float16() -> None:
    # VICReg's gradient is cubic in its inputs. It is computed in float32 and infinite where float16 ends, not cut off:
    # that tells a scaler to skip the step and to lower its scale, below 1 if need be, until everything fits.
    exact = value_and_gradients("vicreg", extremes()["huge"](2))[1]
    inputs = [x.half().requires_grad_() for x in extremes()["huge"](2)]
    scale = 2.0**-32
    terms = LOSSES["vicreg"][1](inputs)
    scaled = torch.stack(torch.autograd.grad(scale * terms.total, inputs))
    assert float(exact.abs().max()) > torch.finfo(torch.float16).max
    assert scaled.isfinite().all()
    assert relative_error(scaled.float() / scale, exact) < 2e-3  # a few roundings to 11 bits


@every_loss
def test_low_precision_comes_near_float64(name: str) -> None:
    num, loss = LOSSES[name]
    exact = loss(views(num)).total
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 0.03)):
        value = loss([x.to(dtype) for x in views(num)]).total
        assert value.dtype == torch.float32
        assert relative_error(value, exact) < tolerance


@every_loss
def test_autocast_does_not_reach_into_the_loss(name: str) -> None:
    num, loss = LOSSES[name]
    inputs = [x.float() for x in views(num)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = loss(inputs).total
    assert torch.equal(inside, loss(inputs).total)


C = 50


@pytest.mark.parametrize(
    ("total", "words"),
    [
        (lambda s: swav_loss([s, s]).total, "SwAV"),
        (lambda s: dino_loss([s, s], [s, s], s.mean(dim=0)).total, "DINO"),
        (lambda s: self_classifier_loss([s, s]).total, "Self-Classifier"),
        (lambda s: gedi_loss([s, s]).invariance, "GEDI"),
    ],
)
def test_a_collapsed_network_sits_at_log_c(total: Any, words: str) -> None:
    """All samples alike and all prototypes alike: the value that people report for hundreds of epochs."""
    assert float(total(torch.full((8, C), 0.3))) == pytest.approx(math.log(C), abs=1e-5), words


a, b = views(2)
BAD = {
    "differ in shape": (
        lambda: barlow_twins_loss(a, b[:3]),
        lambda: swav_loss([a, b[:3]]),
        lambda: dino_loss([a, b], [a[:3]], torch.zeros(WIDTH)),
    ),
    "differ in dtype": (
        lambda: vicreg_loss(a, b.float()),
        lambda: lejepa_loss([a, b.float()], random_directions(2, WIDTH, seed=0)),
    ),
    "wrong number of dimensions": (lambda: gedi_loss([a[0], b[0]]),),
    "not floating point": (lambda: self_classifier_loss([a.long(), b.long()]),),
    "number of rows over all ranks is too small": (
        lambda: barlow_twins_loss(a[:1], b[:1]),
        lambda: vicreg_loss(a[:1], b[:1]),
        lambda: simclr_loss(a[:1], b[:1]),
    ),
    "too few views": (
        lambda: swav_loss([a]),
        lambda: dino_loss([a], [a], torch.zeros(WIDTH)),
        lambda: lejepa_loss([a], random_directions(2, WIDTH, seed=0)),
        lambda: gedi_loss([a]),
    ),
    "num_assigned is out of range: received 3, expected 1 to 2": (
        lambda: swav_loss([a, b], num_assigned=3),
    ),
    "num_large is out of range": (
        lambda: lejepa_loss([a, b], random_directions(2, WIDTH, seed=0), num_large=0),
    ),
    "views of the teacher is out of range": (
        lambda: dino_loss([a, b], [], torch.zeros(WIDTH)),
        lambda: dino_loss([a, b], [a, b, b], torch.zeros(WIDTH)),
    ),
    "the queue does not fit": (lambda: swav_loss([a, b], queued_scores=[a]),),
    "the queue has the wrong width": (
        lambda: swav_loss([a, b], queued_scores=[a, b[:, :3]]),
        lambda: swav_loss([a, b], queued_scores=[a[0], b[0]]),
    ),
    "the center has the wrong shape": (
        lambda: dino_loss([a, b], [a, b], torch.zeros(3)),
        lambda: updated_center(torch.zeros(3), [a]),
    ),
    "momentum is out of range": (lambda: updated_center(torch.zeros(WIDTH), [a], momentum=1.0),),
    "temperature is not positive": (
        lambda: swav_loss([a, b], temperature=0),
        lambda: dino_loss([a, b], [a, b], torch.zeros(WIDTH), teacher_temperature=-1),
        lambda: self_classifier_loss([a, b], row_temperature=math.nan),
        lambda: gedi_loss([a, b], temperature=0),
        lambda: simclr_loss(a, b, temperature=0),
    ),
    "not finite": (
        lambda: barlow_twins_loss(a, b, eps=math.inf),
        lambda: vicreg_loss(a, b, eps=math.inf),
        lambda: vicreg_loss(a, b, target_std=math.inf),
        lambda: swav_loss([a, b], temperature=math.inf),
        lambda: sinkhorn(a, eps=math.inf),
        lambda: dino_loss([a, b], [a, b], torch.zeros(WIDTH), teacher_temperature=math.inf),
        lambda: dino_loss([a, b], [a, b], torch.zeros(WIDTH), student_temperature=math.inf),
        lambda: self_classifier_loss([a, b], column_temperature=math.inf),
        lambda: gedi_loss([a, b], temperature=math.inf),
        lambda: energy(a, temperature=math.inf),
    ),
    "eps is not positive": (
        lambda: barlow_twins_loss(a, b, eps=0),
        lambda: vicreg_loss(a, b, eps=0),
        lambda: sinkhorn(a, eps=0),
    ),
    "sinkhorn_steps is too small": (lambda: sinkhorn(a, steps=0),),
    "redundancy_weight is too small": (lambda: barlow_twins_loss(a, b, redundancy_weight=-1),),
    "covariance_weight is too small": (lambda: vicreg_loss(a, b, covariance_weight=-1),),
    "regularization is out of range": (
        lambda: lejepa_loss([a, b], random_directions(2, WIDTH, seed=0), regularization=1.1),
    ),
    "directions has the wrong width": (
        lambda: lejepa_loss([a, b], random_directions(2, 3, seed=0)),
    ),
}


@pytest.mark.parametrize("message", list(BAD))
def test_bad_input_is_refused_in_words(message: str) -> None:
    for call in BAD[message]:
        with pytest.raises(InputError, match=message):
            call()
