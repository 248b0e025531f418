"""The training loop: one function that a person can read from top to bottom.

A run that is stopped and resumed continues bit by bit where it was: order, augmentations and schedules are functions of
(seed, step), and a checkpoint holds everything else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, field

from accelerate import Accelerator
from torch import Tensor

from falcon_ssl.config.run import RunConfig
from falcon_ssl.core.distributed import naming_lost_ranks
from falcon_ssl.core.monitor import Moment, Monitor, Observation
from falcon_ssl.data import ResidentLoader, StreamingLoader
from falcon_ssl.engine.keeping import kept_names
from falcon_ssl.engine.log import RunLog
from falcon_ssl.engine.pace import Pace
from falcon_ssl.engine.progress import Progress
from falcon_ssl.engine.saving import Saver
from falcon_ssl.engine.step import TrainingStep
from falcon_ssl.engine.stop import StopRequest
from falcon_ssl.methods import Method
from falcon_ssl.records.folder import RunFolder
from falcon_ssl.views import Views


@dataclass
class Position:
    """Where a run is: everything but tensors that it needs to resume."""

    step: int = 0
    seconds: float = 0.0
    stopped_by: Mapping[str, str] = field(default_factory=dict)  # alarms that ended the run early
    signal: str = ""  # that stopped it before its end, to be resumed


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
    stop: StopRequest | None = None,
) -> Position:
    """Train ``method`` and leave metrics and checkpoints in ``folder``.

    Args:
        method: Trained in place; with ``engine.shard`` its encoder is divided over ranks from now on.
        loader: Batches of uint8 images.
        views: Two or more views of a batch, from a generator.
        config: Epochs, seed, optimizer, engine.
        folder: Where records go.
        accelerator: Device, precision and processes.
        monitors: Called at every logged step and at the end of every epoch.
        resume: Resume from the newest whole checkpoint in ``folder``.
        stop: Asked after every step; the run then ends with a checkpoint of that step. None never stops.

    Returns:
        The position at the end; earlier than the last epoch when a monitor or a signal asked to stop.

    Raises:
        NonFiniteError: NaN or infinity in a loss term or gradient; names the step and the term. Raised at the next
            logged step or checkpoint, until which nothing is learned and nothing is written.
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
    saver = Saver(
        folder,
        method,
        train_step.optimizer,
        monitors,
        accelerator,
        config=config,
        steps=num_steps,
        is_sharded=train_step.shards is not None,
    )
    position, stop = Position(), stop or StopRequest()
    if resume:
        position = Position(*saver.restore())
        if is_main:
            folder.drop_metrics_after(position.step)
    progress = Progress(
        config,
        num_steps,
        position.step,
        shown=is_main,
        alarms=folder.alarms() if resume and is_main else {},
    )
    with closing(train_step), progress, stop.deferred(), naming_lost_ranks():
        pace = Pace(config, num_steps, accelerator.device)
        log = RunLog(folder, accelerator, progress, seconds=position.seconds)
        log.begin(method, step=position.step, num_steps=num_steps)
        for images in _batches(loader, position.step, config.epochs):
            lr, u_NF = train_step(images, position.step)
            position.step += 1
            log.count(len(images))
            progress.note(pace.after(position.step))
            epoch = position.step / per_epoch
            is_epoch_end = position.step % per_epoch == 0
            is_logged = is_epoch_end or position.step % config.engine.log_every == 0
            is_asked = stop.agreed(accelerator.device, is_logged=is_logged)
            is_due = is_asked or saver.is_due(position.step, per_epoch, is_logged=is_logged)
            if not is_logged and not is_due:
                continue
            terms = train_step.terms()
            stopping: list[Observation] = []
            kept_as: list[str] = []
            if is_logged:
                with train_step.whole_method() if is_epoch_end else nullcontext(method) as whole:
                    moment = Moment(position.step, epoch, terms, u_NF, whole, is_epoch_end)
                    observations = [monitor(moment) for monitor in monitors]
                    log.step(moment, lr, observations)
                stopping = [observation for observation in observations if observation.stop]
                position.stopped_by = {k: v for o in stopping for k, v in o.alarms.items()}
                kept_as = kept_names(config.engine, moment, observations)
            if saver.takes_part(is_due or bool(stopping or kept_as)):
                saver.save(position.step, log.seconds(), ends_early=bool(stopping), kept_as=kept_as)
            if stopping:
                break
            if is_asked and position.step < num_steps:
                position.signal = stop.signal or "another rank's signal"
                break
    position.seconds = log.seconds()
    log.end(step=position.step, ended=position.signal)
    return position


def _batches(loader: ResidentLoader | StreamingLoader, start: int, epochs: int) -> Iterator[Tensor]:
    """Images of the steps of a run, from step ``start`` on."""
    per_epoch = loader.batches_per_epoch
    for epoch in range(start // per_epoch, epochs):
        for _, images in loader.epoch_batches(epoch, max(0, start - epoch * per_epoch)):
            yield images
