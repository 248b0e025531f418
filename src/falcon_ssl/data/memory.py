"""How much memory there is, and how many threads may decode."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from falcon_ssl.core.extras import train_extra

if TYPE_CHECKING:
    from falcon_ssl.data.source import Source

RESIDENT_FRACTION = 0.4  # of the free memory that images may take

_CGROUP = Path("/sys/fs/cgroup")


def available_memory(device: torch.device | str = "cpu") -> int:
    """Bytes that this process may take of a device.

    For the CPU that is its part of what is free, beside the other processes of the run on this machine and inside the
    limits of a container. Files that the system keeps cached only because nobody needs the memory count as free.
    """
    with train_extra("reading images"):
        import psutil

    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free: int = psutil.virtual_memory().available
    try:  # psutil knows the machine, not the container
        limit = int((_CGROUP / "memory.max").read_text())  # "max" without a limit
        used = int((_CGROUP / "memory.current").read_text())
        stat = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
        free = min(free, limit - used + int(stat.get("inactive_file", 0)))
    except (OSError, ValueError):
        pass
    return max(0, free) // _local_processes()


def fits(source: Source, device: torch.device | str = "cpu") -> tuple[bool, str]:
    """Whether all images of a source, decoded, may be kept on a device; and the comparison in words."""
    needed, available = len(source) * math.prod(source.image_shape), available_memory(device)
    words = f"{source.name}: {bytes_text(needed)} of {bytes_text(available)} free memory"
    return needed <= RESIDENT_FRACTION * available, words


def _local_processes() -> int:
    """Processes of this run on this machine: torchrun sets the variable."""
    return max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def bytes_text(count: int) -> str:
    """Bytes in readable units: "146.5 MiB".

    Example:
        >>> bytes_text(2**29), bytes_text(3 * 2**29)
        ('512.0 MiB', '1.5 GiB')
    """
    return f"{count / 2**20:,.1f} MiB" if count < 2**30 else f"{count / 2**30:,.1f} GiB"


def num_workers() -> int:
    """Threads that read and decode: this process's part of the cores that it may use, at least two."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(2, (cores or 1) // _local_processes())
