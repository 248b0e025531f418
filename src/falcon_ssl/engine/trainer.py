"""The training loop: one function that a person can read from top to bottom.

    images -> views -> method (encoder, projector, loss) -> finite? -> backward -> clip -> step -> record

Everything random in step t is a function of (seed, t): initialisation, order and augmentations. A run that is stopped
and resumed therefore continues bit by bit where it was, and a batch is the same on any number of ranks.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from falcon_ssl.config.run import RunConfig
from falcon_ssl.core.devices import hardware
from falcon_ssl.core.monitor import Moment, Monitor, Observation
from falcon_ssl.engine.checkpoint import load_model, load_training, save_checkpoint
from falcon_ssl.engine.optim import build_optimizer, schedule
from falcon_ssl.engine.progress import Progress
from falcon_ssl.engine.speed import next_step, speed_up
from falcon_ssl.methods import Method, StepOutput
from falcon_ssl.networks.batchnorm import use_global_batch_norm
from falcon_ssl.records.folder import ENVIRONMENT, RunFolder
from falcon_ssl.records.provenance import environment
from falcon_ssl.views import BatchSlice


class Loader(Protocol):
    """Batches of an epoch, from any position."""

    @property
    def batches_per_epoch(self) -> int:
        """Batches of one epoch."""
        ...

    def epoch_batches(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Indices [B] and uint8 images [B, C, H, W] on the device."""
        ...


class ViewMaker(Protocol):
    """Augmentations: uint8 images to normalised views."""

    def __call__(self, images: Tensor, *, generator: BatchSlice) -> list[Tensor]:
        """V tensors [B, C, H, W]."""
        ...

    def at(self, progress: float) -> ViewMaker:
        """The views of a moment of the run, from its share that is done."""
        ...


class NonFiniteError(ArithmeticError):
    """A loss term or gradient is NaN or infinite; raised before the optimizer moves."""


@dataclass
class Position:
    """Where a run is: everything but tensors that it needs to go on."""

    step: int = 0
    seconds: float = 0.0
    stopped_by: Mapping[str, str] = field(default_factory=dict)  # alarms that ended the run early


def pretrain(
    method: Method,
    loader: Loader,
    views: ViewMaker,
    *,
    config: RunConfig,
    folder: RunFolder,
    accelerator: Accelerator,
    monitors: Sequence[Monitor] = (),
    resume: bool = False,
) -> Position:
    """Train ``method`` and leave metrics and checkpoints in ``folder``.

    Args:
        method: Trained in place.
        loader: Batches of uint8 images.
        views: Two or more views of a batch, from a generator.
        config: Epochs, seed, optimizer, engine.
        folder: Where records go.
        accelerator: Device, precision and processes.
        monitors: Asked at every logged step and at the end of every epoch.
        resume: Go on from the checkpoint in ``folder``.

    Returns:
        The position at the end; earlier than the last epoch when a monitor asked to stop.

    Raises:
        NonFiniteError: NaN or infinity in a loss term or gradient; names the step and the term.
        InputError: ``resume`` without a checkpoint that fits.

    Numerics:
        Bit-identical after a resume on the CPU; on CUDA up to kernels that are not deterministic.
    """
    if accelerator.num_processes > 1:
        use_global_batch_norm(method)
    memory_format = speed_up(method, config.engine, device=accelerator.device)
    optimizer = build_optimizer(method, config.optim)
    position = Position()
    if resume:
        load_model(folder.checkpoint, method)
        state = load_training(folder.checkpoint, optimizer)
        position = Position(step=state["step"], seconds=state["seconds"])
        for monitor, kept in zip(monitors, state["monitors"], strict=True):
            monitor.load_state_dict(kept)
        if accelerator.is_main_process:
            folder.drop_metrics_after(position.step)
    wrapped, prepared = accelerator.prepare(method, optimizer)

    per_epoch = loader.batches_per_epoch
    num_steps = config.epochs * per_epoch
    warmup_steps = round(config.optim.warmup_epochs * per_epoch)
    clock = _Clock(position.seconds)

    def save() -> None:
        if accelerator.is_main_process:
            save_checkpoint(
                folder.checkpoint,
                method=method,
                optimizer=optimizer,
                state={
                    "step": position.step,
                    "seconds": clock.seconds(),
                    "monitors": [monitor.state_dict() for monitor in monitors],
                },
            )

    method.train()
    with Progress(config, num_steps, position.step, shown=accelerator.is_main_process) as progress:
        for epoch in range(position.step // per_epoch, config.epochs):
            start = position.step - epoch * per_epoch
            for batch, (_, images) in enumerate(
                loader.epoch_batches(epoch, start), start=start + 1
            ):
                lr = schedule(
                    optimizer,
                    position.step,
                    num_steps=num_steps,
                    warmup_steps=warmup_steps,
                    config=config.optim,
                )
                share = BatchSlice(
                    _step_generator(config.seed, position.step),
                    first=config.batch_size
                    * accelerator.process_index
                    // accelerator.num_processes,
                    total=config.batch_size,
                )
                draw = views.at(position.step / num_steps)
                batch_views = [
                    view.contiguous(memory_format=memory_format)
                    for view in draw(images, generator=share)
                ]
                next_step(config.engine)
                method.before_step(position.step, num_steps)
                out: StepOutput = wrapped(batch_views)
                accelerator.backward(out.loss)
                grad_norm = _clip(accelerator, method, config.optim.clip_norm)
                terms = _finite(
                    out.terms, grad_norm, position.step + 1, scaled=accelerator.scaler is not None
                )
                method.after_backward(position.step, num_steps)
                prepared.step()
                prepared.zero_grad()
                method.after_step(position.step, num_steps)
                position.step += 1
                clock.count(len(images) * accelerator.num_processes)

                is_epoch_end = batch == per_epoch
                if is_epoch_end or position.step % config.engine.log_every == 0:
                    moment = Moment(
                        position.step,
                        position.step / per_epoch,
                        terms,
                        out.u_NF,
                        method,
                        is_epoch_end,
                    )
                    line = {
                        "step": position.step,
                        "epoch": round(moment.epoch, 6),
                        "seconds": round(clock.seconds(), 3),
                        "images_per_s": round(clock.images_per_second(), 1),
                        "lr": lr,
                        **terms,
                    }
                    seen = [monitor(moment) for monitor in monitors]
                    _record(folder, accelerator, line, seen)
                    progress.update(position.step, line)
                    for observation in seen:
                        progress.warn(position.step, observation.alarms)
                    if any(observation.stop for observation in seen):
                        position.stopped_by = {
                            name: text for o in seen if o.stop for name, text in o.alarms.items()
                        }
                        save()
                        return _finish(folder, accelerator, method, position, clock)
            if (epoch + 1) % config.engine.checkpoint_every == 0 or epoch + 1 == config.epochs:
                position.seconds = clock.seconds()
                save()
    return _finish(folder, accelerator, method, position, clock)


def _step_generator(seed: int, step: int) -> torch.Generator:
    """The random numbers of one step: independent for every (seed, step)."""
    state = np.random.SeedSequence((seed, step)).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state) % 2**63)


