"""Every auto becomes a choice that fits the images and the device."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Literal

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
        name = "digits_cnn" if tiny else "resnet18"
        stem = None if tiny else config.encoder.stem or ("cifar" if small else "imagenet")
        config = replace(config, encoder=replace(config.encoder, name=name, stem=stem))
        logger.info("encoder: %s for images of %d pixels", name, side)
    if config.views.preset == "auto":
        color = "cifar" if small else "imagenet"
        gray = "digits" if tiny else "grayscale"
        preset = gray if channels == 1 else color
        size = config.views.size or (None if preset == "digits" else min(side, LARGEST_VIEW))
        config = replace(config, views=replace(config.views, preset=preset, size=size))
        logger.info("views: %s, %d pixels", preset, size or side)
    return replace(config, engine=replace(config.engine, precision=chosen_precision(config)))


def chosen_precision(config: RunConfig) -> Literal["no", "bf16", "fp16"]:
    """The precision of a run whose encoder is chosen; "auto" asks the device."""
    if config.engine.precision != "auto":
        return config.engine.precision
    tiny = config.encoder.name == "digits_cnn"  # a step of it is not spent in products
    return "bf16" if not tiny and multiplies_bf16(named_device(config.engine.device)) else "no"
