"""Which implementation computes the loss: the table of back ends and the measured rule of "auto"."""

from __future__ import annotations

import functools
import importlib.util
import logging
from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from falcon_ssl.checks import InputError, check_at_least, check_choice
from falcon_ssl.dictionary import RademacherDictionary, StreamedDictionary
from falcon_ssl.losses.falcon_chunked import falcon_loss_chunked
from falcon_ssl.losses.falcon_dense import falcon_loss_dense
from falcon_ssl.losses.falcon_reference import falcon_loss_reference
from falcon_ssl.losses.objective import Objective
from falcon_ssl.losses.terms import LossTerms

Backend = Literal["auto", "reference", "dense", "chunked", "triton"]
Compute = Callable[[Tensor, Tensor, StreamedDictionary, Objective], tuple[LossTerms, Tensor]]

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
        check_at_least("block_size", block_size, 1, fix="use at least one code a block")
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
    if importlib.util.find_spec("triton") and isinstance(dictionary, RademacherDictionary):
        names.append("triton")
    return names


def _compute_fastest(
    u1_NF: Tensor, u2_NF: Tensor, dictionary: StreamedDictionary, objective: Objective
) -> tuple[LossTerms, Tensor]:
    """Rule of "auto": triton on CUDA where it can run, else chunked.

    Measured on CPU (benchmarks/loss.py): chunked takes 0.4 to 0.7 of the time of dense from N C = 4 M upwards and ties
    with it below, with a few per cent of its memory.
    """
    on_cuda = u1_NF.is_cuda and u1_NF.dtype != torch.float64
    name = "triton" if on_cuda and "triton" in available_backends(dictionary) else "chunked"
    if on_cuda and name == "chunked" and isinstance(dictionary, RademacherDictionary):
        _log_once("triton is not installed: the loss runs as chunked PyTorch")
    _log_once(f"the FALCON loss runs on the {name} back end")
    return _BACKENDS[name](u1_NF, u2_NF, dictionary, objective)


def _compute_triton(
    u1_NF: Tensor, u2_NF: Tensor, dictionary: StreamedDictionary, objective: Objective
) -> tuple[LossTerms, Tensor]:
    from falcon_ssl.losses.falcon_triton import falcon_loss_triton

    return falcon_loss_triton(u1_NF, u2_NF, dictionary, objective)


@functools.cache
def _log_once(line: str) -> None:
    logger.info(line)


_BACKENDS: dict[str, Compute] = {
    "reference": falcon_loss_reference,
    "dense": falcon_loss_dense,
    "chunked": falcon_loss_chunked,
    "triton": _compute_triton,
}
