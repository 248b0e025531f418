"""How much memory this process may still take."""

from __future__ import annotations

import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def free_memory() -> int:
    """Bytes that are free on this machine and inside the limits of a container.

    Files that the system keeps cached only because nobody needs the memory count as free.
    """
    free = _machine()
    try:  # the machine's numbers do not know the container
        limit = int((_CGROUP / "memory.max").read_text())  # "max" without a limit
        used = int((_CGROUP / "memory.current").read_text())
        stat = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
        free = min(free, limit - used + int(stat.get("inactive_file", 0)))
    except (OSError, ValueError):
        pass
    return max(0, free)


def bytes_text(count: float) -> str:
    """Bytes in readable units: "146.5 MiB".

    Example:
        >>> bytes_text(2**29), bytes_text(3 * 2**29)
        ('512.0 MiB', '1.5 GiB')
    """
    return f"{count / 2**20:,.1f} MiB" if count < 2**30 else f"{count / 2**30:,.1f} GiB"


def _machine() -> int:
    try:
        import psutil

        return int(psutil.virtual_memory().available)
    except ImportError:  # of the extra train: the loss alone does without
        pages: int = os.sysconf("SC_PHYS_PAGES")
        return pages * int(os.sysconf("SC_PAGE_SIZE"))
