"""Which implementation computes the loss: the table of back ends and the measured rule of "auto"."""

from __future__ import annotations

import functools
import importlib.util
import logging
import math
from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import normalize

from falcon_ssl.core.checks import check_at_least, check_choice
from falcon_ssl.core.distributed import world_size
from falcon_ssl.core.errors import InputError
from falcon_ssl.dictionary.base import StreamedDictionary
from falcon_ssl.dictionary.rademacher import RademacherDictionary
from falcon_ssl.losses.falcon.chunked import falcon_loss_chunked
from falcon_ssl.losses.falcon.dense import falcon_loss_dense
from falcon_ssl.losses.falcon.objective import Objective
from falcon_ssl.losses.falcon.reference import falcon_loss_reference
from falcon_ssl.losses.falcon.terms import LossTerms

Backend = Literal["auto", "reference", "dense", "chunked", "triton"]
InputPrecision = Literal["bf16x3", "tf32", "ieee"]
Compute = Callable[[Tensor, StreamedDictionary, Objective], tuple[LossTerms, Tensor]]

logger = logging.getLogger(__name__)


def choose_backend(
    backend: Backend,
    dictionary: StreamedDictionary,
    *,
    block_size: int | None,
    input_precision: InputPrecision = "bf16x3",
) -> Compute:
    """The function that computes the loss.

    Args:
        backend: A name, or "auto".
        dictionary: C codes of width F.
        block_size: Codes per block, for the chunked back end.
        input_precision: How the triton back end multiplies float32 embeddings.

    Raises:
        InputError: An unknown name, a back end that is not available, or a block size that is not positive or that the
            back end does not take, or a precision that it does not take.
    """
    check_choice("backend", backend, get_args(Backend))
    check_choice("input_precision", input_precision, get_args(InputPrecision))
    available = available_backends(dictionary)
    if backend != "auto" and backend not in available:
        raise InputError(
            f"the {backend} back end is not available for {dictionary}",
            received=f"backend={backend!r}",
            expected=f"one of {', '.join(available)}",
            fix="install triton for a Rademacher dictionary, or use backend='auto'",
        )
    runs_chunked = backend == "auto" and block_size is not None
    if input_precision != "bf16x3" and (backend not in ("auto", "triton") or runs_chunked):
        raise InputError(
            f"the {'chunked' if runs_chunked else backend} back end takes no input_precision",
            received=input_precision,
            expected="the precision of float32 in torch",
            fix="leave it out, or use the triton back end",
        )
    if block_size is not None:
        check_at_least("block_size", block_size, 1)
        if backend not in ("auto", "chunked"):
            raise InputError(
                f"the {backend} back end takes no block_size",
                received=block_size,
                expected="None",
                fix="leave it out, or use the chunked back end",
            )
        return functools.partial(falcon_loss_chunked, block_size=block_size)
    if backend == "auto":
        return functools.partial(_compute_fastest, input_precision=input_precision)
    if backend == "triton":
        return functools.partial(_compute_triton, input_precision=input_precision)
    return _BACKENDS[backend]


def available_backends(dictionary: StreamedDictionary) -> list[str]:
    """Names of the back ends that can run here, on some device, with this dictionary."""
    names = [*_BACKENDS]
    if isinstance(dictionary, RademacherDictionary) and _has_triton():
        names.append("triton")
    return names


@functools.cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


def _compute_fastest(
    u_VNF: Tensor,
    dictionary: StreamedDictionary,
    objective: Objective,
    *,
    input_precision: InputPrecision,
) -> tuple[LossTerms, Tensor]:
    """Rule of "auto": triton on a GPU where it can run and passes its check, else chunked.

    Measured on CPU (benchmarks/loss.py): chunked takes 0.4 to 0.7 of the time of dense from N C = 4 M upwards and ties
    with it below, with a few per cent of its memory.
    """
    if u_VNF.is_cuda and u_VNF.dtype != torch.float64:
        if "triton" not in available_backends(dictionary):
            if isinstance(dictionary, RademacherDictionary):
                _log_once("triton is not installed: the loss runs as chunked PyTorch")
        elif triton_agrees(u_VNF.device, u_VNF.dtype, input_precision):
            _log_once("the FALCON loss runs on the triton back end")
            return _compute_triton(u_VNF, dictionary, objective, input_precision=input_precision)
    _log_once("the FALCON loss runs on the chunked back end")
    return falcon_loss_chunked(u_VNF, dictionary, objective)


@functools.cache
def triton_agrees(
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    input_precision: InputPrecision = "bf16x3",
) -> bool:
    """Whether the kernels, compiled for this device, give what chunked gives on a small problem.

    A kernel that a driver or compiler breaks must not break a training run: "auto" asks once a process, device and
    precision.

    Args:
        device: Where the kernels would run.
        dtype: Of the embeddings.
        input_precision: How float32 is multiplied.

    Returns:
        False, with a log line, when they fail or differ by more than 1 %, 3 % in half precision.
    """
    dictionary = RademacherDictionary(200, 32, seed=0)
    u_VNF = torch.randn(2, 24, 32, generator=torch.Generator().manual_seed(0)).to(device)
    u_VNF = normalize(u_VNF, dim=2).to(dtype).requires_grad_()
    kernels = functools.partial(_compute_triton, input_precision=input_precision)
    largest = 0.01 if dtype == torch.float32 else 0.03
    objective = Objective(
        logit_scale=18.0,
        beta=1.0,
        prior_matching="reverse",
        num_views=2,
        num_targets=2,
        num_rows=24 * world_size(),
        log_prior_C=torch.full((200,), -math.log(200), device=device),
    )
    gradients = []
    try:
        for compute in (falcon_loss_chunked, kernels):
            with torch.enable_grad():
                terms, _ = compute(u_VNF, dictionary, objective)
            gradients.append(torch.autograd.grad(terms.total, u_VNF)[0].float())
        error = float((gradients[1] - gradients[0]).norm() / gradients[0].norm())
        reason = "" if error < largest else f"its gradient is off by {error:.1%}"
    except Exception as failure:  # whatever a compiler may raise
        reason = f"it fails: {failure}"
    if reason:
        logger.warning("the triton back end is not used on %s, %s", device, reason)
    return not reason


def _compute_triton(
    u_VNF: Tensor,
    dictionary: StreamedDictionary,
    objective: Objective,
    *,
    input_precision: InputPrecision,
) -> tuple[LossTerms, Tensor]:
    from falcon_ssl.losses.falcon.triton import falcon_loss_triton

    return falcon_loss_triton(u_VNF, dictionary, objective, input_precision=input_precision)


def _log_once(line: str) -> None:
    if not torch.compiler.is_compiling():  # a log ends a graph
        _logged(line)


@functools.cache
def _logged(line: str) -> None:
    logger.info(line)


_BACKENDS: dict[str, Compute] = {
    "reference": falcon_loss_reference,
    "dense": falcon_loss_dense,
    "chunked": falcon_loss_chunked,
}