def _clip(accelerator: Accelerator, method: Method, clip_norm: float) -> Tensor:
    """Gradient norm before clipping to ``clip_norm``; 0 measures without clipping."""
    norm: Tensor = accelerator.clip_grad_norm_(method.parameters(), clip_norm or math.inf)
    return norm


def _finite(
    terms: Mapping[str, Tensor], grad_norm: Tensor, step: int, *, scaled: bool
) -> dict[str, float]:
    """Terms and gradient norm as numbers, copied from the device once, if all of them are finite."""
    names = [*terms, "grad_norm"]
    stacked = torch.stack([value.detach().float() for value in (*terms.values(), grad_norm)])
    values = dict(zip(names, stacked.tolist(), strict=True))
    for name, value in values.items():
        # A float16 gradient scaler meets infinite gradients on purpose, skips the step and lowers its scale.
        if not math.isfinite(value) and not (scaled and name == "grad_norm"):
            raise NonFiniteError(
                f"step {step}: {name} is {value}, expected a finite number; the weights are those of step {step - 1}. "
                f"All terms: {values}. Look for broken images, lower optim.lr, or use engine.precision=no."
            )
    return values


def _record(
    folder: RunFolder,
    accelerator: Accelerator,
    line: dict[str, Any],
    observations: Sequence[Observation],
) -> None:
    """Write down a step and what the monitors say of it."""
    for seen in observations:
        line.update(seen.metrics)
    if accelerator.is_main_process:
        folder.append_metrics(line)
        where = {"step": line["step"], "epoch": line["epoch"]}
        for seen in observations:
            if seen.evaluation:
                folder.append_metrics({**where, "monitor": dict(seen.evaluation)})
            for name, text in seen.alarms.items():
                folder.append_metrics({**where, "alarm": {"name": name, "text": text}})
    if accelerator.trackers:
        accelerator.log({k: v for k, v in line.items() if k != "step"}, step=line["step"])


def _finish(
    folder: RunFolder,
    accelerator: Accelerator,
    method: Method,
    position: Position,
    clock: _Clock,
) -> Position:
    position.seconds = clock.seconds()
    if accelerator.is_main_process:
        folder.write_json(
            ENVIRONMENT,
            {
                **environment(hardware(accelerator.device)),
                "num_processes": accelerator.num_processes,
                "precision": accelerator.mixed_precision,
                "num_parameters": sum(p.numel() for p in method.parameters()),
                "steps": position.step,
                "seconds": round(position.seconds, 2),
                "images_per_s": round(clock.mean_images_per_second(), 1),
            },
        )
    accelerator.end_training()
    return position


class _Clock:
    """Seconds of a run over all its sessions, and images a second since the last question."""

    def __init__(self, seconds_before: float) -> None:
        self._start = time.perf_counter() - seconds_before
        self._session = self._window = time.perf_counter()
        self._images = self._window_images = 0

    def count(self, images: int) -> None:
        self._images += images
        self._window_images += images

    def seconds(self) -> float:
        return time.perf_counter() - self._start

    def images_per_second(self) -> float:
        now = time.perf_counter()
        speed = self._window_images / max(now - self._window, 1e-9)
        self._window, self._window_images = now, 0
        return speed

    def mean_images_per_second(self) -> float:
        return self._images / max(time.perf_counter() - self._session, 1e-9)
