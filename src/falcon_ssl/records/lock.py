"""One writer at a time: a lock on a folder that ends with its process, however that ends."""

from __future__ import annotations

import logging
import os
import weakref
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from falcon_ssl.core.errors import InputError
from falcon_ssl.records.files import read_json, write_text

logger = logging.getLogger(__name__)

LOCK, HOLDER = ".lock", "lock.json"  # what is locked, and the process that did it last
PATIENCE = 0.2  # seconds: `is_locked` holds the lock for a moment


class Lock(AbstractContextManager["Lock", None]):
    """Held from construction until `release`, the end of a ``with`` block, or the end of the object or process.

    It keeps other processes out and not a second lock of this one, where an exception may keep the first alive.

    Args:
        folder: An existing folder. ``.lock`` in it is locked, ``lock.json`` names this process; both stay.

    Raises:
        InputError: Another process holds it.
    """

    def __init__(self, folder: Path) -> None:
        lock = FileLock(folder / LOCK, timeout=PATIENCE, thread_local=False, is_singleton=True)
        try:
            lock.acquire()
        except Timeout as error:
            raise InputError(
                "another process is writing here",
                received=f"{folder}, which process {_holder(folder)} holds",
                expected="a folder that nobody else writes to",
                fix="wait until it ends or stop it, or choose another --out",
            ) from error
        except (OSError, NotImplementedError) as error:  # the latter by filelock 3, without flock
            logger.warning("%s cannot be locked (%s): start nothing else on it", folder, error)
        self._release = weakref.finalize(self, lock.release)
        write_text(folder / HOLDER, f'{{"process": {os.getpid()}}}\n')

    def release(self) -> None:
        """Let others in; nothing the second time."""
        self._release()

    def __exit__(self, *error: object) -> None:
        self.release()


def check_unlocked(folder: Path) -> None:
    """Complain now about what `Lock` would complain about later.

    Raises:
        InputError: Another process holds the lock of the folder.
    """
    if (folder / LOCK).is_file():
        Lock(folder).release()


def is_locked(folder: Path) -> bool:
    """Whether a process writes to a folder: asked without writing there, so of a folder of somebody else's too."""
    try:
        with (folder / LOCK).open("rb") as file:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except ImportError:  # Windows
        with suppress(OSError), FileLock(folder / LOCK, timeout=0):
            return False
        return True
    except OSError:  # never locked, or by a file system that cannot
        return False
    return False


def _holder(folder: Path) -> Any:
    try:
        return read_json(folder / HOLDER).get("process", "?")
    except InputError:
        return "?"
