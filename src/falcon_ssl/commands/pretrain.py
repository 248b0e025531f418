"""Pretrain an encoder on images without labels."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from falcon_ssl import engine
from falcon_ssl.commands.evaluate import prior_matching
from falcon_ssl.commands.loading import (
    check_same_run,
    log_skipped,
    make_views,
    open_data,
    seen_shape,
    write_data_record,
)
from falcon_ssl.commands.resolve import resolve
from falcon_ssl.config.run import RunConfig, from_mapping, to_mapping
from falcon_ssl.core import distributed
from falcon_ssl.core.devices import named_device
from falcon_ssl.core.errors import CollapseError, InputError
from falcon_ssl.core.monitor import Monitor
from falcon_ssl.core.theory import effective_temperature
from falcon_ssl.data import Splits, build_loader
from falcon_ssl.engine import RunFolder
from falcon_ssl.engine.speed import check_speed, in_words
from falcon_ssl.evaluation import AlarmMonitor, QualityMonitor
from falcon_ssl.methods import Method, build_method
from falcon_ssl.records.folder import SKIPPED
from falcon_ssl.views import Views

logger = logging.getLogger(__name__)


def pretrain(
    config: RunConfig,
    *,
    out: str | Path,
    overwrite: bool = False,
    resume: bool = False,
    monitors: Sequence[Monitor] | None = None,
) -> Path:
    """Pretrain on images without labels.

    Args:
        config: The whole configuration.
        out: The run folder.
        overwrite: Delete an existing run folder first.
        resume: Go on with the run in ``out``; ``config`` must be the one it was started with, but for ``engine``.
        monitors: Watch the training; None for the library's own.

    Returns:
        The run folder.

    Raises:
        InputError: Bad options, an existing or missing folder, data that cannot be read.
        falcon_ssl.engine.NonFiniteError: Training met NaN or infinity.
        CollapseError: An alarm ended the run, as ``monitor.on_collapse = "stop"`` asks; its folder is complete up to
            that step.
    """
    if overwrite and resume:
        raise InputError(
            "--overwrite and --resume contradict each other",
            received="both",
            expected="one of them",
            fix="leave one out",
        )
    config = from_mapping(to_mapping(config))  # wrong types are named before any work
    folder = RunFolder.open(out) if resume else RunFolder(out)
    if not resume:
        folder.check_free(overwrite=overwrite)
    skipped = folder.path / SKIPPED
    if not resume and os.environ.get("RANK", "0") == "0":  # other ranks may be listing already
        skipped.unlink(missing_ok=True)
    splits = open_data(config, skipped_path=skipped)
    config = resolve(config, splits.train)
    if resume:
        check_same_run(folder, config)
    accelerator = _accelerator(config, out)
    torch.manual_seed(config.seed)
    views = make_views(config)
    _check_views(views, splits.train.image_shape)
    method = build_method(config, image_shape=seen_shape(splits.train.image_shape, views))
    loader = build_loader(
        splits.train, batch_size=config.batch_size, seed=config.seed, device=accelerator.device
    )
    _log_choices(config, method, accelerator)
    if accelerator.is_main_process:
        if not resume:
            folder.create(config, overwrite=overwrite)
        write_data_record(folder, config, splits)
    accelerator.wait_for_everyone()
    if config.engine.trackers:
        accelerator.init_trackers("falcon-ssl")
    if monitors is None:
        monitors = default_monitors(config, method, splits, views)
    try:
        position = engine.pretrain(
            method,
            loader,
            views,
            config=config,
            folder=folder,
            accelerator=accelerator,
            monitors=monitors,
            resume=resume,
        )
    finally:  # decoded on demand, images are found to be broken up to the last step
        if accelerator.is_main_process:
            write_data_record(folder, config, splits)
            log_skipped(splits)
    if position.stopped_by:
        raise CollapseError(f"step {position.step}: {'; '.join(position.stopped_by.values())}")
    return folder.path


def default_monitors(
    config: RunConfig, method: Method, splits: Splits, views: Views
) -> list[Monitor]:
    """What watches a run unless told otherwise: alarms at every step, held-out images every few epochs."""
    watching: list[Monitor] = [
        AlarmMonitor(
            method.dictionary,
            logit_scale=method.logit_scale,
            beta=config.falcon.beta,
            prior_matching=prior_matching(config, method),
            uniform_prior=config.falcon.prior_exponent == 0,
            batch_size=config.batch_size,
            stuck_values=method.stuck_values(config.batch_size),
            few_codes_hint=method.few_codes_hint,
            on_collapse=config.monitor.on_collapse,
            patience=config.monitor.patience,
        )
    ]
    if config.monitor.every_epochs and splits.test is not None:
        labelled = splits.test.labels is not None and splits.train.labels is not None
        watching.append(
            QualityMonitor(
                splits.test,
                views,
                train=splits.train if labelled else None,
                every_epochs=config.monitor.every_epochs,
                linear=config.monitor.linear and labelled,
                batch_size=config.evaluation.batch_size,
                seed=config.evaluation.seed,
            )
        )
    return watching


def _check_views(views: Views, image_shape: tuple[int, int, int]) -> None:
    """Let views complain of images that they do not fit, before anything is written."""
    blank = torch.zeros(1, *image_shape, dtype=torch.uint8)
    views(blank, generator=torch.Generator())
    views.evaluate(blank)


def _log_choices(config: RunConfig, method: Method, accelerator: Accelerator) -> None:
    """What decides speed and sharpness, in two lines."""
    logger.info(
        "%s, processes: %d; %s",
        accelerator.device,
        accelerator.num_processes,
        in_words(config.engine, optimizer=config.optim.name),
    )
    if method.dictionary is not None and method.logit_scale is not None:
        logger.info(
            "%s, logit scale %.3g, effective temperature %.3g",
            method.dictionary,
            method.logit_scale,
            effective_temperature(method.dictionary.width, method.logit_scale),
        )


def _accelerator(config: RunConfig, out: str | Path) -> Accelerator:
    missing = [name for name in config.engine.trackers if find_spec(name) is None]
    if missing:
        raise InputError(
            "a tracker is not installed",
            received=", ".join(missing),
            expected="its package",
            fix=f"pip install {' '.join(missing)}, or leave it out of engine.trackers",
        )
    on_cpu = named_device(config.engine.device).type == "cpu"
    if on_cpu and config.engine.precision == "fp16":
        raise InputError(  # Accelerate would run float32 and call it fp16
            "a CPU has no fp16 autocast",
            received="engine.precision=fp16",
            expected="auto, bf16 or no",
            fix="leave it out",
        )
    # Accelerate keeps device and precision for the whole process, but the next run may want others.
    AcceleratorState._reset_state(reset_partial_state=distributed.world_size() == 1)
    accelerator = Accelerator(
        # Said outright: left to find a CPU by itself, Accelerate does not join the ranks that torchrun started.
        cpu=on_cpu,
        mixed_precision=config.engine.precision,
        log_with=list(config.engine.trackers) or None,
        project_dir=str(out),
    )
    if config.engine.device == "cuda" and accelerator.device.type != "cuda":
        raise InputError(
            "no CUDA device", received="engine.device=cuda", expected="a GPU", fix="use cpu"
        )
    check_speed(config.engine, accelerator.device)
    return accelerator
