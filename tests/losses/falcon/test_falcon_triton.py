"""The Triton kernels against the reference: on a CPU through Triton's interpreter, on a GPU where there is one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from falcon_ssl import CompleteDictionary, FalconLoss, InputError, RademacherDictionary, falcon_loss
from falcon_ssl.dictionary.hadamard import HadamardDictionary
from falcon_ssl.losses.falcon import backends
from support.problems import random_prior, stacked, unit_rows, value_and_gradients
from support.tolerances import FLOOR, relative_error

pytest.importorskip("triton", reason="triton is not installed")
from falcon_ssl.losses.falcon import triton, triton_kernels
from falcon_ssl.losses.falcon.triton_tiles import TILES

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


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
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
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        assert backends.triton_agrees(device, dtype)

    def wrong(u_VNF, dictionary, objective, *, input_precision):
        terms, log_m = backends.falcon_loss_chunked(u_VNF, dictionary, objective)
        return terms._replace(total=1.1 * terms.total), log_m

    def broken(u_VNF, dictionary, objective, *, input_precision):
        raise RuntimeError("ptxas says no")

    for compute, reason in ((wrong, "off by 10.0%"), (broken, "ptxas says no")):
        backends.triton_agrees.cache_clear()
        monkeypatch.setattr(backends, "_compute_triton", compute)
        with caplog.at_level("WARNING", logger="falcon_ssl"):
            assert not backends.triton_agrees(device)
        assert reason in caplog.text
    backends.triton_agrees.cache_clear()


def problem(num_rows=21, num_codes=300, width=40, dtype=torch.float32, **options):
    """Gradient by the kernels, and the true one."""
    dictionary = RademacherDictionary(num_codes, width, seed=3)
    u1, u2 = (u.to(DEVICE) for u in unit_rows(num_rows, width, dtype=dtype))
    options = {"logit_scale": 12.0, **options}
    _, gradients = value_and_gradients(u1, u2, dictionary, backend="triton", **options)
    options.pop("input_precision", None)
    _, truth = value_and_gradients(
        u1.double(), u2.double(), dictionary, backend="reference", **options
    )
    return gradients.double(), truth


@pytest.mark.parametrize("fused_width", [0, 512])
@pytest.mark.parametrize("input_precision", ["bf16x3", "ieee", "tf32"])
def test_float32_on_tensor_cores_loses_nothing(input_precision, fused_width, monkeypatch):
    """With dS in memory too, where tf32 takes two bfloat16; an interpreter does not round to tf32."""
    monkeypatch.setattr(triton, "FUSED_WIDTH", fused_width)
    gradients, truth = problem(input_precision=input_precision)
    is_less = input_precision == "tf32" and (GPU or not fused_width)
    assert relative_error(gradients, truth) < (1e-3 if is_less else FLOOR[torch.float32])


@pytest.mark.parametrize("fused_width", [0, 512])
def test_that_check_can_fail(fused_width, monkeypatch):
    monkeypatch.setattr(triton, "FUSED_WIDTH", fused_width)
    monkeypatch.setattr(triton, "OF_HALF", {torch.float32: "bf16x1"})
    gradients, truth = problem()
    assert relative_error(gradients, truth) > 100 * FLOOR[torch.float32]


@pytest.mark.parametrize("num_targets", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_with_ds_in_memory(dtype, num_targets, monkeypatch):
    monkeypatch.setattr(triton, "FUSED_WIDTH", 0)
    gradients, truth = problem(dtype=dtype, num_targets=num_targets)
    assert relative_error(gradients, truth) < 4 * FLOOR[dtype]


TILES_OF = {
    "row_sums_kernel": "sums",
    "column_sums_kernel": "sums",
    "row_terms_kernel": "row_terms",
    "gradient_kernel": "gradient",
    "fused_gradient_kernel": "fused_gradient",
}


@pytest.mark.parametrize("which", range(3))
def test_every_tile_gives_the_same(which, monkeypatch):
    """The first, second and third of the tiles of every kernel, whatever precision they are for."""
    for name, kind in TILES_OF.items():
        lists = [of for key, of in TILES.items() if key.startswith(kind)]
        tiles = list(dict.fromkeys(tile for of in lists for some in of.values() for tile in some))
        kernel = getattr(triton_kernels, name)
        monkeypatch.setattr(kernel, "configs", [tiles[which % len(tiles)].config()])
    for fused_width in (0, 512):
        monkeypatch.setattr(triton, "FUSED_WIDTH", fused_width)
        gradients, truth = problem(num_rows=37)
        assert relative_error(gradients, truth) < FLOOR[torch.float32]


@pytest.mark.parametrize(
    ("prior_matching", "fraction", "is_skipped"),
    [("reverse", 0.15, True), ("reverse", 1.5, True), ("forward", 0.15, False)],
)
def test_what_skipped_tiles_leave_out_is_bounded(prior_matching, fraction, is_skipped, monkeypatch):
    """Every row's |dS| that is left out sums to at most ``fraction`` b, and codes are +-1.

    Forward matching pulls at every code alike, however small its P.
    """
    N, F, L = 1, 40, 29.0
    options = {"logit_scale": L, "prior_matching": prior_matching, "num_rows": N, "width": F}
    monkeypatch.setattr(triton, "left_out", lambda dtype: 0.0)
    whole, truth = problem(**options)
    assert relative_error(whole, truth) < 10 * FLOOR[torch.float32]
    monkeypatch.setattr(triton, "left_out", lambda dtype: fraction)
    part, _ = problem(**options)
    b = 1 / (N * 2)  # beta / (N K (V - 1))
    off = float((part - whole).abs().max())
    assert off <= fraction * b * L / F**0.5 * (1 + 1e-5)
    assert (off > 0) == is_skipped


def test_diffuse_assignments_are_not_skipped(monkeypatch):
    """All P are below bfloat16's epsilon here: a threshold of P alone would leave no gradient."""
    options = {"dtype": torch.bfloat16, "num_codes": 1000, "logit_scale": 2.0}
    gradients, _ = problem(**options)
    monkeypatch.setattr(triton, "left_out", lambda dtype: 0.0)
    whole, _ = problem(**options)
    assert torch.equal(gradients, whole)
    assert whole.abs().max() > 0
    monkeypatch.setattr(triton, "left_out", lambda dtype: float("inf"))
    assert torch.equal(problem(**options)[0], torch.zeros_like(whole))


