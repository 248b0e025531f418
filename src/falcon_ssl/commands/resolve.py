"""Every auto becomes a choice that fits the images and the device."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any, Literal

from falcon_ssl.config.encoder import EncoderConfig
from falcon_ssl.config.run import RunConfig
from falcon_ssl.core.devices import multiplies_bf16, named_device
from falcon_ssl.data import Source

logger = logging.getLogger(__name__)

LARGEST_VIEW = 224  # side of the views where nobody chooses one


def resolve(config: RunConfig, source: Source) -> RunConfig:
    """Replace every auto by a choice that fits the images and the device, and log it."""
    channels, side = source.image_shape[0], max(source.image_shape[1:])
    tiny, small = side <= 16, side <= 64
    if config.encoder.name == "auto":
        config = replace(config, encoder=_chosen_encoder(config, side))
    if config.views.preset == "auto":
        color = "cifar" if small else "imagenet"
        gray = "digits" if tiny else "grayscale"
        preset = gray if channels == 1 else color
        size = config.views.size or (None if preset == "digits" else min(side, LARGEST_VIEW))
        config = replace(config, views=replace(config.views, preset=preset, size=size))
        logger.info("views: %s, %d pixels", preset, size or side)
    return replace(config, engine=replace(config.engine, precision=chosen_precision(config)))


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
