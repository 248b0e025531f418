"""Every fast back end against the reference, in every precision, shape and setting it promises."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from falcon_ssl import FalconLoss, RademacherDictionary, falcon_loss
from falcon_ssl.dictionary.hadamard import HadamardDictionary
from falcon_ssl.losses.falcon import chunked as falcon_chunked
from support.problems import random_prior, stacked, unit_rows, value_and_gradients
from support.tolerances import (
    EXACT,
    EXACT_SATURATED,
    FLOOR,
    FLOOR_ALIGNED,
    NO_WORSE,
    relative_error,
)

FAST = ("dense", "chunked")


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("prior_matching", ["forward", "reverse", "renyi2"])
@pytest.mark.parametrize("num_targets", [1, 2])
@pytest.mark.parametrize("scale", [3.0, 18.42, 400.0])
@pytest.mark.parametrize("with_prior", [True, False])
def test_equals_reference_in_float64(backend, prior_matching, num_targets, scale, with_prior):
    dictionary = RademacherDictionary(301, 16, seed=3)
    u1, u2 = unit_rows(7, 16)
    options = {
        "logit_scale": scale,
        "beta": 0.7,
        "prior_matching": prior_matching,
        "num_targets": num_targets,
        "prior": random_prior(301) if with_prior else None,
    }
    terms, gradients = value_and_gradients(u1, u2, dictionary, backend=backend, **options)
    truth, true_gradients = value_and_gradients(u1, u2, dictionary, backend="reference", **options)
    tolerance = EXACT_SATURATED if scale > 100 else EXACT
    assert relative_error(stacked(terms), stacked(truth)) < tolerance
    assert relative_error(gradients, true_gradients) < tolerance


@given(
    block_size=st.integers(1, 200),
    num_rows=st.integers(1, 5),
    num_codes=st.integers(2, 130),
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=25)
def test_block_size_does_not_matter(block_size, num_rows, num_codes, seed):
    dictionary = RademacherDictionary(num_codes, 7, seed=seed)
    u1, u2 = unit_rows(num_rows, 7, seed=seed)
    options = {"logit_scale": 9.0, "beta": 0.5}
    terms, gradients = value_and_gradients(u1, u2, dictionary, block_size=block_size, **options)
    truth, true_gradients = value_and_gradients(u1, u2, dictionary, backend="reference", **options)
    assert torch.allclose(stacked(terms), stacked(truth), rtol=EXACT, atol=EXACT)
    assert torch.allclose(gradients, true_gradients, rtol=EXACT, atol=EXACT)


@pytest.mark.parametrize("keep_bytes", [0, 8 * 100 * 14, 2**26])
def test_kept_logits_do_not_matter(keep_bytes, monkeypatch):
    monkeypatch.setattr(falcon_chunked, "KEEP_BYTES", keep_bytes)
    dictionary = RademacherDictionary(301, 16)
    u1, u2 = unit_rows(7, 16)
    terms, gradients = value_and_gradients(u1, u2, dictionary, logit_scale=9.0, block_size=100)
    truth, true_gradients = value_and_gradients(
        u1, u2, dictionary, logit_scale=9.0, backend="reference"
    )
    assert relative_error(stacked(terms), stacked(truth)) < EXACT
    assert relative_error(gradients, true_gradients) < EXACT


@pytest.mark.parametrize("width", [16, 24])
@pytest.mark.parametrize("num_codes", [96, 101])
@pytest.mark.parametrize("scale", [18.42, 400.0])
def test_structured_codes_equal_the_same_codes_written_out(width, num_codes, scale):
    dictionary = HadamardDictionary(num_codes, width, seed=1)
    u1, u2 = unit_rows(5, width)
    for block_size in (None, width, 37):
        terms, gradients = value_and_gradients(
            u1, u2, dictionary, logit_scale=scale, block_size=block_size
        )
        truth, true_gradients = value_and_gradients(
            u1, u2, dictionary, logit_scale=scale, backend="reference"
        )
        tolerance = EXACT_SATURATED if scale > 100 else EXACT
        assert relative_error(stacked(terms), stacked(truth)) < tolerance
        assert relative_error(gradients, true_gradients) < tolerance


def plain_torch(u1, u2, dictionary, scale, beta):
    """What one writes without thinking, under autocast: products in the dtype of u, log-softmax in float32."""
    codes_CF = dictionary.block(0, dictionary.num_codes, dtype=u1.dtype)
    log_p1, log_p2 = (
        ((u @ codes_CF.T).float() * scale / math.sqrt(dictionary.width)).log_softmax(1)
        for u in (u1, u2)
    )
    log_C = math.log(dictionary.num_codes)

    def one_way(a, b):
        m = a.exp().mean(0)
        return -beta * (a.exp() * b).sum(1).mean() + (m * (m.log() + log_C)).sum()

    return (one_way(log_p1, log_p2) + one_way(log_p2, log_p1)) / 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("dictionary_type", [RademacherDictionary, HadamardDictionary])
def test_lower_precision_errs_no_more_than_plain_torch(dtype, aligned, dictionary_type):
    dictionary = dictionary_type(5000, 128, seed=1)
    u1, u2 = unit_rows(64, 128, dtype=dtype)
    if aligned:
        noise = torch.randn(64, 128, generator=torch.Generator().manual_seed(0)) * 0.02
        u1 = nn.functional.normalize(dictionary.block(0, 64) / 128**0.5 + noise, dim=1).to(dtype)
    truth, true_gradients = value_and_gradients(
        u1.double(), u2.double(), dictionary, logit_scale=18.42, beta=0.7, backend="reference"
    )
    leaves = [u.clone().requires_grad_() for u in (u1, u2)]
    plain = plain_torch(*leaves, dictionary, 18.42, 0.7)
    plain_gradients = torch.stack(torch.autograd.grad(plain, leaves))
    terms, gradients = value_and_gradients(
        u1, u2, dictionary, logit_scale=18.42, beta=0.7, backend="chunked"
    )
    assert terms.total.dtype == torch.float32
    assert gradients.dtype == dtype
    allowed = NO_WORSE * relative_error(plain, truth.total) + FLOOR[dtype]
    assert relative_error(terms.total, truth.total) < allowed
    floor = FLOOR_ALIGNED[dtype] if aligned else FLOOR[dtype]
    allowed = NO_WORSE * relative_error(plain_gradients, true_gradients) + floor
    assert relative_error(gradients, true_gradients) < allowed


@pytest.mark.parametrize("prior_matching", ["forward", "reverse", "renyi2"])
def test_saturated_embeddings_stay_finite_in_float32(prior_matching):
    # Logits up to 1000: every softmax underflows, and the published formula gives NaN.
    dictionary = RademacherDictionary(300, 16, seed=3)
    u1, u2 = unit_rows(5, 16, dtype=torch.float32)
    options = {"logit_scale": 1000.0, "prior_matching": prior_matching}
    terms, gradients = value_and_gradients(u1, u2, dictionary, backend="chunked", **options)
    truth, true_gradients = value_and_gradients(
        u1.double(), u2.double(), dictionary, backend="reference", **options
    )
    _, dense_gradients = value_and_gradients(u1, u2, dictionary, backend="dense", **options)
    floor = 1000 * FLOOR[torch.float32]  # of logits as large as 1000
    assert torch.allclose(stacked(terms), stacked(truth).float(), rtol=0, atol=floor)
    allowed = NO_WORSE * relative_error(dense_gradients, true_gradients) + floor
    assert relative_error(gradients, true_gradients) < allowed
    p = (u1 @ dictionary.block(0, 300).T * 250).softmax(1)
    m = p.mean(0)
    assert not torch.isfinite((m * m.log()).sum())  # the control


@pytest.mark.parametrize("length", [0.01, 1.0, 1.6, 8.0])
@pytest.mark.parametrize("scale", [18.42, 31.0])
def test_rows_of_any_length_are_computed_or_give_nan(length, scale):
    """Beyond the promised length of 1 there may be no number, but never a wrong one."""
    dictionary = RademacherDictionary(300, 16, seed=3)
    aligned = dictionary.block(0, 5) / 4
    u1, u2 = (length * u for u in (aligned, unit_rows(5, 16, dtype=torch.float32)[0]))
    options = {"logit_scale": scale}
    terms, gradients = value_and_gradients(u1, u2, dictionary, backend="chunked", **options)
    truth, true_gradients = value_and_gradients(
        u1.double(), u2.double(), dictionary, backend="reference", **options
    )
    if length == 8.0 and scale == 18.42:
        assert terms.total.isnan()
    else:
        floor = 10 * length * FLOOR[torch.float32]
        assert relative_error(stacked(terms), stacked(truth)) < floor
        assert relative_error(gradients, true_gradients) < 10 * floor


def test_non_contiguous_inputs():
    dictionary = RademacherDictionary(100, 8)
    u1, u2 = unit_rows(6, 16)
    terms, _ = value_and_gradients(u1[:, ::2], u2[:, ::2], dictionary, logit_scale=9.0)
    wide = torch.stack([u1[:, ::2], u2[:, ::2]]).transpose(1, 2).contiguous().transpose(1, 2)
    for backend in FAST:
        same, _ = value_and_gradients(
            wide[0], wide[1], dictionary, logit_scale=9.0, backend=backend
        )
        assert relative_error(stacked(same), stacked(terms)) < EXACT


def test_autocast_leaves_the_statistics_alone():
    dictionary = RademacherDictionary(1000, 32)
    u1, u2 = (u.requires_grad_() for u in unit_rows(16, 32, dtype=torch.float32))
    outside = falcon_loss((u1, u2), dictionary, logit_scale=18.42)
    truth = torch.autograd.grad(outside.total, (u1, u2))
    with torch.autocast("cpu", torch.bfloat16):
        inside = falcon_loss((u1, u2), dictionary, logit_scale=18.42)
        gradients = torch.autograd.grad(inside.total, (u1, u2))
    assert torch.equal(stacked(inside), stacked(outside))
    assert torch.equal(torch.stack(gradients), torch.stack(truth))


@pytest.mark.filterwarnings(
    "ignore:The .grad attribute of a Tensor"
)  # torch's own, at a graph break
def test_compiled_caller():
    loss = FalconLoss(RademacherDictionary(300, 16), backend="chunked")
    layer = nn.Linear(16, 16)

    def step(z1, z2):
        u1, u2 = (nn.functional.normalize(layer(z), dim=1) for z in (z1, z2))
        return loss(u1, u2).total * 2

    z1, z2 = torch.randn(2, 8, 16, generator=torch.Generator().manual_seed(0))
    traced = []

    def backend(graph, _):
        traced.extend(str(node.target) for node in graph.graph.nodes)
        return graph.forward

    compiled = torch.compile(step, backend=backend)
    gradients = []
    for function in (step, compiled):
        layer.zero_grad()
        function(z1, z2).backward()
        gradients.append(layer.weight.grad.clone())
    assert relative_error(gradients[1], gradients[0]) < FLOOR[torch.float32]
    assert any("normalize" in name for name in traced)
    assert not any("exp2" in name for name in traced), "blocks of codes stay out of the graph"


def test_second_derivative_is_refused_by_chunked_and_given_by_dense():
    u1, u2 = (u.requires_grad_() for u in unit_rows(3, 8))
    dictionary = RademacherDictionary(20, 8)
    total = falcon_loss((u1, u2), dictionary, logit_scale=4.0, backend="dense").total
    (gradient,) = torch.autograd.grad(total, u1, create_graph=True)
    assert torch.isfinite(torch.autograd.grad(gradient.sum(), u1)[0]).all()
    total = falcon_loss((u1, u2), dictionary, logit_scale=4.0, backend="chunked").total
    with pytest.raises(RuntimeError, match="backend='dense'"):
        torch.autograd.grad(total, u1, create_graph=True)


def test_no_tensor_of_samples_times_codes(monkeypatch):
    """The largest tensor any operation makes is a block, not N x C."""
    monkeypatch.setattr(falcon_chunked, "KEEP_BYTES", 0)
    sizes = []

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor):
                sizes.append(result.numel())
            return result

    u1, u2 = (u.requires_grad_() for u in unit_rows(64, 16, dtype=torch.float32))
    dictionary = RademacherDictionary(10_000, 16)
    with Watch():
        falcon_loss(
            (u1, u2), dictionary, logit_scale=9.0, backend="chunked", block_size=500
        ).total.backward()
    assert max(sizes) < 64 * 10_000 / 2
    sizes.clear()
    with Watch():
        falcon_loss((u1, u2), dictionary, logit_scale=9.0, backend="dense")
    assert max(sizes) >= 64 * 10_000  # the control


def test_total_scales_the_gradient():
    u1, u2 = (u.requires_grad_() for u in unit_rows(3, 8))
    total = falcon_loss((u1, u2), RademacherDictionary(20, 8), logit_scale=4.0).total
    once, thrice = (torch.autograd.grad(c * total, u1, retain_graph=True)[0] for c in (1, 3))
    assert torch.allclose(3 * once, thrice, rtol=1e-14)
