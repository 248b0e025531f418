"""What this process may take of the machine, memory and cores, and which of a run's processes it is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_CGROUP = Path("/sys/fs/cgroup")
_STATUS = Path("/proc/self/status")


def free_memory() -> int:
    """Bytes that are free on this machine and inside the limits of a container.

    Files that the system keeps cached only because nobody needs the memory count as free.
    """
    free = _machine()
    try:  # the machine's numbers leave the container out
        limit = int((_CGROUP / "memory.max").read_text())  # "max" without a limit
        used = int((_CGROUP / "memory.current").read_text())
        stat = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
        free = min(free, limit - used + int(stat.get("inactive_file", 0)))
    except (OSError, ValueError):
        pass
    return max(0, free)


def available_memory(device: torch.device | str = "cpu") -> int:
    """Bytes that this process may take of a device.

    For the CPU that is its part of what is free, beside the other processes of the run on this machine.
    """
    if str(device).startswith("cuda"):
        import torch

        return torch.cuda.mem_get_info(device)[0]
    return free_memory() // _local_processes()


def peak_memory(device: torch.device | str = "cpu") -> int:
    """The most bytes that this process has held so far: of a GPU its tensors, else all of its memory; 0 if unknown."""
    if str(device).startswith("cuda"):
        import torch

        return torch.cuda.max_memory_allocated(device)
    try:  # not what getrusage has, which begins with the peak of the process that started this one
        lines = _STATUS.read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return next((1024 * int(one.split()[1]) for one in lines if one.startswith("VmHWM:")), 0)


def num_workers() -> int:
    """Threads that read and decode: this process's part of the cores that it may use, at least two."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(2, (cores or 1) // _local_processes())


def bytes_text(count: float) -> str:
    """Bytes in readable units: "146.5 MiB".

    Example:
        >>> bytes_text(2**29), bytes_text(3 * 2**29)
        ('512.0 MiB', '1.5 GiB')
    """
    return f"{count / 2**20:,.1f} MiB" if count < 2**30 else f"{count / 2**30:,.1f} GiB"


def is_main_process() -> bool:
    """Whether this is the one of the processes of torchrun that prints: the first."""
    return os.environ.get("RANK", "0") == "0"


def _machine() -> int:
    try:
        import psutil

        return int(psutil.virtual_memory().available)
    except ImportError:  # of the extra train: the loss alone does without
        pages: int = os.sysconf("SC_PHYS_PAGES")
        return pages * int(os.sysconf("SC_PAGE_SIZE"))


def _local_processes() -> int:
    """Processes of this run on this machine: torchrun sets the variable."""
    return max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
