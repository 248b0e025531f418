"""The whole job as Python functions: what the command line calls, one function a command.

pretrain(config, out=...) -> run folder      evaluate(run) -> numbers      report(run) -> page
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from falcon_ssl import engine
from falcon_ssl.checks import InputError
from falcon_ssl.config import RunConfig, from_mapping
from falcon_ssl.data import Source, Splits, build_loader, load_splits
from falcon_ssl.engine import RunFolder
from falcon_ssl.engine.records import CONFIG, SKIPPED, read_config
from falcon_ssl.evaluation import Features, evaluate_features, extract, picture_arrays
from falcon_ssl.evaluation.batch import BatchMonitor
from falcon_ssl.methods import Method, build_method
from falcon_ssl.monitor import Monitor
from falcon_ssl.report import build_report
from falcon_ssl.views import Views, build_views

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
    """
    if overwrite and resume:
        raise InputError(
            "--overwrite and --resume contradict each other",
            received="both",
            expected="one of them",
            fix="leave one out",
        )
    folder = RunFolder.open(out) if resume else RunFolder(out)
    if not resume:
        folder.check_free(overwrite=overwrite)
    skipped = folder.path / SKIPPED
    skipped.unlink(missing_ok=True)
    splits = open_data(config, skipped_path=skipped)
    config = resolve(config, splits.train)
    if resume:
        check_same_run(folder, config)
    accelerator = Accelerator(
        cpu=config.engine.device == "cpu",
        mixed_precision=config.engine.precision,
        log_with=list(config.engine.trackers) or None,
        project_dir=str(out),
    )
    if config.engine.device == "cuda" and accelerator.device.type != "cuda":
        raise InputError(
            "no CUDA device", received="engine.device=cuda", expected="a GPU", fix="use cpu"
        )
    torch.manual_seed(config.seed)
    views = make_views(config)
    method = build_method(config, image_shape=view_shape(splits.train, views))
    loader = build_loader(
        splits.train, batch_size=config.batch_size, seed=config.seed, device=accelerator.device
    )
    if accelerator.is_main_process and not resume:
        folder.create(config, overwrite=overwrite)
    accelerator.wait_for_everyone()
    if config.engine.trackers:
        accelerator.init_trackers("falcon-ssl")
    if monitors is None:
        monitors = default_monitors(method)
    engine.pretrain(
        method,
        loader,
        views,
        config=config,
        folder=folder,
        accelerator=accelerator,
        monitors=monitors,
        resume=resume,
    )
    return folder.path


def default_monitors(method: Method) -> list[Monitor]:
    """What watches a run unless told otherwise: rank and codes of the batch."""
    return [BatchMonitor(method.dictionary)]


def resolve(config: RunConfig, source: Source) -> RunConfig:
    """Replace every auto by a choice that fits the images, and say so."""
    channels, side = source.image_shape[0], max(source.image_shape[1:])
    tiny, small = side <= 16, side <= 64
    if config.encoder.name == "auto":
        name = "digits_cnn" if tiny else "resnet18"
        stem = None if tiny else config.encoder.stem or ("cifar" if small else "imagenet")
        config = replace(config, encoder=replace(config.encoder, name=name, stem=stem))
        logger.info("encoder: %s for images of %d pixels", name, side)
    if config.views.preset == "auto":
        preset = (
            "digits" if tiny else "greyscale" if channels == 1 else "cifar" if small else "imagenet"
        )
        config = replace(config, views=replace(config.views, preset=preset))
        logger.info("views: %s", preset)
    return config


def open_data(config: RunConfig, *, skipped_path: Path | None = None) -> Splits:
    """The images of a configuration."""
    return load_splits(config.data, **asdict(config.reading), skipped_path=skipped_path)


def make_views(config: RunConfig) -> Views:
    """The augmentations of a resolved configuration."""
    return build_views(**asdict(config.views))


def view_shape(source: Source, views: Views) -> tuple[int, int, int]:
    """(channels, height, width) of what the encoder sees."""
    channels, height, width = source.image_shape
    return (channels, height, width) if views.size is None else (channels, views.size, views.size)


class LoadedRun(NamedTuple):
    """A run read back: trained method in evaluation mode, and what it was trained on."""

    config: RunConfig
    method: Method
    splits: Splits
    views: Views


def load_run(run: str | Path, *, device: torch.device | str = "cpu") -> LoadedRun:
    """Rebuild the method of a run and load its last checkpoint.

    Raises:
        InputError: No run folder, no checkpoint, or data that cannot be read any more.
    """
    folder = RunFolder.open(run)
    config = from_mapping(read_config(folder.path / CONFIG))
    splits, views = open_data(config), make_views(config)
    method = build_method(config, image_shape=view_shape(splits.train, views))
    engine.load_model(folder.checkpoint, method)
    return LoadedRun(config, method.to(device).eval(), splits, views)


