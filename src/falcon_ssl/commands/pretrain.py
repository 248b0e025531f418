"""Pretrain an encoder on images without labels."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from accelerate import Accelerator
from torch import nn

from falcon_ssl import engine
from falcon_ssl.commands.initial import read_initial, write_initial
from falcon_ssl.commands.loading import (
    check_same_run,
    log_skipped,
    open_data,
    prepare,
    write_data_record,
)
from falcon_ssl.commands.monitors import default_monitors
from falcon_ssl.config.mapping import read_yaml
from falcon_ssl.config.run import RunConfig, from_mapping, to_mapping
from falcon_ssl.core.consent import trusting_code
from falcon_ssl.core.errors import CollapseError, InputError, StoppedError
from falcon_ssl.core.machine import is_main_process
from falcon_ssl.core.monitor import Monitor
from falcon_ssl.core.parts import part_name
from falcon_ssl.core.theory import effective_temperature
from falcon_ssl.data import Splits, build_loader
from falcon_ssl.data.order import check_full_batch
from falcon_ssl.engine import RunFolder, StopRequest, speed, stop_signals
from falcon_ssl.engine.accelerator import build_accelerator
from falcon_ssl.engine.tracking import start_trackers
from falcon_ssl.methods import Method, Parts
from falcon_ssl.records.best import best_sentence
from falcon_ssl.records.checkpoints import checkpoint_paths
from falcon_ssl.records.folder import CONFIG, SKIPPED
from falcon_ssl.records.run import read_run
from falcon_ssl.records.steps import few_steps_sentence
from falcon_ssl.views import Views

logger = logging.getLogger(__name__)


def pretrain(
    config: RunConfig,
    *,
    out: str | Path,
    encoder: Callable[[], nn.Module] | None = None,
    data: Callable[[], object] | None = None,
    views: Callable[[], Views] | None = None,
    method: Callable[[Parts], Method] | None = None,
    overwrite: bool = False,
    resume: bool | Literal["auto"] = False,
    monitors: Sequence[Monitor] | None = None,
    splits: Splits | None = None,
    trust_code: bool = False,
) -> Path:
    """Pretrain on images without labels.

    Args:
        config: The whole configuration.
        out: The run folder.
        encoder: A function or class of yours that returns the network, images [N, C, H, W] to z_ND. This and the next
            three are named in ``config.yaml`` as python:MODULE:FUNCTION, by which `evaluate` and all others make them
            again, and which the command line takes too; so they are importable, and all but ``method`` have no
            arguments. What is passed here needs no consent in this process, what ``config`` names does.
        data: A function that returns a `torch.utils.data.Dataset`, see `falcon_ssl.data.DatasetSource`, or two of them:
            (train, test).
        views: A function that returns the augmentations.
        method: A function or class of yours that makes the method of `Parts`: the encoder, its width, the image shape.
        overwrite: Delete an existing run folder first.
        resume: Resume the run in ``out``; ``config`` must be the one it was started with, except for ``engine``.
            "auto" resumes where there is a checkpoint, and begins where there is none.
        monitors: Called at every logged step; None for the library's own.
        splits: The images, where they are open already; None opens those of ``config.data``.
        trust_code: Whether code that files name may be run, see `falcon_ssl.trusting_code`.

    Returns:
        The run folder.

    Raises:
        InputError: Bad options, an existing or missing folder, data that cannot be read.
        falcon_ssl.engine.NonFiniteError: Training met NaN or infinity.
        CollapseError: An alarm ended the run, as ``monitor.on_collapse = "stop"`` asks; its folder is complete up to
            that step.
        StoppedError: SIGTERM, SIGUSR1 or Ctrl-C; there is a checkpoint of the last step, if there was one.
    """
    config = _with_own_parts(config, encoder=encoder, data=data, views=views, method=method)
    config = from_mapping(to_mapping(config))  # wrong types are named before any work
    with trusting_code(trust_code), stop_signals() as stop:
        return _pretrain(
            config,
            Path(out),
            overwrite=overwrite,
            resume=resume,
            monitors=monitors,
            splits=splits,
            stop=stop,
        )


def _pretrain(
    config: RunConfig,
    out: Path,
    *,
    overwrite: bool,
    resume: bool | Literal["auto"],
    monitors: Sequence[Monitor] | None,
    splits: Splits | None,
    stop: StopRequest,
) -> Path:
    if resume == "auto":
        resume = bool(checkpoint_paths(out))
        overwrite = (out / CONFIG).is_file() and not resume  # stopped before its first checkpoint
        is_same = resume or overwrite
    else:
        is_same = resume
    folder = _free_folder(out, overwrite=overwrite, resume=resume)
    weights = config.init.weights
    if resume and weights is not None:  # the checkpoint has all, the source may be gone
        weights = None
        if config.encoder.name == "auto":
            config = replace(config, encoder=from_mapping(read_yaml(folder.path / CONFIG)).encoder)
    if is_same:  # before images are read
        check_same_run(folder, config, longer=True, resolved=False)
    splits = splits or open_data(config, skipped_path=folder.path / SKIPPED)
    check_full_batch(len(splits.train), config.batch_size)
    initial = None if weights is None else read_initial(weights)
    run = prepare(config, splits=splits, initial=initial)
    config, splits, views, method = run
    if is_same:
        check_same_run(folder, config, longer=True)
    accelerator = build_accelerator(config.engine, out=folder.path)
    loader = build_loader(
        splits.train, batch_size=config.batch_size, seed=config.seed, device=accelerator.device
    )
    _log_choices(config, method, accelerator)
    if accelerator.is_main_process:
        if not resume:
            folder.create(config, overwrite=overwrite)
            if weights is not None:
                write_initial(folder.path, method)
        folder.lock()
        folder.write_config(config)  # how a run is executed may change when it is resumed
        write_data_record(folder, config, splits)
    accelerator.wait_for_everyone()
    start_trackers(accelerator, config, folder.path)
    try:
        position = engine.pretrain(
            method,
            loader,
            views,
            config=config,
            folder=folder,
            accelerator=accelerator,
            monitors=default_monitors(run) if monitors is None else monitors,
            resume=resume,
            stop=stop,
        )
    finally:  # decoded on demand, images are found to be broken up to the last step
        if accelerator.is_main_process:
            write_data_record(folder, config, splits)
            log_skipped(splits)
    if accelerator.is_main_process:
        _log_end(folder)
    if position.stopped_by:
        raise CollapseError(f"step {position.step}: {'; '.join(position.stopped_by.values())}")
    if position.signal:
        raise StoppedError(
            f"{position.signal} after step {position.step}, which is saved in {folder.path}; the same command with"
            " --resume auto goes on"
        )
    return folder.path


def _log_end(folder: RunFolder) -> None:
    """Log which epoch was the best, and whether there were steps enough to judge the run by its alarms."""
    run = read_run(folder.path)
    if best := best_sentence(run.monitors):
        kept = ", ".join(name for name in folder.kept_names() if name != "last")
        logger.info("%s; kept: %s", best, kept or "the last alone")
    if few := few_steps_sentence(run):
        logger.info("%s", few)


def _with_own_parts(
    config: RunConfig,
    *,
    encoder: Callable[[], nn.Module] | None,
    data: Callable[[], object] | None,
    views: Callable[[], Views] | None,
    method: Callable[[Parts], Method] | None,
) -> RunConfig:
    """The configuration that names a user's own parts."""
    if encoder is not None:
        own = replace(config.encoder, name=part_name("encoder", encoder))
        config = replace(config, encoder=own)
    if data is not None:
        config = replace(config, data=part_name("data", data))
    if views is not None:
        config = replace(config, views=replace(config.views, preset=part_name("views", views)))
    if method is not None:
        config = replace(config, method=part_name("method", method))
    return config


def _free_folder(out: str | Path, *, overwrite: bool, resume: bool) -> RunFolder:
    """The run folder, if this run may write to it."""
    if overwrite and resume:
        raise InputError(
            "--overwrite and --resume contradict each other",
            received="both",
            expected="one of them",
        )
    if resume:
        return RunFolder.open(out)
    folder = RunFolder(out)
    folder.check_free(overwrite=overwrite)
    if is_main_process():  # other ranks may be listing already
        (folder.path / SKIPPED).unlink(missing_ok=True)
    return folder


def _log_choices(config: RunConfig, method: Method, accelerator: Accelerator) -> None:
    """Log what decides speed and sharpness."""
    logger.info(
        "%s, processes: %d; %s",
        accelerator.device,
        accelerator.num_processes,
        speed.summary(config.engine, optimizer=config.optim.name),
    )
    if method.dictionary is not None and method.logit_scale is not None:
        logger.info(
            "%s, logit scale %.3g, effective temperature %.3g",
            method.dictionary,
            method.logit_scale,
            effective_temperature(method.dictionary.width, method.logit_scale),
        )