def test_nan_is_never_skipped(monkeypatch):
    monkeypatch.setattr(triton, "left_out", lambda dtype: float("inf"))
    dictionary = RademacherDictionary(50, 16)
    views = torch.stack([*unit_rows(4, 16, dtype=torch.float32)]).to(DEVICE)
    views[0, 1, 2] = float("nan")
    views.requires_grad_()
    falcon_loss(tuple(views), dictionary, logit_scale=4.0, backend="triton").total.backward()
    assert views.grad.isnan().any()


def test_precisions_are_checked():
    dictionary = RademacherDictionary(50, 16)
    with pytest.raises(InputError, match=r"unknown input_precision: received 'bf16'"):
        FalconLoss(dictionary, input_precision="bf16")
    with pytest.raises(InputError, match=r"the chunked back end takes no input_precision"):
        FalconLoss(dictionary, backend="chunked", input_precision="tf32")
    with pytest.raises(InputError, match=r"the chunked back end takes no input_precision"):
        FalconLoss(dictionary, block_size=16, input_precision="tf32")
    with pytest.raises(InputError, match=r"complete dictionary takes no input_precision"):
        FalconLoss(CompleteDictionary(16), input_precision="tf32")


BENCHMARK = Path(__file__).parents[3] / "benchmarks" / "kernels.py"


@pytest.mark.slow
def test_kernels_compile_for_gpus(tmp_path):
    """For sm_80 and sm_90, ahead of time: within the limits of benchmarks/kernels.py, and on tensor cores."""
    run = subprocess.run(
        [sys.executable, str(BENCHMARK), "--quick", "--out", str(tmp_path / "kernels")],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    rows = json.loads((tmp_path / "kernels.json").read_text())["rows"]
    assert {row["target"] for row in rows} == {80, 90}
    assert {row["kernel"].split(",")[0] + "_kernel" for row in rows} == TILES_OF.keys()
    assert all(row["tensor_core_instructions"] > 0 for row in rows)