def evaluate(run: str | Path) -> dict[str, Any]:
    """Judge the encoder of a run; write ``evaluation.json`` and ``arrays.npz``.

    Returns:
        What ``evaluation.json`` holds: metrics by name, the same for an untrained encoder under "random_encoder",
        chance levels under "chance", and "about".

    Raises:
        InputError: As `load_run`, or a data set without test split.
    """
    started = time.perf_counter()
    folder = RunFolder.open(run)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config, method, splits, views = load_run(run, device=device)
    if splits.test is None:
        raise InputError(
            "the data set has no test split",
            received=config.data,
            expected="held-out images to evaluate on",
            fix="evaluate with data that has one",
        )
    torch.manual_seed(config.seed)
    untrained = build_method(config, image_shape=view_shape(splits.train, views)).to(device)
    calibrate_batch_norm(untrained, splits.train, views, device=device)

    labels = splits.train.labels
    num_classes = None if labels is None else int(labels.max()) + 1
    num_codes = _assignable_codes(method)

    test_source = splits.test

    def judge(network: Method) -> tuple[Features, dict[str, float]]:
        train, test = (
            extract(
                network,
                source,
                views,
                batch_size=config.evaluation.batch_size,
                device=device,
                dictionary=network.dictionary if num_codes else None,
            )
            for source in (splits.train, test_source)
        )
        found = evaluate_features(
            train,
            test,
            num_classes=num_classes,
            num_codes=num_codes,
            seed=config.evaluation.seed,
            device=device,
        )
        return test, found

    test, found = judge(method)
    random_test, random_found = judge(untrained)
    arrays = picture_arrays(
        test,
        random_test,
        images=splits.test.images,
        num_codes=num_codes,
        seed=config.evaluation.seed,
    )
    np.savez_compressed(folder.path / "arrays.npz", allow_pickle=False, **arrays)
    evaluation: dict[str, Any] = {
        **found,
        "random_encoder": random_found,
        "chance": {} if num_classes is None else {"top1": _largest_share(splits.test)},
        "about": {
            "data": config.data,
            "note": splits.note,
            "split": "test",
            "num_train": len(splits.train),
            "num_test": len(splits.test),
            "num_classes": num_classes,
            "class_names": splits.test.class_names,
            "num_codes": num_codes,
            "embed_dim": config.falcon.embed_dim,
            "logit_scale": method.logit_scale,
            "step": engine.read_state(folder.checkpoint)["step"],
            "seconds": round(time.perf_counter() - started, 2),
            **engine.environment(device),
        },
    }
    folder.write_json("evaluation.json", evaluation)
    return evaluation


def report(run: str | Path) -> Path:
    """Write ``report.html`` of a run; needs no torch and no data."""
    return build_report(RunFolder.open(run).path)


def calibrate_batch_norm(
    method: nn.Module, source: Source, views: Views, *, device: torch.device, num_batches: int = 8
) -> None:
    """Give an untrained network the running statistics of its data: a fair reference, not a crippled one."""
    norms = [module for module in method.modules() if isinstance(module, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain average over batches
    method.train()
    rows = torch.randperm(len(source), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for indices in torch.split(rows, 256)[:num_batches]:
            if len(indices) > 1:
                method.embed(views.evaluate(source.images(indices).to(device)))  # type: ignore[operator]
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    method.eval()


def check_same_run(folder: RunFolder, config: RunConfig) -> None:
    """Raise InputError unless ``config`` is what the run was started with, but for how it is executed."""
    begun = from_mapping(read_config(folder.path / CONFIG))
    changed = [
        field.name
        for field in fields(RunConfig)
        if field.name != "engine" and getattr(begun, field.name) != getattr(config, field.name)
    ]
    if changed:
        raise InputError(
            "a run resumes with the options that it was started with",
            received=f"other values of {', '.join(changed)}",
            expected=f"those of {folder.path / CONFIG}",
            fix="leave these options out, or start a new run",
        )


def _assignable_codes(method: Method) -> int | None:
    """C where an argmax over the codes can be listed; None without a dictionary."""
    return None if method.dictionary is None else method.dictionary.num_codes


def _largest_share(source: Source) -> float:
    """Accuracy of always answering the most frequent class."""
    assert source.labels is not None
    return float(source.labels.bincount().max()) / len(source)
