"""Every kind of bad input, with what its message must say."""

import pytest
import torch

from falcon_ssl import FalconLoss, InputError, RademacherDictionary, falcon_loss, power_law_prior
from falcon_ssl.losses.falcon import backends
from support.problems import unit_rows

DICTIONARY = RademacherDictionary(20, 8)
U1, U2 = unit_rows(5, 8)


def uniform(num_codes):
    return torch.full((num_codes,), 1 / num_codes)


@pytest.mark.parametrize(
    ("u1", "u2", "message"),
    [
        (U1[0], U2, r"u1 has the wrong number of dimensions: received shape \(8,\)"),
        (U1[:, :7], U2, "u1 has the wrong width: received 7 columns, expected 8"),
        (U1, U2[:4], r"u1 and u2 differ in shape: received \(5, 8\) and \(4, 8\)"),
        (U1.int(), U2, "u1 is not floating point: received torch.int32"),
        (U1, U2.long(), "u2 is not floating point"),
        (U1[:0], U2[:0], "u1 is empty: received 0 rows"),
        (U1, U2.float(), "u1 and u2 differ in dtype"),
    ],
)
def test_embeddings(u1, u2, message):
    with pytest.raises(InputError, match=message):
        falcon_loss((u1, u2), DICTIONARY, logit_scale=3.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"logit_scale": 0.0}, "logit_scale is not positive: received 0.0"),
        ({"logit_scale": float("nan")}, "logit_scale is not positive"),
        ({"beta": -1.0}, "beta is too small: received -1.0"),
        ({"prior_matching": "sideways"}, "unknown prior_matching: received 'sideways'"),
        (
            {"backend": "fast"},
            "unknown backend: received 'fast', expected one of auto, reference, dense, chunked",
        ),
        ({"block_size": 0}, "block_size is too small: received 0"),
        ({"block_size": 4, "backend": "dense"}, "dense back end takes no block_size"),
        ({"prior": uniform(19)}, r"prior has the wrong shape: received \(19,\), expected \(20,\)"),
        ({"prior": uniform(20) * 2}, "prior does not sum to 1: received 2"),
        ({"prior": torch.eye(20)[0]}, "prior has entries that are not positive"),
        ({"prior": torch.full((20,), float("nan"))}, "prior has entries that are not positive"),
        ({"marginal_momentum": 0.5}, "a running marginal and its momentum go together"),
        ({"running_marginal": torch.zeros(20)}, "a running marginal and its momentum go together"),
        (
            {"marginal_momentum": 1.0, "running_marginal": torch.zeros(20)},
            "marginal_momentum is out of range",
        ),
        (
            {"marginal_momentum": 0.5, "running_marginal": torch.zeros(3)},
            "running_marginal has the wrong shape",
        ),
    ],
)
def test_options(options, message):
    with pytest.raises(InputError, match=message):
        falcon_loss((U1, U2), DICTIONARY, **{"logit_scale": 3.0, **options})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"epsilon": 0.05},
            "epsilon is too large for 20 codes: received 0.05, expected 0 < epsilon < 1/num_codes = 0.05",
        ),
        ({"epsilon": 1e-8, "temperature": 0.4}, "epsilon and temperature state the same thing"),
        ({"temperature": 0.0}, "temperature is not positive"),
        ({"beta": -0.5}, "beta is too small"),
        ({"prior": uniform(20) / 2}, "prior does not sum to 1"),
        ({"prior_matching": "sideways"}, "unknown prior_matching"),
        ({"backend": "fast"}, "unknown backend"),
        ({"block_size": -3}, "block_size is too small"),
        ({"marginal_momentum": -0.1}, "marginal_momentum is out of range"),
    ],
)
def test_module_complains_when_it_is_built(options, message):
    with pytest.raises(InputError, match=message):
        FalconLoss(DICTIONARY, **options)


def test_a_missing_back_end_names_those_that_are_there(monkeypatch):
    monkeypatch.setattr(backends, "_has_triton", lambda: False)
    with pytest.raises(
        InputError, match=r"triton back end is not available.*reference, dense, chunked;"
    ):
        FalconLoss(DICTIONARY, backend="triton")


def test_a_dictionary_that_cannot_be_streamed():
    class Codes:
        num_codes, width = 20, 8

    with pytest.raises(InputError, match="cannot be streamed: received Codes"):
        FalconLoss(Codes())


def test_power_law_prior():
    q_C = power_law_prior(4, 1.0)
    assert torch.allclose(q_C, torch.tensor([12, 6, 4, 3], dtype=torch.float64) / 25)
    assert torch.equal(power_law_prior(4, 0.0), torch.full((4,), 0.25, dtype=torch.float64))
    with pytest.raises(InputError, match="exponent is too small"):
        power_law_prior(4, -1.0)
    with pytest.raises(InputError, match="num_codes is too small"):
        power_law_prior(0, 1.0)


def test_auto_says_once_what_runs(caplog):
    backends._logged.cache_clear()
    with caplog.at_level("INFO", logger="falcon_ssl"):
        for _ in range(3):
            falcon_loss((U1, U2), DICTIONARY, logit_scale=3.0)
    assert [record.message for record in caplog.records] == [
        "the FALCON loss runs on the chunked back end"
    ]


@pytest.mark.parametrize("scale", [7.0, float("nan"), float("inf")])
def test_the_first_call_refuses_rows_that_are_not_unit(scale: float) -> None:
    u1, u2 = unit_rows(8, 16)
    loss = FalconLoss(RademacherDictionary(32, 16))
    with pytest.raises(InputError, match="not on the unit sphere"):
        loss(u1, scale * u2)
    loss(u1, u2)
    assert loss(u1, 0 * u2).total.isfinite(), "zero is no error"


def test_terms_go_backward_as_a_loss_does() -> None:
    u1, u2 = unit_rows(8, 16)
    u1.requires_grad_()
    loss = FalconLoss(RademacherDictionary(32, 16))
    loss(u1, u2).backward()
    assert torch.equal(u1.grad, torch.autograd.grad(loss(u1, u2).total, u1)[0])
