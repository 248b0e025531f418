"""The training loop: one function that a person can read from top to bottom.

A run that is stopped and resumed continues bit by bit where it was: order, augmentations and schedules are functions of
(seed, step), and a checkpoint holds everything else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from accelerate import Accelerator
from torch import Tensor
from torch.optim import Optimizer

from falcon_ssl.config.run import RunConfig
from falcon_ssl.core.monitor import Moment, Monitor
from falcon_ssl.data import ResidentLoader, StreamingLoader
from falcon_ssl.engine.checkpoint import load_model, load_training, save_checkpoint
from falcon_ssl.engine.keeping import keep_checkpoint, kept_names
from falcon_ssl.engine.log import RunLog
from falcon_ssl.engine.pace import Pace
from falcon_ssl.engine.progress import Progress
from falcon_ssl.engine.step import TrainingStep
from falcon_ssl.methods import Method
from falcon_ssl.records.folder import RunFolder
from falcon_ssl.views import Views


@dataclass
class Position:
    """Where a run is: everything but tensors that it needs to resume."""

    step: int = 0
    seconds: float = 0.0
    stopped_by: Mapping[str, str] = field(default_factory=dict)  # alarms that ended the run early
    kept_as: Sequence[str] = ()  # further names of the checkpoint that a run resumes from


def pretrain(
    method: Method,
    loader: ResidentLoader | StreamingLoader,
    views: Views,
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
        monitors: Called at every logged step and at the end of every epoch.
        resume: Resume from the checkpoint in ``folder``.

    Returns:
        The position at the end; earlier than the last epoch when a monitor asked to stop.

    Raises:
        NonFiniteError: NaN or infinity in a loss term or gradient; names the step and the term. Raised at the next
            logged step, until which nothing is learned and nothing is written.
        InputError: ``resume`` without a checkpoint that fits.

    Numerics:
        Bit-identical after a resume on the CPU; on CUDA up to kernels that are not deterministic.
    """
    per_epoch = loader.batches_per_epoch
    num_steps = config.epochs * per_epoch
    is_main = accelerator.is_main_process
    train_step = TrainingStep(
        method, views, config=config, num_steps=num_steps, accelerator=accelerator
    )
    position = Position()
    if resume:
        position = _restore(folder, method, train_step.optimizer, monitors)
        if is_main:
            folder.drop_metrics_after(position.step)
            for name in position.kept_as:  # a crash may have come before
                keep_checkpoint(folder.checkpoint, folder.kept(name))
    with Progress(config, num_steps, position.step, shown=is_main) as progress:
        pace = Pace(config, num_steps, accelerator.device)
        log = RunLog(folder, accelerator, progress, seconds=position.seconds)
        for images in _batches(loader, position.step, config.epochs):
            lr, u_NF = train_step(images, position.step)
            position.step += 1
            log.count(len(images))
            progress.note(pace.after(position.step))
            epoch = position.step / per_epoch
            is_epoch_end = position.step % per_epoch == 0
            if not is_epoch_end and position.step % config.engine.log_every:
                continue
            terms = train_step.terms()
            moment = Moment(position.step, epoch, terms, u_NF, method, is_epoch_end)
            observations = [monitor(moment) for monitor in monitors]
            log.step(moment, lr, observations)
            stopping = [observation for observation in observations if observation.stop]
            is_due = is_epoch_end and (
                epoch % config.engine.checkpoint_every == 0 or position.step == num_steps
            )
            kept_as = kept_names(config.engine, moment, observations)
            if is_main and (is_due or stopping or kept_as):
                kept = [monitor.state_dict() for monitor in monitors]
                state = {
                    "step": position.step,
                    "seconds": log.seconds(),
                    "monitors": kept,
                    "kept_as": kept_as,
                }
                save_checkpoint(
                    folder.checkpoint, method=method, optimizer=train_step.optimizer, state=state
                )
                for name in kept_as:
                    keep_checkpoint(folder.checkpoint, folder.kept(name))
            if stopping:
                position.stopped_by = {k: v for o in stopping for k, v in o.alarms.items()}
                break
    position.seconds = log.seconds()
    log.end(method, steps=position.step)
    return position


def _batches(loader: ResidentLoader | StreamingLoader, start: int, epochs: int) -> Iterator[Tensor]:
    """Images of the steps of a run, from step ``start`` on."""
    per_epoch = loader.batches_per_epoch
    for epoch in range(start // per_epoch, epochs):
        for _, images in loader.epoch_batches(epoch, max(0, start - epoch * per_epoch)):
            yield images


def _restore(
    folder: RunFolder, method: Method, optimizer: Optimizer, monitors: Sequence[Monitor]
) -> Position:
    """Load the checkpoint of a run; returns where it stands."""
    load_model(folder.checkpoint, method)
    state = load_training(folder.checkpoint, optimizer)
    for monitor, kept in zip(monitors, state["monitors"], strict=True):
        monitor.load_state_dict(kept)
    return Position(step=state["step"], seconds=state["seconds"], kept_as=state["kept_as"])
