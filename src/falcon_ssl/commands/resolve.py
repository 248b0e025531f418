"""Every auto becomes a choice that fits the images and the device."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any, Literal

import torch

from falcon_ssl.config.encoder import EncoderConfig
from falcon_ssl.config.run import RunConfig, ViewsConfig
from falcon_ssl.core.devices import multiplies_bf16, named_device
from falcon_ssl.core.pixels import unit_range
from falcon_ssl.data import Source, read_images

logger = logging.getLogger(__name__)

MEASURED = 500  # images that the normalization is measured on
LEAST_STD = 1e-3  # of a channel that is constant
LARGEST = 224  # side that images are evaluated at where nobody chooses one
SMALLEST = 24  # view of two stages of whitened_cnn
DEEP = 40  # and of three


def resolve(config: RunConfig, source: Source) -> RunConfig:
    """Replace every auto by a choice that fits the images and the device, and log it."""
    channels, side = source.image_shape[0], min(max(source.image_shape[1:]), LARGEST)
    if config.encoder.name == "auto":
        config = replace(config, encoder=_chosen_encoder(config, channels, side))
    if config.views.preset == "auto":
        config = replace(config, views=_chosen_views(config, source, side))
    return replace(config, engine=replace(config.engine, precision=chosen_precision(config)))


def _chosen_views(config: RunConfig, source: Source, side: int) -> ViewsConfig:
    """Augmentations for images of some side; options that are given stay.

    Crops of photographs are three quarters of the image's side for encoders that take any size: a crop magnifies, so
    objects are as large in it as in the whole image (Touvron et al., 2019), and a step costs about half.
    """
    channels, views = source.image_shape[0], config.views
    is_measured = config.reading.keep_16bit or config.reading.value_range is not None
    gray = "digits" if side <= 16 and not is_measured else "grayscale"
    color = "cifar" if side <= 64 else "imagenet"
    preset = {1: gray, 3: color}.get(channels, "bands")
    chosen: dict[str, Any] = {} if preset == "digits" else {"size": side}
    if channels == 3:
        chosen |= {"scale": None if views.patches else (0.2, 1.0), "symmetric": True}
        if views.size is None and not config.encoder.name.startswith(("timm:", "python:")):
            chosen |= {"size": _three_quarters(side), "evaluate_size": side}
    if views.mean is views.std is None and (preset == "bands" or is_measured):
        mean, std = _statistics(source)
        logger.info("normalization: mean %s, std %s, of the images", mean, std)
        chosen |= {"mean": mean, "std": std}
    given = {name: getattr(views, name) for name in views.changed()}
    views = replace(views, **{**chosen, **given, "preset": preset})
    logger.info("views: %s, %d pixels", preset, views.size or side)
    return views


def _three_quarters(side: int) -> int:
    return min(side, max(SMALLEST, 4 * round(side * 3 / 16)))


def _statistics(source: Source) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of every channel, over images that are spread evenly over the source."""
    rows = torch.linspace(0, len(source) - 1, min(MEASURED, len(source))).long()
    pixels = unit_range(read_images(source, rows)[1]).transpose(0, 1).flatten(1)
    std, mean = torch.std_mean(pixels, dim=1)
    return tuple(mean.tolist()), tuple(std.clamp(min=LEAST_STD).tolist())


def _chosen_encoder(config: RunConfig, channels: int, side: int) -> EncoderConfig:
    """An encoder for images of some side that trains in minutes where it trains; options that are given stay."""
    device, own = named_device(config.engine.device), config.encoder
    chosen: dict[str, Any] = {"name": "digits_cnn"}
    why = f"images of {side} pixels"
    if side > 16 and device.type == "cpu":
        view = config.views.size or (_three_quarters(side) if channels == 3 else side)
        stages, patch_size = (2, 6) if view < DEEP else (3, 6 * max(1, side // 64))
        chosen = {"name": "whitened_cnn", "stages": stages, "patch_size": patch_size}
        why += " without a GPU"
    elif side > 16:
        chosen = {"name": "resnet18", "stem": "cifar" if side <= 64 else "imagenet"}
    given = {option: getattr(own, option) for option in own.changed()}
    options = "".join(f", {key} {value}" for key, value in chosen.items() if key != "name")
    logger.info("encoder: %s%s for %s", chosen["name"], options, why)
    return replace(own, **{**chosen, **given})


def chosen_precision(config: RunConfig) -> Literal["no", "bf16", "fp16"]:
    """The precision of a run whose encoder is chosen; "auto" asks the device."""
    if config.engine.precision != "auto":
        return config.engine.precision
    tiny = config.encoder.name == "digits_cnn"  # a step of it is not spent in products
    return "bf16" if not tiny and multiplies_bf16(named_device(config.engine.device)) else "no"
