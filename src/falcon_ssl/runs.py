"""From a configuration to the parts of a run, and from a run folder back to them."""

from __future__ import annotations

import logging
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from falcon_ssl.checks import InputError
from falcon_ssl.config import RunConfig, from_mapping
from falcon_ssl.data import Source, Splits, load_splits
from falcon_ssl.engine import RunFolder, load_model
from falcon_ssl.engine.records import CONFIG, read_config
from falcon_ssl.methods import Method, build_method
from falcon_ssl.views import Views, build_views

logger = logging.getLogger(__name__)


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
    load_model(folder.checkpoint, method)
    return LoadedRun(config, method.to(device).eval(), splits, views)


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
        colour = "cifar" if small else "imagenet"
        preset = "digits" if tiny else "greyscale" if channels == 1 else colour
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


def untrained(
    config: RunConfig, source: Source, views: Views, *, device: torch.device, num_batches: int = 8
) -> Method:
    """The network that a run started from, with the batch statistics of its data.

    Running statistics of an untrained network say nothing; measured ones make it a fair reference, not a crippled one.
    """
    torch.manual_seed(config.seed)
    method = build_method(config, image_shape=view_shape(source, views)).to(device)
    norms = [module for module in method.modules() if isinstance(module, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain average over batches
    rows = torch.randperm(len(source), generator=torch.Generator().manual_seed(config.seed))
    with torch.no_grad():
        for indices in torch.split(rows, 256)[:num_batches]:
            if len(indices) > 1:
                method.embed(views.evaluate(source.images(indices).to(device)))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return method.eval()


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
