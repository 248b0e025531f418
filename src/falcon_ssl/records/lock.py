"""One writer at a time: a lock on a folder that the system takes back when its process ends, however it ends."""

from __future__ import annotations

import logging
import os
import sys
import weakref
from pathlib import Path
from types import TracebackType

from falcon_ssl.core.errors import InputError

if sys.platform != "win32":  # where nothing is locked
    import fcntl

logger = logging.getLogger(__name__)

LOCK = "lock.json"


class Lock:
    """Held from construction until `release`, the end of a ``with`` block, or the end of the object or process.

    A record lock (``fcntl``), which works on network file systems too and belongs to the process: it keeps other
    processes out, and not a second run in this one, where an exception may keep the first alive for a while.

    Args:
        folder: An existing folder; the file ``lock.json`` in it is locked, and stays.

    Raises:
        InputError: Another process holds it.
    """

    def __init__(self, folder: Path) -> None:
        file = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        self._release = weakref.finalize(self, os.close, file)
        if sys.platform == "win32":
            return
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:  # EAGAIN or EACCES: POSIX allows both
            holder = "".join(filter(str.isdigit, os.read(file, 40).decode(errors="replace")))
            self.release()
            raise InputError(
                "another process is writing here",
                received=f"{folder}, which process {holder or '?'} holds",
                expected="a folder that nobody else writes to",
                fix="wait until it ends or stop it, or choose another --out",
            ) from error
        except OSError as error:
            logger.warning("%s cannot be locked (%s): start nothing else on it", folder, error)
            return
        os.ftruncate(file, 0)
        os.write(file, f'{{"process": {os.getpid()}}}\n'.encode())

    def release(self) -> None:
        """Let others in; nothing the second time."""
        self._release()

    def __enter__(self) -> Lock:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()


def check_unlocked(folder: Path) -> None:
    """Complain now about what `Lock` would complain about later.

    Raises:
        InputError: Another process holds the lock of the folder.
    """
    if (folder / LOCK).is_file():
        Lock(folder).release()
