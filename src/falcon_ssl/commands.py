"""The whole job as Python functions: what the command line calls, one function a command.

pretrain(config, out=...) -> run folder      evaluate(run) -> numbers      falcon_ssl.report -> pages
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from falcon_ssl import distributed, engine
from falcon_ssl.checks import InputError, check_at_least
from falcon_ssl.config import ReadingConfig, RunConfig, from_mapping, to_mapping
from falcon_ssl.data import Splits, build_loader, data_rows, read_images
from falcon_ssl.devices import best_device, named_device
from falcon_ssl.diagnosing import diagnose
from falcon_ssl.dictionary_complete import CompleteDictionary
from falcon_ssl.engine import RunFolder
from falcon_ssl.engine.records import SKIPPED
from falcon_ssl.engine.speed import check_speed, in_words
from falcon_ssl.errors import CollapseError
from falcon_ssl.evaluation import AlarmMonitor, Features, QualityMonitor, extract
from falcon_ssl.judging import evaluate, prior_matching
from falcon_ssl.methods import Method, build_method
from falcon_ssl.monitor import Monitor
from falcon_ssl.runs import (
    check_same_run,
    load_method,
    load_run,
    log_skipped,
    make_views,
    open_data,
    read_data_record,
    resolve,
    seen_shape,
    write_data_record,
)
from falcon_ssl.temperature import effective_temperature
from falcon_ssl.views import Views, contact_sheet

logger = logging.getLogger(__name__)

__all__ = ["diagnose", "embed", "evaluate", "export", "load_run", "pretrain", "views_sheet"]


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


def embed(
    run: str | Path,
    *,
    out: str | Path,
    data: str | None = None,
    reading: ReadingConfig | None = None,
    split: Literal["train", "test", "auto"] = "auto",
    overwrite: bool = False,
) -> Features:
    """Write the features of images: z, u, code, label and index, as .npz or .safetensors.

    ``index`` finds the images again: their places among the files of a folder in the order of paths, or their rows in
    a table's split.

    Args:
        run: The run folder.
        out: The file.
        data: Images to embed instead of the run's own, for example "folder:PATH".
        reading: How to read them; None for the defaults.
        split: Which part; auto takes the test part, or all images where there is none.
        overwrite: Replace the file if there is one.

    Raises:
        InputError: As `load_run`, no such split, or a file that may not be written.
    """
    out = _new_file(out, suffixes=(".npz", ".safetensors"), overwrite=overwrite)
    device = best_device()
    config, method, splits, views = load_run(run, device=device, data=data, reading=reading)
    source = splits.train if split == "train" or splits.test is None else splits.test
    if split == "test" and splits.test is None:
        raise InputError(
            "the data has no test split",
            received=config.data,
            expected="images that are not trained on",
            fix="use --split train, which are all images",
        )
    listed = not isinstance(method.dictionary, CompleteDictionary)
    features = extract(
        method,
        source,
        views,
        batch_size=config.evaluation.batch_size,
        device=device,
        dictionary=method.dictionary if listed else None,
    )
    assert features.index is not None
    features = replace(features, index=data_rows(source, features.index))
    features.save(out)
    log_skipped(splits)
    return features


def export(run: str | Path, *, out: str | Path, overwrite: bool = False) -> Path:
    """Write the encoder alone as .safetensors, with what is needed to use it in the file's header.

    The names are those of the encoder's own ``state_dict``; for ResNets these are torchvision's and timm's. The images
    of the run are not needed.

    Raises:
        InputError: As `load_run`, or a file that may not be written.
    """
    from safetensors.torch import save_file

    out = _new_file(out, suffixes=(".safetensors",), overwrite=overwrite)
    config, method, views = load_method(run)
    channels, height, width = read_data_record(RunFolder.open(run))["image_shape"]
    about = {
        "encoder": asdict(config.encoder),
        "image_shape": seen_shape((channels, height, width), views),
        "normalisation": asdict(views.normalisation),
        "data": config.data,
        "method": config.method,
    }
    tensors = {
        name: value.contiguous() for name, value in method.evaluated_encoder.state_dict().items()
    }
    save_file(tensors, out, metadata={"falcon_ssl": json.dumps(about)})
    return out


def views_sheet(
    config: RunConfig, *, out: str | Path, num_images: int = 8, overwrite: bool = False
) -> Path:
    """Draw what the network sees: images beside their augmented views.

    Raises:
        InputError: Data that cannot be read, fewer than one image, or a file that may not be written.
    """
    check_at_least("num_images", num_images, 1, fix="draw at least one")
    out = _new_file(out, suffixes=(".png", ".jpg", ".webp"), overwrite=overwrite)
    # A few images are shown: the others need not be decoded.
    source = open_data(replace(config, reading=replace(config.reading, in_memory=False))).train
    config = resolve(config, source)
    order = torch.randperm(len(source), generator=torch.Generator().manual_seed(config.seed))
    images = torch.empty(0, *source.image_shape, dtype=torch.uint8)
    for indices in torch.split(order, num_images):  # more than once where some cannot be read
        images = torch.cat([images, read_images(source, indices)[1]])
        if len(images) >= num_images:
            break
    contact_sheet(images[:num_images], make_views(config), seed=config.seed).save(out)
    return out


def _check_views(views: Views, image_shape: tuple[int, int, int]) -> None:
    """Let views complain of images that they do not fit, before anything is written."""
    blank = torch.zeros(1, *image_shape, dtype=torch.uint8)
    views(blank, generator=torch.Generator())
    views.evaluate(blank)


def _new_file(path: str | Path, *, suffixes: Sequence[str], overwrite: bool) -> Path:
    """A file that may be written, with its folder; said before any work is done."""
    path = Path(path)
    if path.suffix not in suffixes:
        raise InputError(
            "unknown kind of file",
            received=path.name,
            expected=f"a name that ends in {' or '.join(suffixes)}",
            fix="rename it",
        )
    if path.exists() and not overwrite:
        raise InputError(
            "the file exists",
            received=path,
            expected="a path that does not exist yet",
            fix="choose another --out, or replace it with --overwrite",
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


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
