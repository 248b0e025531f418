"""How much memory there is, and how many threads may decode."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING

import torch

from falcon_ssl.core.memory import bytes_text, free_memory

if TYPE_CHECKING:
    from falcon_ssl.data.source import Source

RESIDENT_FRACTION = 0.4  # of the free memory that images may take


def available_memory(device: torch.device | str = "cpu") -> int:
    """Bytes that this process may take of a device.

    For the CPU that is its part of what is free, beside the other processes of the run on this machine and inside the
    limits of a container. Files that the system keeps cached only because nobody needs the memory count as free.
    """
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return free_memory() // _local_processes()


def fits(source: Source, device: torch.device | str = "cpu") -> tuple[bool, str]:
    """Whether all images of a source, decoded, may be kept on a device; and the comparison in words."""
    dtype: torch.dtype = getattr(source, "dtype", torch.uint8)
    needed = len(source) * math.prod(source.image_shape) * dtype.itemsize
    available = available_memory(device)
    words = f"{source.name}: {bytes_text(needed)} of {bytes_text(available)} free memory"
    return needed <= RESIDENT_FRACTION * available, words


def _local_processes() -> int:
    """Processes of this run on this machine: torchrun sets the variable."""
    return max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def num_workers() -> int:
    """Threads that read and decode: this process's part of the cores that it may use, at least two."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(2, (cores or 1) // _local_processes())
