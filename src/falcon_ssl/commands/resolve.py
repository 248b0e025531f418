"""Every auto becomes a choice that fits the images and the device."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any, Literal

import torch

from falcon_ssl.config.encoder import EncoderConfig
from falcon_ssl.config.run import RunConfig
from falcon_ssl.core.devices import multiplies_bf16, named_device
from falcon_ssl.core.pixels import unit_range
from falcon_ssl.data import Source, read_images

logger = logging.getLogger(__name__)

MEASURED = 500  # images that the normalization is measured on
LEAST_STD = 1e-3  # of a channel that is constant
LARGEST_VIEW = 224  # side of the views where nobody chooses one


def resolve(config: RunConfig, source: Source) -> RunConfig:
    """Replace every auto by a choice that fits the images and the device, and log it."""
    channels, side = source.image_shape[0], max(source.image_shape[1:])
    tiny, small = side <= 16, side <= 64
    is_measured = config.reading.keep_16bit or config.reading.value_range is not None
    if config.encoder.name == "auto":
        config = replace(config, encoder=_chosen_encoder(config, side))
    if config.views.preset == "auto":
        color = "cifar" if small else "imagenet"
        gray = "digits" if tiny and not is_measured else "grayscale"
        preset = {1: gray, 3: color}.get(channels, "bands")
        size = config.views.size or (None if preset == "digits" else min(side, LARGEST_VIEW))
        config = replace(config, views=replace(config.views, preset=preset, size=size))
        logger.info("views: %s, %d pixels", preset, size or side)
        if config.views.mean is config.views.std is None and (preset == "bands" or is_measured):
            mean, std = _statistics(source)
            config = replace(config, views=replace(config.views, mean=mean, std=std))
            logger.info("normalization: mean %s, std %s, of the images", mean, std)
    return replace(config, engine=replace(config.engine, precision=chosen_precision(config)))


def _statistics(source: Source) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of every channel, over images that are spread evenly over the source."""
    rows = torch.linspace(0, len(source) - 1, min(MEASURED, len(source))).long()
    pixels = unit_range(read_images(source, rows)[1]).transpose(0, 1).flatten(1)
    std, mean = torch.std_mean(pixels, dim=1)
    return tuple(mean.tolist()), tuple(std.clamp(min=LEAST_STD).tolist())


def _chosen_encoder(config: RunConfig, side: int) -> EncoderConfig:
    """An encoder for images of some side that trains in minutes where it trains; options that are given stay."""
    device, own = named_device(config.engine.device), config.encoder
    chosen: dict[str, Any] = {"name": "digits_cnn"}
    why = f"images of {side} pixels"
    if side > 16 and device.type == "cpu":
        stages, patch_size = (2, 6) if side <= 40 else (3, 6 * max(1, side // 64))
        chosen = {"name": "whitened_cnn", "stages": stages, "patch_size": patch_size}
        why += " without a GPU"
    elif side > 16:
        chosen = {"name": "resnet18", "stem": "cifar" if side <= 64 else "imagenet"}
    given = {option: getattr(own, option) for option in own.changed()}
    logger.info("encoder: %s for %s", chosen["name"], why)
    return replace(own, **{**chosen, **given})


def chosen_precision(config: RunConfig) -> Literal["no", "bf16", "fp16"]:
    """The precision of a run whose encoder is chosen; "auto" asks the device."""
    if config.engine.precision != "auto":
        return config.engine.precision
    tiny = config.encoder.name == "digits_cnn"  # a step of it is not spent in products
    return "bf16" if not tiny and multiplies_bf16(named_device(config.engine.device)) else "no"
