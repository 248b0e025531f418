"""When a run saves, what it saves besides tensors, and how it is restored."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any

import torch
from accelerate import Accelerator
from torch.optim import Optimizer

from falcon_ssl.config.run import RunConfig
from falcon_ssl.core.distributed import all_reduce_max
from falcon_ssl.core.errors import InputError
from falcon_ssl.core.monitor import Monitor
from falcon_ssl.engine.checkpoint import load_training, save_checkpoint
from falcon_ssl.engine.keeping import keep_checkpoint
from falcon_ssl.methods import Method
from falcon_ssl.records.folder import RunFolder

logger = logging.getLogger(__name__)


class Saver:
    """Checkpoints of a run, by epochs, steps and minutes; the main process asks and writes.

    Args:
        folder: The run folder.
        method: What is trained.
        optimizer: Of its weights.
        monitors: Whose state is kept.
        accelerator: Its processes are recorded, and its gradient scaler if it has one.
        config: When, and how many are kept.
        steps: Of the whole run.
        is_sharded: Whether weights are divided over ranks, which then all take part.
    """

    def __init__(
        self,
        folder: RunFolder,
        method: Method,
        optimizer: Optimizer,
        monitors: Sequence[Monitor],
        accelerator: Accelerator,
        *,
        config: RunConfig,
        steps: int,
        is_sharded: bool = False,
    ) -> None:
        self._folder, self._method, self._optimizer = folder, method, optimizer
        self._monitors, self._accelerator = monitors, accelerator
        self._engine, self._num_steps = config.engine, steps
        self._is_sharded = is_sharded
        self._last = time.monotonic()

    def is_due(self, step: int, per_epoch: int, *, is_logged: bool) -> bool:
        """Whether a checkpoint is due after so many steps; on other ranks than the first those by time never are."""
        engine = self._engine
        by_epochs = step % (per_epoch * engine.checkpoint_every) == 0 or step == self._num_steps
        by_steps = engine.checkpoint_steps is not None and step % engine.checkpoint_steps == 0
        minutes = (time.monotonic() - self._last) / 60
        by_time = engine.checkpoint_minutes is not None and minutes >= engine.checkpoint_minutes
        by_time = by_time and is_logged and self._accelerator.is_main_process
        return by_epochs or by_steps or by_time

    def takes_part(self, wanted: bool) -> bool:
        """Whether this process takes part in a save: the main one, and all where weights are sharded."""
        is_main = self._accelerator.is_main_process
        if not self._is_sharded:
            return is_main and wanted
        asked = torch.tensor(float(is_main and wanted), device=self._accelerator.device)
        return bool(all_reduce_max(asked) > 0)

    def save(self, step: int, seconds: float, *, ends_early: bool, kept_as: Sequence[str]) -> None:
        """Write one, and keep it under further names."""
        scaler = self._accelerator.scaler
        save_checkpoint(
            self._folder.path,
            method=self._method,
            optimizer=self._optimizer,
            state={
                "step": step,
                "num_steps": self._num_steps,
                "finished": ends_early or step == self._num_steps,
                "seconds": seconds,
                "kept_as": list(kept_as),
                "monitors": [monitor.state_dict() for monitor in self._monitors],
                "scaler": None if scaler is None else scaler.state_dict(),
                **self._machine(),
            },
            keep=self._engine.keep_last,
            writes=self._accelerator.is_main_process,
        )
        if self._accelerator.is_main_process:
            for name in kept_as:
                keep_checkpoint(self._folder.checkpoint, self._folder.kept(name))
        self._last = time.monotonic()

    def restore(self) -> tuple[int, float]:
        """Load the newest whole checkpoint; returns step and seconds of the run.

        Raises:
            InputError: There is none, or it does not fit the run.
        """
        path, state = load_training(self._folder.path, self._method, self._optimizer)
        if len(state["monitors"]) != len(self._monitors):
            raise InputError(
                "the run had other monitors",
                received=f"{len(self._monitors)} monitors",
                expected=f"{len(state['monitors'])}, as when it was saved",
            )
        for monitor, kept in zip(self._monitors, state["monitors"], strict=True):
            try:
                monitor.load_state_dict(kept)
            except (LookupError, TypeError, ValueError) as error:
                raise InputError(
                    f"the state of {type(monitor).__name__} does not fit",
                    received=f"{type(error).__name__}: {error}",
                    expected="what this version of it saves",
                    fix="resume with the version that began the run, or start again",
                ) from error
        if self._accelerator.is_main_process:
            for name in state["kept_as"]:  # a crash may have come before
                keep_checkpoint(path, self._folder.kept(name))
        if self._accelerator.scaler is not None and state["scaler"]:
            self._accelerator.scaler.load_state_dict(state["scaler"])
        changed = [
            f"{state[name]} {name.removeprefix('num_')} before, {now} now"
            for name, now in self._machine().items()
            if state[name] != now
        ]
        if changed:
            logger.info(
                "resumed with %s: equal to the run before up to rounding, not bit by bit",
                "; ".join(changed),
            )
        over = state["step"] >= self._num_steps
        more = ": nothing is left to do; more --epochs train on" if over else ""
        logger.info("resumed at step %d of %d%s", state["step"], self._num_steps, more)
        return state["step"], state["seconds"]

    def _machine(self) -> dict[str, Any]:
        """What a sum depends on in its last bits."""
        return {
            "num_processes": self._accelerator.num_processes,
            "num_threads": torch.get_num_threads(),
        }
