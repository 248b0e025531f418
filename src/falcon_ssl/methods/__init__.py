"""Methods: encoder + head + loss, and how one is built from a configuration."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from falcon_ssl.config import FalconConfig, RunConfig
from falcon_ssl.dictionary import Dictionary, RademacherDictionary
from falcon_ssl.dictionary_complete import CompleteDictionary
from falcon_ssl.dictionary_hadamard import HadamardDictionary
from falcon_ssl.encoders import build_encoder, representation_width
from falcon_ssl.losses import FalconLoss, power_law_prior
from falcon_ssl.methods.barlow_twins import BarlowTwins
from falcon_ssl.methods.base import Method, Parts, StepOutput, StuckValue
from falcon_ssl.methods.dino import DINO
from falcon_ssl.methods.falcon import Falcon
from falcon_ssl.methods.gedi import GEDI
from falcon_ssl.methods.lejepa import LeJEPA
from falcon_ssl.methods.self_classifier import SelfClassifier
from falcon_ssl.methods.swav import SwAV
from falcon_ssl.methods.vicreg import VICReg
from falcon_ssl.projector import FalconProjector

__all__ = [
    "DINO",
    "GEDI",
    "BarlowTwins",
    "Falcon",
    "LeJEPA",
    "Method",
    "Parts",
    "SelfClassifier",
    "StepOutput",
    "StuckValue",
    "SwAV",
    "VICReg",
    "build_dictionary",
    "build_method",
]

# Where neither epsilon nor temperature is stated: the best of three in the first trials, and what epsilon = 1e-8 means
# at F = 128. The default epsilon itself is far above 2^-F.
COMPLETE_TEMPERATURE = 0.38


def build_method(config: RunConfig, *, image_shape: tuple[int, int, int]) -> Method:
    """The method of a resolved configuration, with freshly initialised parameters.

    Args:
        config: Whole configuration; ``encoder.name`` is not auto any more.
        image_shape: (channels, height, width) of what the encoder will see.

    Raises:
        InputError: Options that do not fit each other.
    """
    encoder = build_encoder(
        config.encoder.name,
        in_channels=image_shape[0],
        image_size=image_shape[1],
        width=config.encoder.width,
        stem=config.encoder.stem,
        stages=config.encoder.stages,
        patch_size=config.encoder.patch_size,
        drop_path=config.encoder.drop_path,
    )
    parts = Parts(encoder, representation_width(encoder, image_shape), image_shape)
    return _BUILDERS[config.method](parts, getattr(config, config.method))


def build_dictionary(config: FalconConfig) -> Dictionary:
    """The codes of a configuration, rebuilt from their seed."""
    if config.dictionary == "complete":
        return CompleteDictionary(config.embed_dim)
    kind = HadamardDictionary if config.dictionary == "hadamard" else RademacherDictionary
    return kind(config.num_codes, config.embed_dim, config.dictionary_seed)


def _build_falcon(parts: Parts, config: FalconConfig) -> Falcon:
    dictionary = build_dictionary(config)
    temperature = config.temperature
    if config.dictionary == "complete" and config.epsilon is None and temperature is None:
        temperature = COMPLETE_TEMPERATURE
    loss = FalconLoss(
        dictionary,
        epsilon=config.epsilon,
        temperature=temperature,
        beta=config.beta,
        prior_matching=config.prior_matching,
        prior=power_law_prior(config.num_codes, config.prior_exponent)
        if config.prior_exponent
        else None,
        symmetric=config.symmetric,
        backend=config.backend,
        marginal_momentum=config.marginal_momentum,
    )
    projector = FalconProjector(
        parts.in_dim,
        config.embed_dim,
        embedding_norm=config.embedding_norm,
        affine=config.affine,
    )
    return Falcon(parts.encoder, projector, loss)


_BUILDERS: dict[str, Callable[[Parts, Any], Method]] = {
    "falcon": _build_falcon,
    "barlow_twins": BarlowTwins.from_config,
    "vicreg": VICReg.from_config,
    "swav": SwAV.from_config,
    "self_classifier": SelfClassifier.from_config,
    "gedi": GEDI.from_config,
    "dino": DINO.from_config,
    "lejepa": LeJEPA.from_config,
}
