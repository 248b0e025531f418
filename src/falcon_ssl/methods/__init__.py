"""Methods: encoder + head + loss, and how one is built from a configuration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from torch import nn

from falcon_ssl.config import RunConfig
from falcon_ssl.core.monitor import StuckValue
from falcon_ssl.core.parts import is_part, make_part_of
from falcon_ssl.methods.barlow_twins import BarlowTwins
from falcon_ssl.methods.base import Method, Parts, StepOutput
from falcon_ssl.methods.byol import BYOL
from falcon_ssl.methods.dino import DINO
from falcon_ssl.methods.falcon import Falcon, build_dictionary
from falcon_ssl.methods.gedi import GEDI
from falcon_ssl.methods.lejepa import LeJEPA
from falcon_ssl.methods.self_classifier import SelfClassifier
from falcon_ssl.methods.simclr import SimCLR
from falcon_ssl.methods.swav import SwAV
from falcon_ssl.methods.vicreg import VICReg
from falcon_ssl.networks import build_encoder, representation_width

__all__ = [
    "BYOL",
    "DINO",
    "GEDI",
    "BarlowTwins",
    "Falcon",
    "LeJEPA",
    "Method",
    "Parts",
    "SelfClassifier",
    "SimCLR",
    "StepOutput",
    "StuckValue",
    "SwAV",
    "VICReg",
    "build_dictionary",
    "build_method",
]


def build_method(
    config: RunConfig,
    *,
    image_shape: tuple[int, int, int],
    initialize: Callable[[nn.Module], None] | None = None,
) -> Method:
    """The method of a resolved configuration, with freshly initialized parameters.

    Args:
        config: Whole configuration; ``encoder.name`` is not auto any more.
        image_shape: (channels, height, width) of what the encoder will see.
        initialize: Gives the encoder other weights, before a teacher copies it.

    Raises:
        InputError: Options that do not fit each other.
    """
    channels, height, _ = image_shape
    encoder = build_encoder(in_channels=channels, image_size=height, **asdict(config.encoder))
    if initialize is not None:
        initialize(encoder)
    parts = Parts(encoder, representation_width(encoder, image_shape), image_shape)
    if is_part(config.method):
        return make_part_of(
            Method,  # type: ignore[type-abstract]  # a subclass of it
            "method",
            config.method,
            parts,
            returned="a method",
            expected="falcon_ssl.methods.Method, made of the falcon_ssl.methods.Parts that it is called with",
        )
    return _METHODS[config.method](parts, getattr(config, config.method))


_METHODS: dict[str, Callable[[Parts, Any], Method]] = {
    "falcon": Falcon,
    "barlow_twins": BarlowTwins,
    "vicreg": VICReg,
    "swav": SwAV,
    "self_classifier": SelfClassifier,
    "gedi": GEDI,
    "dino": DINO,
    "lejepa": LeJEPA,
    "simclr": SimCLR,
    "byol": BYOL,
}
