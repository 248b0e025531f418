"""How much memory there is, and how many threads may decode."""

from __future__ import annotations

import os
from pathlib import Path

import torch

_CGROUP = Path("/sys/fs/cgroup")
_MEMINFO = Path("/proc/meminfo")


def available_memory(device: torch.device | str = "cpu") -> int:
    """Bytes that this process may take of a device.

    For the CPU that is its share of what is free, beside the other processes of the run on this machine and inside the
    limits of a container. Files that the system keeps cached only because nobody needs the memory count as free.
    """
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = _machine_memory()
    try:
        limit = int((_CGROUP / "memory.max").read_text())  # "max" without a limit
        used = int((_CGROUP / "memory.current").read_text())
        free = min(free, limit - used + _field(_CGROUP / "memory.stat", "inactive_file"))
    except (OSError, ValueError):
        pass
    return max(0, free) // _local_processes()


def _machine_memory() -> int:
    available = 1024 * _field(_MEMINFO, "MemAvailable:")
    if available:
        return available
    page, pages = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_PHYS_PAGES")
    try:
        return page * os.sysconf("SC_AVPHYS_PAGES")
    except ValueError:  # macOS tells the installed memory only
        return page * pages // 2


def _field(path: Path, name: str) -> int:
    """The number after a name in a file of the kernel; 0 without it."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.split()[:1] == [name]), 0)


def _local_processes() -> int:
    """Processes of this run on this machine, as torchrun tells each of them."""
    return max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def bytes_text(count: int) -> str:
    """Bytes for people: "146.5 MiB".

    Example:
        >>> bytes_text(2**29), bytes_text(3 * 2**29)
        ('512.0 MiB', '1.5 GiB')
    """
    return f"{count / 2**20:,.1f} MiB" if count < 2**30 else f"{count / 2**30:,.1f} GiB"


def num_workers() -> int:
    """Threads that read and decode: this process's share of the cores that it may use, at least two."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(2, (cores or 1) // _local_processes())
