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
Compute = Callable[[Tensor, StreamedDictionary, Objective], tuple[LossTerms, Tensor]]

logger = logging.getLogger(__name__)


def choose_backend(
    backend: Backend, dictionary: StreamedDictionary, *, block_size: int | None
) -> Compute:
    """The function that computes the loss.

    Args:
        backend: A name, or "auto".
        dictionary: C codes of width F.
        block_size: Codes a block, for the chunked back end.

    Raises:
        InputError: An unknown name, a back end that is not available, or a block size that is not positive or that the
            back end does not take.
    """
    check_choice("backend", backend, get_args(Backend))
    available = available_backends(dictionary)
    if backend != "auto" and backend not in available:
        raise InputError(
            f"the {backend} back end is not available for {dictionary}",
            received=f"backend={backend!r}",
            expected=f"one of {', '.join(available)}",
            fix="install triton for a Rademacher dictionary, or use backend='auto'",
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
        return _compute_fastest
    return _BACKENDS[backend]


def available_backends(dictionary: StreamedDictionary) -> list[str]:
    """Names of the back ends that can run here, on some device, with this dictionary."""
    names = [name for name in _BACKENDS if name != "triton"]
    if isinstance(dictionary, RademacherDictionary) and _has_triton():
        names.append("triton")
    return names


@functools.cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


def _compute_fastest(
    u_VNF: Tensor, dictionary: StreamedDictionary, objective: Objective
) -> tuple[LossTerms, Tensor]:
    """Rule of "auto": triton on a GPU where it can run and passes its check, else chunked.

    Measured on CPU (benchmarks/loss.py): chunked takes 0.4 to 0.7 of the time of dense from N C = 4 M upwards and ties
    with it below, with a few per cent of its memory.
    """
    name = "chunked"
    if u_VNF.is_cuda and u_VNF.dtype != torch.float64:
        if "triton" not in available_backends(dictionary):
            if isinstance(dictionary, RademacherDictionary):
                _log_once("triton is not installed: the loss runs as chunked PyTorch")
        elif triton_agrees(u_VNF.device):
            name = "triton"
    _log_once(f"the FALCON loss runs on the {name} back end")
    return _BACKENDS[name](u_VNF, dictionary, objective)


@functools.cache
def triton_agrees(device: torch.device) -> bool:
    """Whether the kernels, compiled for this device, give what chunked gives on a small problem.

    A kernel that a driver or compiler breaks must not break a training run: "auto" asks once a process and device.

    Args:
        device: Where the kernels would run.

    Returns:
        False, with a log line, when they fail or differ by more than 1 %.
    """
    dictionary = RademacherDictionary(200, 32, seed=0)
    u_VNF = torch.randn(2, 24, 32, generator=torch.Generator().manual_seed(0)).to(device)
    u_VNF = normalize(u_VNF, dim=2).requires_grad_()
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
        for compute in (falcon_loss_chunked, _compute_triton):
            with torch.enable_grad():
                terms, _ = compute(u_VNF, dictionary, objective)
            gradients.append(torch.autograd.grad(terms.total, u_VNF)[0])
        error = float((gradients[1] - gradients[0]).norm() / gradients[0].norm())
        reason = "" if error < 0.01 else f"its gradient is off by {error:.1%}"
    except Exception as failure:  # whatever a compiler may raise
        reason = f"it fails: {failure}"
    if reason:
        logger.warning("the triton back end is not used on %s, %s", device, reason)
    return not reason


def _compute_triton(
    u_VNF: Tensor, dictionary: StreamedDictionary, objective: Objective
) -> tuple[LossTerms, Tensor]:
    from falcon_ssl.losses.falcon.triton import falcon_loss_triton

    return falcon_loss_triton(u_VNF, dictionary, objective)


@functools.cache
def _log_once(line: str) -> None:
    logger.info(line)


_BACKENDS: dict[str, Compute] = {
    "reference": falcon_loss_reference,
    "dense": falcon_loss_dense,
    "chunked": falcon_loss_chunked,
    "triton": _compute_triton,
}
