"""How much memory a run needs at least, before anything of it is allocated."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import replace

import torch

from falcon_ssl.commands.resolve import LARGEST
from falcon_ssl.config.run import RunConfig
from falcon_ssl.core.devices import named_device
from falcon_ssl.core.errors import InputError
from falcon_ssl.core.machine import available_memory, bytes_text
from falcon_ssl.methods import build_method

_OF_A_PARAMETER = 4 * 4  # bytes: weight, gradient, two moments, float32
_WIDE = 2**12
_FEW_CODES = 256  # of the dictionary in the network that is only counted


def check_memory(config: RunConfig, image_shape: tuple[int, int, int]) -> None:
    """Raise InputError where the largest parts of a run do not fit; names them, the largest first.

    It is a lower bound: what a network keeps for its gradient is not part of it.
    """
    device = named_device(config.engine.device)
    free = available_memory(device)
    needed = {name: count for name, count in sizes(config, image_shape).items() if count}
    if sum(needed.values()) <= free and _is_wide(config):
        needed |= _parameters(config, image_shape)
    total = sum(needed.values())
    if total > free:
        largest = sorted(needed, key=lambda name: -needed[name])[:3]
        words = ", ".join(f"{name} {bytes_text(needed[name])}" for name in largest)
        raise InputError(
            f"the run does not fit into the memory of {device}",
            received=f"at least {bytes_text(total)}: {words}",
            expected=f"at most {bytes_text(free)}, which are free",
            fix="lower what is largest",
        )


def sizes(config: RunConfig, image_shape: tuple[int, int, int]) -> dict[str, int]:
    """Bytes of what a configuration states the size of."""
    views, codes, width = config.views, config.falcon.num_codes, config.falcon.embed_dim
    channels, side = image_shape[0], max(image_shape[1:])
    large = views.size or min(side, LARGEST)
    small = (views.small_size or large) if views.small_views else 0
    pixels = views.count * large**2 + views.small_views * small**2
    found = {
        f"views of {large} pixels": 4 * config.batch_size * channels * pixels,
        "images to evaluate": 4
        * config.evaluation.batch_size
        * channels
        * (views.evaluate_size or large) ** 2,
    }
    if config.method == "falcon" and config.falcon.dictionary == "rademacher":
        found["falcon.num_codes"] = codes * math.ceil(width / 8)
    if config.method == "falcon" and config.falcon.dictionary == "hadamard":
        found["falcon.num_codes"] = 16 * codes  # while it is drawn
    if config.method == "falcon" and config.falcon.dictionary != "complete":
        per_code = 4 * (config.falcon.marginal_momentum > 0) + 8 * (
            config.falcon.prior_exponent > 0
        )
        found["marginal and prior"] = codes * per_code
    own = getattr(config, config.method, None)  # None for a method of the user's
    hidden, outputs = getattr(own, "hidden_dim", 0) or 0, getattr(own, "num_prototypes", 0)
    outputs = sum(outputs) if isinstance(outputs, tuple) else outputs
    found[f"{config.method}.hidden_dim"] = _OF_A_PARAMETER * hidden * hidden
    inner = getattr(own, "embed_dim", hidden) or hidden
    found[f"{config.method}.embed_dim"] = _OF_A_PARAMETER * (hidden or 1) * inner
    found[f"{config.method}.num_prototypes"] = _OF_A_PARAMETER * outputs * inner
    if config.method == "lejepa":
        found["lejepa.num_directions"] = 4 * config.lejepa.num_directions * config.lejepa.embed_dim
    if config.method == "gedi" and config.gedi.generative:
        found["gedi.buffer_size"] = 4 * config.gedi.buffer_size * channels * large**2
    if config.method == "swav":
        found["swav.queue_length"] = 4 * config.swav.queue_length * config.swav.embed_dim
    return found


def _is_wide(config: RunConfig) -> bool:
    """Whether the encoder is so wide that counting is worth its seconds: the meta device takes them to load."""
    entries = [
        one
        for value in vars(config.encoder).values()
        for one in (value if isinstance(value, tuple) else (value,))
    ]
    return max((one for one in entries if isinstance(one, int)), default=0) > _WIDE


def _parameters(config: RunConfig, image_shape: tuple[int, int, int]) -> dict[str, int]:
    """Bytes of all parameters, counted on torch's meta device; nothing where a network cannot be built there."""
    large = config.views.size or max(image_shape[1:])
    few, falcon = config, config.falcon
    finite = config.method == "falcon" and falcon.dictionary != "complete"
    if finite and falcon.num_codes > _FEW_CODES:
        few = replace(config, falcon=replace(falcon, num_codes=_FEW_CODES, prior_exponent=0.0))
    with suppress(Exception):  # bad options are named when the run is built
        with torch.device("meta"):
            method = build_method(few, image_shape=(image_shape[0], large, large))
        return {"weights": _OF_A_PARAMETER * sum(one.numel() for one in method.parameters())}
    return {}
