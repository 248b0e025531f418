"""The only user of torch.distributed: who am I, and sums over ranks that carry gradients.

Without an initialized process group every function is the identity of one process.

Why gradients must flow through the sums: the loss L is one function of the whole batch. Each rank
computes the same L, so backward runs R times, once on every rank; the backward of `all_reduce_sum`
adds the R gradients, each rank then holds the gradient of R * L with respect to its own rows, and
the mean that DDP takes over ranks is exactly the gradient of L. Equal shards are not needed.
"""

from __future__ import annotations

import functools
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from falcon_ssl.core.errors import InputError, LostRankError

CHUNK = 2**16  # rows that are gathered at a time
GRACE = 5.0  # seconds in which all ranks that are well notice that another is not


def is_distributed() -> bool:
    """Whether a process group of more than one rank is running."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def rank() -> int:
    """Index of this process, 0 when there is only one."""
    return dist.get_rank() if is_distributed() else 0


def world_size() -> int:
    """Number of processes, 1 when there is only one."""
    return dist.get_world_size() if is_distributed() else 1


def planned_ranks() -> int:
    """Number of processes of this run, before they are joined too: torchrun sets the variable."""
    return world_size() if is_distributed() else max(1, int(os.environ.get("WORLD_SIZE", "1")))


def join_after_restart(device: str, timeout: timedelta) -> None:
    """Join the ranks of a job that torchrun has started again; nothing in a first attempt.

    torchrun keeps one store for all attempts (torch 2.13), with the addresses of ranks that are gone, and gloo would
    wait for those: the keys of this attempt get a prefix. Accelerate takes a process group as it finds it.

    Args:
        device: "cuda", or another one, whose ranks talk by gloo.
        timeout: Of a communication.
    """
    attempt, size = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), os.environ.get("WORLD_SIZE")
    shares_store = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    if attempt == "0" or size in (None, "1") or not shares_store or dist.is_initialized():
        return
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = dist.TCPStore(  # type: ignore[attr-defined]
        host, port, int(size), is_master=False, timeout=timeout
    )
    dist.init_process_group(
        "nccl" if device == "cuda" else "gloo",
        store=dist.PrefixStore(f"attempt {attempt}", store),  # type: ignore[attr-defined]
        rank=int(os.environ["RANK"]),
        world_size=int(size),
        timeout=timeout,
    )


@contextmanager
def naming_lost_ranks() -> Iterator[None]:
    """In this block a communication that fails raises an error that names the ranks that others waited for.

    Raises:
        LostRankError: In place of the error of gloo or NCCL: at once where a rank has died, after the timeout of the
            process group where it stands still, and `GRACE` later at most.

    Distributed:
        Costs nothing until then. Ranks that notice say so in the store of the process group; the others are lost.
    """
    try:
        yield
    except RuntimeError as error:
        is_communication = isinstance(error, dist.DistError) or "/gloo/" in str(error)
        if not is_distributed() or not is_communication:
            raise
        lost = ", ".join(f"rank {r}" for r in _silent_ranks())
        cause = f"{lost} has died, ended or stands still" if lost else str(error)
        raise LostRankError(
            f"rank {rank()} of {world_size()} cannot go on: {cause}; the same command with --resume auto"
            " resumes from the last checkpoint"
        ) from error


def _silent_ranks() -> list[int]:
    """The ranks that have not noticed that a communication has failed; rank 0 if its store does not answer."""
    store, found = dist.distributed_c10d._get_default_store(), [0]
    mine, left, end = rank(), set(range(world_size())), time.monotonic() + GRACE

    def ask() -> None:
        nonlocal left
        with suppress(RuntimeError):
            store.set(f"noticed/{mine}", "")
            while left and time.monotonic() < end:
                left = {r for r in left if not store.check([f"noticed/{r}"])}
                time.sleep(0.05)
            found[:] = sorted(left)

    # A thread, for a store whose host stands still never answers.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(2 * GRACE)
    return found


class _AllReduceSum(torch.autograd.Function):
    """y = sum over ranks of x;  dL/dx = sum over ranks of dL/dy."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(y)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        grad = grads[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(grad)
        return grad


def all_reduce_sum(x: Tensor) -> Tensor:
    """Sum of ``x`` over all ranks, with gradient.

    Args:
        x: Any shape, the same on every rank.

    Returns:
        The sum, equal on every rank; ``x`` itself when there is one process.
    """
    return _AllReduceSum.apply(x) if is_distributed() else x  # type: ignore[no-untyped-call]


