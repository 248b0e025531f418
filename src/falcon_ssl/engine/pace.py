"""How long a run will take on this machine, said once, from its own first steps."""

from __future__ import annotations

import time

import torch

from falcon_ssl.config.run import RunConfig
from falcon_ssl.core.devices import wait_for
from falcon_ssl.report.formatting import format_duration

STEPS = 10  # that are timed
ENOUGH = 5.0  # seconds of them are enough, for steps that are slow


class Pace:
    """Times the first steps of a session, which costs nothing: they have to be taken anyway.

    Args:
        config: Epochs, and whether views grow.
        num_steps: Steps of the whole run.
        device: Where they are taken.
    """

    def __init__(self, config: RunConfig, num_steps: int, device: torch.device) -> None:
        self._config, self._num_steps, self._device = config, num_steps, device
        self._first: int | None = None
        self._started = 0.0
        self._said = False

    def after(self, step: int) -> str:
        """A sentence once it is known, and nothing before and after.

        Args:
            step: How many steps the run has taken.
        """
        if self._said:
            return ""
        if self._first is None:  # the first step pays for compilers, caches and thread pools
            wait_for(self._device)
            self._first, self._started = step, time.perf_counter()
            return ""
        timed = step - self._first
        if timed < STEPS and time.perf_counter() - self._started < ENOUGH:
            return ""
        wait_for(self._device)
        self._said = True
        return self._sentence(step, (time.perf_counter() - self._started) / timed)

    def _sentence(self, step: int, seconds: float) -> str:
        left = format_duration(seconds * (self._num_steps - step))
        about = "about" if self._config.views.start_size is None else "views grow, so more than"
        steps = f"{self._num_steps} steps in {self._config.epochs} epochs"
        return f"{steps}, {seconds:.2g} s each on this machine: {about} {left} of training left"
