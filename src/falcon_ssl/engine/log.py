"""What a run writes while it trains, and when it ends: metrics, trackers, the environment."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from accelerate import Accelerator

from falcon_ssl.core.devices import hardware
from falcon_ssl.core.monitor import Moment, Observation
from falcon_ssl.engine.progress import Progress
from falcon_ssl.methods import Method
from falcon_ssl.records.folder import ENVIRONMENT, RunFolder
from falcon_ssl.records.provenance import environment


class Clock:
    """Seconds of a run over all its sessions, and images a second.

    Args:
        seconds_before: Of earlier sessions.
    """

    def __init__(self, seconds_before: float) -> None:
        self._start = time.perf_counter() - seconds_before
        self._session = self._window = time.perf_counter()
        self._images = self._window_images = 0

    def count(self, images: int) -> None:
        """Some images have been trained on."""
        self._images += images
        self._window_images += images

    def seconds(self) -> float:
        """Of the run so far."""
        return time.perf_counter() - self._start

    def images_per_second(self) -> float:
        """Since the last call."""
        now = time.perf_counter()
        speed = self._window_images / max(now - self._window, 1e-9)
        self._window, self._window_images = now, 0
        return speed

    def mean_images_per_second(self) -> float:
        """Of this session."""
        return self._images / max(time.perf_counter() - self._session, 1e-9)


class RunLog:
    """Writes the records of a run; all processes call it, the main one writes.

    Args:
        folder: The run folder.
        accelerator: Whose trackers are logged to.
        clock: Of the run.
        progress: What a person sees.
    """

    def __init__(
        self, folder: RunFolder, accelerator: Accelerator, clock: Clock, progress: Progress
    ) -> None:
        self._folder, self._accelerator = folder, accelerator
        self._clock, self._progress = clock, progress

    def step(self, moment: Moment, lr: float, observations: Sequence[Observation]) -> None:
        """Write a step and what the monitors found in it."""
        line: dict[str, Any] = {
            "step": moment.step,
            "epoch": round(moment.epoch, 6),
            "seconds": round(self._clock.seconds(), 3),
            "images_per_s": round(self._clock.images_per_second(), 1),
            "lr": lr,
            **moment.terms,
        }
        for observation in observations:
            line.update(observation.metrics)
        if self._accelerator.is_main_process:
            self._folder.append_metrics(line)
            where = {"step": line["step"], "epoch": line["epoch"]}
            for observation in observations:
                if observation.evaluation:
                    self._folder.append_metrics({**where, "monitor": dict(observation.evaluation)})
                for name, text in observation.alarms.items():
                    self._folder.append_metrics({**where, "alarm": {"name": name, "text": text}})
        if self._accelerator.trackers:
            values = {name: value for name, value in line.items() if name != "step"}
            self._accelerator.log(values, step=moment.step)
        self._progress.update(moment.step, line)
        for observation in observations:
            self._progress.warn(moment.step, observation.alarms)

    def end(self, method: Method, *, steps: int, seconds: float) -> None:
        """Write ``environment.json`` and close the trackers."""
        if self._accelerator.is_main_process:
            self._folder.write_json(
                ENVIRONMENT,
                {
                    **environment(hardware(self._accelerator.device)),
                    "num_processes": self._accelerator.num_processes,
                    "precision": self._accelerator.mixed_precision,
                    "num_parameters": sum(p.numel() for p in method.parameters()),
                    "steps": steps,
                    "seconds": round(seconds, 2),
                    "images_per_s": round(self._clock.mean_images_per_second(), 1),
                },
            )
        self._accelerator.end_training()
