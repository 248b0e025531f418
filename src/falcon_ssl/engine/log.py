"""What a run writes while it trains, and when it ends: metrics, trackers, the environment."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
from accelerate import Accelerator

from falcon_ssl.core.devices import hardware
from falcon_ssl.core.machine import peak_memory
from falcon_ssl.core.monitor import Moment, Observation
from falcon_ssl.engine.progress import Progress
from falcon_ssl.methods import Method
from falcon_ssl.records.folder import ENVIRONMENT, RunFolder
from falcon_ssl.records.provenance import environment


class RunLog:
    """Writes the records of a run; all processes call it, the main one writes.

    Args:
        folder: The run folder.
        accelerator: Whose trackers are logged to.
        progress: What a person sees.
        seconds: Of the run's earlier sessions.
    """

    def __init__(
        self, folder: RunFolder, accelerator: Accelerator, progress: Progress, *, seconds: float
    ) -> None:
        self._folder, self._accelerator, self._progress = folder, accelerator, progress
        self._session = self._last_line = time.perf_counter()
        self._start = self._session - seconds
        self._images = self._new_images = 0  # of this session, and since the last line
        self._part: dict[str, Any] = {}  # of environment.json
        self._earlier: list[dict[str, Any]] = []

    def count(self, images: int) -> None:
        """Some images of this process have been trained on."""
        self._new_images += images * self._accelerator.num_processes

    def seconds(self) -> float:
        """Of the run over all its sessions."""
        return time.perf_counter() - self._start

    def step(self, moment: Moment, lr: float, observations: Sequence[Observation]) -> None:
        """Write a step and what the monitors found in it."""
        now = time.perf_counter()
        speed = self._new_images / max(now - self._last_line, 1e-9)
        self._images, self._new_images, self._last_line = self._images + self._new_images, 0, now
        line: dict[str, Any] = {
            "step": moment.step,
            "epoch": round(moment.epoch, 6),
            "seconds": round(now - self._start, 3),
            "images_per_s": round(speed, 1),
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
            for observation in observations:
                values |= {f"held_out/{k}": v for k, v in observation.evaluation.items()}
            self._accelerator.log(values, step=moment.step)
        for observation in observations:
            self._progress.warn(moment.step, observation.alarms)
            self._progress.note(observation.note)
        self._progress.update(moment.step, line, memory=peak_memory(self._accelerator.device))

    def begin(self, method: Method, *, step: int, num_steps: int) -> None:
        """Write ``environment.json``: of this part of the run, and of its earlier parts what they had left."""
        self._part = {
            **environment(hardware(self._accelerator.device)),
            "num_processes": self._accelerator.num_processes,
            "num_threads": torch.get_num_threads(),
            "precision": self._accelerator.mixed_precision,
            "num_parameters": sum(p.numel() for p in method.parameters()),
            "first_step": step,
            "num_steps": num_steps,
        }
        self._earlier = []
        if step and (self._folder.path / ENVIRONMENT).is_file():
            before = self._folder.read_json(ENVIRONMENT)
            self._earlier = [*before.pop("earlier", []), before]
        self._write()

    def end(self, *, step: int, ended: str) -> None:
        """Complete ``environment.json`` and close the trackers; ``ended``: by what before its end, or ""."""
        session = max(time.perf_counter() - self._session, 1e-9)
        self._part |= {
            "steps": step,
            "seconds": round(self.seconds(), 2),
            "images_per_s": round(self._images / session, 1),
            "peak_memory": peak_memory(self._accelerator.device),
        }
        if ended:
            self._part["stopped_by"] = ended
        self._write()
        self._accelerator.end_training()

    def _write(self) -> None:
        if self._accelerator.is_main_process:
            parts = {"earlier": self._earlier} if self._earlier else {}
            self._folder.write_json(ENVIRONMENT, self._part | parts)
