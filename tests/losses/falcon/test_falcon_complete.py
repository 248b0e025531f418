"""The complete dictionary: its closed form against all codes written out, and as the limit of random codes."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from falcon_ssl import FalconLoss, InputError, RademacherDictionary, falcon_loss
from falcon_ssl.dictionary.complete import CompleteDictionary
from falcon_ssl.losses.falcon import complete as falcon_complete
from falcon_ssl.losses.falcon.complete import renyi2
from support.problems import stacked, unit_rows, value_and_gradients
from support.tolerances import EXACT, FLOOR, relative_error
from support.written_out import all_codes


@pytest.mark.parametrize("width", [1, 2, 3, 7, 12])
@pytest.mark.parametrize("scale", [0.5, 5.0, 18.42])
@pytest.mark.parametrize("num_targets", [1, 2])
def test_closed_form_equals_all_codes_written_out(width, scale, num_targets):
    u1, u2 = unit_rows(6, width)
    options = {
        "logit_scale": scale,
        "beta": 0.7,
        "num_targets": num_targets,
        "prior_matching": "renyi2",
    }
    terms, gradients = value_and_gradients(u1, u2, CompleteDictionary(width), **options)
    truth, true_gradients = value_and_gradients(u1, u2, all_codes(width), **options)
    assert relative_error(stacked(terms), stacked(truth)) < EXACT
    assert torch.allclose(gradients, true_gradients, rtol=EXACT, atol=EXACT)


def test_the_gradient_is_the_numerical_one():
    u1, u2 = (u.requires_grad_() for u in unit_rows(4, 9))
    loss = FalconLoss(CompleteDictionary(9), temperature=0.4)
    assert gradcheck(lambda a, b: loss(a, b).total, (u1, u2), rtol=1e-6, atol=1e-8)


def direct_renyi2(t_NF):
    k_NN = torch.log1p(t_NF[:, None] * t_NF).sum(dim=2)
    return k_NN.flatten().logsumexp(0) - 2 * math.log(len(t_NF))


@given(
    num_rows=st.integers(1, 9),
    width=st.integers(1, 40),
    size=st.floats(0.01, 8),
    seed=st.integers(0, 999),
)
@settings(deadline=None, max_examples=30)
def test_grouped_products_equal_one_logarithm_a_feature(num_rows, width, size, seed):
    generator = torch.Generator().manual_seed(seed)
    t_NF = (size * torch.randn(num_rows, width, dtype=torch.float64, generator=generator)).tanh()
    d2 = float(renyi2(t_NF[None], num_rows))
    assert d2 == pytest.approx(float(direct_renyi2(t_NF)), rel=1e-11, abs=1e-12)
    same_rows = float(torch.log1p(t_NF.square()).sum(1).logsumexp(0)) - 2 * math.log(num_rows)
    assert d2 >= max(0.0, same_rows) - 1e-11


@pytest.mark.parametrize("group", [1, 2, 3, 5])
@pytest.mark.parametrize("block_elements", [1, 100, 2**20])
def test_group_and_block_do_not_matter(group, block_elements, monkeypatch):
    u1, u2 = unit_rows(7, 22)
    truth, true_gradients = value_and_gradients(u1, u2, CompleteDictionary(22), logit_scale=9.0)
    monkeypatch.setattr(falcon_complete, "GROUP", group)
    monkeypatch.setattr(falcon_complete, "BLOCK_ELEMENTS", {"cpu": block_elements})
    terms, gradients = value_and_gradients(u1, u2, CompleteDictionary(22), logit_scale=9.0)
    assert relative_error(stacked(terms), stacked(truth)) < EXACT
    assert relative_error(gradients, true_gradients) < EXACT


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("temperature", [0.1, 0.38, 5.0])
def test_lower_precision(dtype, temperature):
    loss = FalconLoss(CompleteDictionary(128), temperature=temperature)
    u1, u2 = unit_rows(32, 128, dtype=dtype)
    options = {"logit_scale": loss.logit_scale}
    terms, gradients = value_and_gradients(u1, u2, loss.dictionary, **options)
    truth, true_gradients = value_and_gradients(
        u1.double(), u2.double(), loss.dictionary, **options
    )
    assert terms.total.dtype == torch.float32  # computed there whatever the embeddings are
    assert gradients.dtype == dtype
    assert relative_error(stacked(terms), stacked(truth)) < FLOOR[torch.float32]
    assert relative_error(gradients, true_gradients) < max(1e-5, FLOOR[dtype])


def test_saturated_bits_stay_finite_in_float32():
    u1, u2 = unit_rows(16, 8, dtype=torch.float32)
    terms, gradients = value_and_gradients(u1, u2, CompleteDictionary(8), logit_scale=400.0)
    truth, _ = value_and_gradients(
        u1.double(), u2.double(), CompleteDictionary(8), logit_scale=400.0
    )
    assert torch.isfinite(gradients).all()
    assert relative_error(stacked(terms), stacked(truth)) < 1e-5


def test_random_dictionaries_converge_to_it():
    """F=64, N=32, L=18.42: differences to the limit shrink with C."""
    u1, u2 = unit_rows(32, 64, dtype=torch.float32)
    limit = falcon_loss((u1, u2), CompleteDictionary(64), logit_scale=18.42)
    limit_invariance = float(limit.invariance) - 64 * math.log(2)
    invariance_gaps, prior_gaps = [], []
    for num_codes in (64, 1024, 16384, 131072):
        terms = falcon_loss(
            (u1, u2),
            RademacherDictionary(num_codes, 64),
            logit_scale=18.42,
            prior_matching="renyi2",
        )
        invariance_gaps.append(
            abs(float(terms.invariance) - math.log(num_codes) - limit_invariance)
        )
        prior_gaps.append(abs(float(terms.prior_matching - limit.prior_matching)))
    assert invariance_gaps[0] > 0.1
    assert invariance_gaps[-1] < 0.02
    assert prior_gaps == sorted(prior_gaps, reverse=True)
    assert prior_gaps[-1] < 0.05 * limit.prior_matching


def test_terms_keep_their_meaning():
    """Identical sure bits: entropy 0 + consistency 0; uniform assignments: entropy F log 2, divergence 0."""
    sure = torch.ones(2, 8, dtype=torch.float64) / math.sqrt(8)
    terms = falcon_loss((sure, sure), CompleteDictionary(8), logit_scale=400.0)
    assert float(terms.entropy) == pytest.approx(0, abs=1e-12)
    assert float(terms.consistency) == 0
    assert float(terms.prior_matching) == pytest.approx(8 * math.log(2))  # one code of 2^8
    unsure = torch.zeros(2, 8, dtype=torch.float64)
    terms = falcon_loss((unsure, unsure), CompleteDictionary(8), logit_scale=400.0)
    assert float(terms.entropy) == pytest.approx(8 * math.log(2))
    assert float(terms.prior_matching) == pytest.approx(0, abs=1e-12)


def test_sampled_divergence_estimates_value_and_gradient():
    """Mean of many estimates within four standard errors of the exact KL and of its gradient."""
    torch.manual_seed(0)
    width, num_estimates = 8, 400
    u1, u2 = unit_rows(5, width)
    dictionary = CompleteDictionary(width, samples_per_row=64)
    options = {"logit_scale": 6.0, "beta": 0.0}
    truth, true_gradients = value_and_gradients(
        u1, u2, all_codes(width), prior_matching="reverse", **options
    )
    values, gradients = [], []
    for _ in range(num_estimates):
        terms, gradient = value_and_gradients(
            u1, u2, dictionary, prior_matching="reverse", **options
        )
        values.append(terms.prior_matching)
        gradients.append(gradient)
    value, gradient = torch.stack(values), torch.stack(gradients)
    error = value.std() / math.sqrt(num_estimates)
    assert abs(value.mean() - truth.prior_matching) < 4 * error
    assert error < 0.01 * truth.prior_matching
    errors = gradient.std(dim=0) / math.sqrt(num_estimates)
    deviation = (gradient.mean(dim=0) - true_gradients).abs() / errors
    assert deviation.max() < 4.5  # 80 entries
    assert (errors / true_gradients.abs().max()).max() < 0.05


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prior_matching": "forward"}, "no forward prior matching.*use renyi2"),
        ({"prior": torch.full((16,), 1 / 16)}, "takes no prior"),
        ({"backend": "dense"}, "takes no backend"),
        ({"block_size": 8}, "takes no block_size"),
        (
            {"marginal_momentum": 0.9, "running_marginal": torch.zeros(16)},
            "takes no marginal_momentum",
        ),
    ],
)
def test_options_that_need_codes_one_by_one_are_refused(options, message):
    u1, u2 = unit_rows(3, 4)
    with pytest.raises(InputError, match=message):
        falcon_loss((u1, u2), CompleteDictionary(4), logit_scale=3.0, **options)


def test_epsilon_is_refused_and_temperature_is_named():
    with pytest.raises(InputError, match=r"epsilon is too large for 2\^128 codes.*temperature"):
        FalconLoss(CompleteDictionary(128), epsilon=1e-8)
    with pytest.raises(InputError, match="epsilon is too large"):
        FalconLoss(CompleteDictionary(2000), epsilon=1e-300)
    stated = FalconLoss(CompleteDictionary(128), temperature=0.25)
    assert stated.logit_scale == pytest.approx(22.63, abs=0.01)
    assert FalconLoss(CompleteDictionary(128)).logit_scale == stated.logit_scale  # its default


def test_second_derivative_is_refused():
    u1, u2 = (u.requires_grad_() for u in unit_rows(3, 4))
    total = falcon_loss((u1, u2), CompleteDictionary(4), logit_scale=3.0).total
    with pytest.raises(RuntimeError, match="first derivatives only"):
        torch.autograd.grad(total, u1, create_graph=True)
