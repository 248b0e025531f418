"""Signals that ask a run to stop: it saves where it is and ends with a code that says "run me again".

    SIGTERM    kill, Kubernetes, a spot instance, a batch system at its time limit
    SIGUSR1    SLURM's warning before that: --signal=USR1@120
    SIGINT     Ctrl-C; a second one ends at once

While a step is taken a signal only leaves a note, which the loop reads after the step. Before the first step there is
nothing to save, and the signal ends the run where it is.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import torch

from falcon_ssl.core.distributed import all_reduce_max, world_size
from falcon_ssl.core.errors import StoppedError

NAMES = ("SIGTERM", "SIGUSR1", "SIGINT")


class StopRequest:
    """Whether a signal has asked the run to stop.

    Attributes:
        signal: Name of the first one that came, or "".
    """

    def __init__(self) -> None:
        self.signal = ""
        self._can_save = False

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """In this block signals wait until they are asked for."""
        self._can_save = True
        try:
            yield
        finally:
            self._can_save = False

    def agreed(self, device: torch.device, *, is_logged: bool) -> bool:
        """Whether to stop after this step, the same on all ranks; several ranks agree at logged steps.

        A signal may reach one rank alone, or two of them around different steps.
        """
        if world_size() == 1:
            return bool(self.signal)
        if not is_logged:
            return False
        asked = all_reduce_max(torch.tensor(float(bool(self.signal)), device=device))
        return bool(asked > 0)

    def receive(self, number: int, frame: FrameType | None) -> None:
        """The handler of all these signals."""
        again, self.signal = bool(self.signal), self.signal or signal.Signals(number).name
        if not self._can_save:
            raise StoppedError(f"{self.signal} before the first step; run the same command again")
        if again and number == signal.SIGINT:
            raise KeyboardInterrupt


@contextmanager
def stop_signals() -> Iterator[StopRequest]:
    """Receive the signals in this block; Python handles them in the main thread alone, in another nothing changes."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    numbers = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]
    # What a parent has set to be ignored stays so: nohup, and shells for jobs in the background.
    numbers = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, request.receive) for number in numbers}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
