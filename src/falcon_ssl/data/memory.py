"""How much memory there is, and how many threads may decode."""

from __future__ import annotations

import os
from pathlib import Path

import torch

_CGROUP = Path("/sys/fs/cgroup")


def available_memory(device: torch.device | str = "cpu") -> int:
    """Bytes that are free on a device; for the CPU, inside the limits of a container too."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    page, pages = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_PHYS_PAGES")
    try:
        pages = os.sysconf("SC_AVPHYS_PAGES")
    except ValueError:  # macOS tells the installed memory only
        pages //= 2
    free = page * pages
    try:
        limit = int((_CGROUP / "memory.max").read_text())  # "max" without a limit
        free = min(free, limit - int((_CGROUP / "memory.current").read_text()))
    except (OSError, ValueError):
        pass
    return max(0, free)


def bytes_text(count: int) -> str:
    """Bytes for people: "146.5 MiB".

    Example:
        >>> bytes_text(2**29), bytes_text(3 * 2**29)
        ('512.0 MiB', '1.5 GiB')
    """
    return f"{count / 2**20:,.1f} MiB" if count < 2**30 else f"{count / 2**30:,.1f} GiB"


def num_workers() -> int:
    """Threads that read and decode: the cores that this process may use, at least two."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(2, cores or 1)
