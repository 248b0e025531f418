"""The Triton kernels against the reference: on a CPU through Triton's interpreter, on a GPU where there is one."""

import pytest
import torch

from falcon_ssl import InputError, RademacherDictionary, falcon_loss
from falcon_ssl.dictionary.hadamard import HadamardDictionary
from falcon_ssl.losses.falcon import backends
from support.problems import random_prior, stacked, unit_rows, value_and_gradients
from support.tolerances import FLOOR, relative_error

pytest.importorskip("triton", reason="triton is not installed")
GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"

SHAPES = [(1, 2, 1), (1, 5, 7), (3, 13, 20), (7, 101, 16), (70, 130, 65), (5, 700, 31)]


@pytest.mark.parametrize(("num_rows", "num_codes", "width"), SHAPES)
@pytest.mark.parametrize("prior_matching", ["forward", "reverse", "renyi2"])
@pytest.mark.parametrize("num_targets", [1, 2])
def test_odd_shapes_equal_the_reference(num_rows, num_codes, width, prior_matching, num_targets):
    dictionary = RademacherDictionary(num_codes, width, seed=3)
    u1, u2 = (u.to(DEVICE) for u in unit_rows(num_rows, width, dtype=torch.float32))
    options = {
        "logit_scale": 12.0,
        "beta": 0.7,
        "prior_matching": prior_matching,
        "num_targets": num_targets,
        "prior": random_prior(num_codes),
    }
    terms, gradients = value_and_gradients(u1, u2, dictionary, backend="triton", **options)
    truth, true_gradients = value_and_gradients(
        u1.double(), u2.double(), dictionary, backend="reference", **options
    )
    assert relative_error(stacked(terms), stacked(truth)) < FLOOR[torch.float32]
    atol = 10 * FLOOR[torch.float32] * max(0.1, float(true_gradients.abs().max()))
    assert torch.allclose(gradients.double(), true_gradients, rtol=0, atol=atol)


# Triton's interpreter has no bfloat16 products.
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16] if GPU else [torch.float16])
def test_half_precision_accumulates_in_float32(dtype):
    dictionary = RademacherDictionary(300, 32, seed=3)
    u1, u2 = (u.to(DEVICE) for u in unit_rows(9, 32, dtype=dtype))
    terms, gradients = value_and_gradients(u1, u2, dictionary, logit_scale=12.0, backend="triton")
    truth, true_gradients = value_and_gradients(
        u1.double(), u2.double(), dictionary, logit_scale=12.0, backend="reference"
    )
    assert relative_error(stacked(terms), stacked(truth)) < FLOOR[torch.float32]
    assert gradients.dtype == dtype
    assert relative_error(gradients, true_gradients) < 4 * FLOOR[dtype]


def test_large_logits_take_the_chunked_path(caplog):
    dictionary = RademacherDictionary(50, 16)
    u1, u2 = (u.to(DEVICE) for u in unit_rows(4, 16, dtype=torch.float32))
    with caplog.at_level("INFO", logger="falcon_ssl"):
        terms = falcon_loss((u1, u2), dictionary, logit_scale=400.0, backend="triton")
    assert "runs as chunked PyTorch" in caplog.text
    assert torch.equal(
        terms.total, falcon_loss((u1, u2), dictionary, logit_scale=400.0, backend="chunked").total
    )


def test_what_it_cannot_compute():
    u1, u2 = (u.to(DEVICE) for u in unit_rows(4, 16))
    with pytest.raises(InputError, match=r"received torch\.float64 embeddings"):
        falcon_loss((u1, u2), RademacherDictionary(50, 16), logit_scale=4.0, backend="triton")
    with pytest.raises(
        InputError, match=r"triton back end is not available for HadamardDictionary"
    ):
        falcon_loss(
            (u1.float(), u2.float()), HadamardDictionary(50, 16), logit_scale=4.0, backend="triton"
        )


def test_auto_trusts_the_kernels_only_where_they_agree(monkeypatch, caplog):
    device = torch.device(DEVICE)
    backends.triton_agrees.cache_clear()
    assert backends.triton_agrees(device)

    def wrong(u_VNF, dictionary, objective):
        terms, log_m = backends.falcon_loss_chunked(u_VNF, dictionary, objective)
        return terms._replace(total=1.1 * terms.total), log_m

    def broken(u_VNF, dictionary, objective):
        raise RuntimeError("ptxas says no")

    for compute, reason in ((wrong, "off by 10.0%"), (broken, "ptxas says no")):
        backends.triton_agrees.cache_clear()
        monkeypatch.setattr(backends, "_compute_triton", compute)
        with caplog.at_level("WARNING", logger="falcon_ssl"):
            assert not backends.triton_agrees(device)
        assert reason in caplog.text
    backends.triton_agrees.cache_clear()