def all_reduce_max(x: Tensor) -> Tensor:
    """Element-wise maximum of ``x`` over all ranks, without gradient: a shift that keeps exp finite."""
    if not is_distributed():
        return x
    y = x.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(y, op=dist.ReduceOp.MAX)
    return y


def all_reduce_sum_async(x: Tensor) -> Callable[[], Tensor]:
    """Start summing ``x`` in place over all ranks, without gradient; the result waits for it.

    Communication of one block then overlaps with the computation of the next.
    """
    if not is_distributed():
        return lambda: x
    work = dist.all_reduce(x, async_op=True)

    def wait() -> Tensor:
        assert work is not None
        work.wait()
        return x

    return wait


def row_counts(num_rows: int, device: torch.device) -> list[int]:
    """Rows held by each rank, in rank order."""
    return [row[0] for row in _gather_integers([num_rows], device)]


def agreed_global_count(num_rows: int, fingerprint: Callable[[], str], device: torch.device) -> int:
    """Rows over all ranks, the N of every 1/N, from ranks that work on the same thing.

    Args:
        num_rows: Rows of this rank.
        fingerprint: Returns what must be the same everywhere, in words; only called where there are several ranks.
        device: Where the process group communicates.

    Raises:
        InputError: On every rank when two ranks hold different fingerprints, so that none waits for another.
    """
    if not is_distributed():
        return num_rows
    text = fingerprint()
    digest = _digest(text)
    rows = _gather_integers([num_rows, digest], device)
    others = [r for r, (_, other) in enumerate(rows) if other != digest]
    if others:
        raise InputError(
            "ranks disagree on the loss",
            received=f"rank {rank()}: {text}; not the same on ranks {others}",
            expected="the same dictionary and the same options on every rank",
            fix="give every rank the same seed, sizes and options",
        )
    return sum(count for count, _ in rows)


@functools.lru_cache
def _digest(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "little")


def _gather_integers(mine: list[int], device: torch.device) -> list[list[int]]:
    """The integers of every rank, in rank order."""
    if not is_distributed():
        return [mine]
    sent = torch.tensor(mine, device=device)
    received = [torch.empty_like(sent) for _ in range(world_size())]
    dist.all_gather(received, sent)
    return [[int(x) for x in row] for row in torch.stack(received).tolist()]


def gather_on_host(x: Tensor, device: torch.device) -> Tensor:
    """Rows of all ranks in rank order, on the CPU and without gradient; shards may differ in size.

    Args:
        x: [N_r, ...], the rows of this rank, on the CPU.
        device: Where the process group communicates; it holds `CHUNK` rows of every rank at a time.
    """
    if not is_distributed():
        return x
    counts = row_counts(len(x), device)
    parts: list[list[Tensor]] = [[] for _ in counts]
    for start in range(0, max(counts), CHUNK):
        mine = x[start : start + CHUNK]
        sent = x.new_zeros(min(CHUNK, max(counts) - start), *x.shape[1:], device=device)
        sent[: len(mine)] = mine
        received = [torch.empty_like(sent) for _ in counts]
        dist.all_gather(received, sent)
        for part, rows, count in zip(parts, received, counts, strict=True):
            part.append(rows[: max(0, count - start)].cpu())
    return torch.cat([rows for part in parts for rows in part])


class _AllGatherRows(torch.autograd.Function):
    """Rows of all ranks in rank order;  dL/dx = my rows of the sum over ranks of dL/dy."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, counts: list[int]) -> Tensor:
        # Padded to equal shapes: gloo and NCCL both want them.
        padded = x.new_zeros(max(counts), *x.shape[1:])
        padded[: x.shape[0]] = x
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded)
        ctx.counts = counts
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        grad = grads[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(grad)
        start = sum(ctx.counts[: rank()])
        return grad[start : start + ctx.counts[rank()]], None


def all_gather_rows(x: Tensor) -> Tensor:
    """Concatenate the rows of all ranks, in rank order, with gradient; shards may differ in size.

    Args:
        x: [N_r, ...], the rows of this rank.

    Returns:
        [sum_r N_r, ...], equal on every rank; ``x`` itself when there is one process.
    """
    if not is_distributed():
        return x
    counts = row_counts(x.shape[0], x.device)
    rows: Tensor = _AllGatherRows.apply(x, counts)  # type: ignore[no-untyped-call]
    return rows
