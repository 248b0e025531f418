"""One function on several ranks: each in a process of its own, joined by gloo on this machine."""

from __future__ import annotations

import datetime
import gc
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

Work = Callable[[int, int], Any]  # (rank, number of ranks) -> what torch.save takes


def on_ranks(work: Work, num_ranks: int, folder: Path) -> list[Any]:
    """What ``work`` returns on every rank; ``folder`` is empty, and ``work`` belongs to a module."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([work.__module__])
    processes = [
        context.Process(target=_main, args=(work, rank, num_ranks, str(folder)))
        for rank in range(num_ranks)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=900)  # a loaded machine is no hang
        process.kill()
    assert [process.exitcode for process in processes] == [0] * num_ranks
    # Written a moment ago by `_main`; slices of rows are among the results.
    return [torch.load(folder / f"rank{rank}.pt", weights_only=False) for rank in range(num_ranks)]


def _main(work: Work, rank: int, num_ranks: int, folder: str) -> None:
    gc.freeze()  # imports are no garbage, and to look through them would copy all their pages into this process
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/rendezvous",
        rank=rank,
        world_size=num_ranks,
        timeout=datetime.timedelta(seconds=150),
    )
    torch.save(work(rank, num_ranks), f"{folder}/rank{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()
