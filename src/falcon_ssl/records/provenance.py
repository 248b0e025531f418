"""What a figure depends on besides its configuration."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from falcon_ssl.core.version import __version__


def environment(hardware: Mapping[str, str]) -> dict[str, Any]:
    """What a figure depends on besides its configuration: versions and hardware.

    Args:
        hardware: As `falcon_ssl.core.devices.hardware` returns.
    """
    return {
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "falcon_ssl": __version__,
        **own_commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        **hardware,
    }


@cache
def own_commit() -> Mapping[str, Any]:
    """`find_commit` of this package, asked once: git takes some hundredths of a second."""
    return find_commit(Path(__file__).parents[1])


def find_commit(package: Path) -> dict[str, Any]:
    """The commit that a package runs from, where it lies in ``src`` of a git checkout; no path of the machine.

    Returns:
        commit: Its hash, or None without a checkout, without git, or when git does not answer.
        uncommitted_changes: Whether ``src`` differs from it, by files that git does not know too.
    """
    found: dict[str, Any] = {"commit": None, "uncommitted_changes": None}
    root = package.parents[1]
    # Not that of an installed package: somebody's repository may be further up.
    if not (root / ".git").exists():
        return found
    status = ["status", "--porcelain=v2", "--branch", "--untracked-files=all", "--", "src"]
    try:
        lines = subprocess.run(
            ["git", "-C", str(root), *status],
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},  # somebody may be committing
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        ).stdout.splitlines()
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return found
    mark = "# branch.oid "
    commits = [line.removeprefix(mark) for line in lines if line.startswith(mark)]
    if not commits or commits[0] == "(initial)":
        return found
    changes = any(not line.startswith("#") for line in lines)
    return {"commit": commits[0], "uncommitted_changes": changes}
