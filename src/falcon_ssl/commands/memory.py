"""How much memory a run needs at least, before anything of it is allocated."""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace

import torch

from falcon_ssl.commands.resolve import LARGEST
from falcon_ssl.config.run import OPTIMIZERS, RunConfig
from falcon_ssl.core.devices import named_device
from falcon_ssl.core.distributed import planned_ranks
from falcon_ssl.core.errors import InputError
from falcon_ssl.core.machine import available_memory, bytes_text
from falcon_ssl.engine.shards import divided_encoders
from falcon_ssl.methods import Method, build_method

_FLOAT32 = 4  # bytes
_OF_HEADS = ("hidden_dim", "embed_dim", "num_prototypes")
_WIDE, _WIDE_HEAD = 2**12, 2**14  # layers of an encoder, and those on top of it
_FEW_CODES = 256  # of the dictionary in the network that is only counted


def check_memory(config: RunConfig, image_shape: tuple[int, int, int]) -> None:
    """Raise InputError where the largest parts of a run do not fit; names them, the largest first.

    It is a lower bound, for one rank: what a network keeps for its gradient is not part of it.
    """
    device = named_device(config.engine.device)
    free = available_memory(device)
    needed = {name: count for name, count in sizes(config, image_shape).items() if count}
    if sum(needed.values()) <= free and _is_worth_counting(config):
        counted = _parameters(config, image_shape)
        heads = {f"{config.method}.{name}" for name in _OF_HEADS} if counted else set()
        needed = {name: count for name, count in needed.items() if name not in heads} | counted
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
    """Bytes on a rank of what a configuration states the size of."""
    views, codes, width = config.views, config.falcon.num_codes, config.falcon.embed_dim
    of_a_parameter = _FLOAT32 * (2 + OPTIMIZERS[config.optim.name].moments)
    channels, side = image_shape[0], max(image_shape[1:])
    large = views.size or min(side, LARGEST)
    small = (views.small_size or large) if views.small_views else 0
    pixels = views.count * large**2 + views.small_views * small**2
    rows = config.batch_size // planned_ranks()
    found = {
        f"views of {large} pixels": _FLOAT32 * rows * channels * pixels,
        "images to evaluate": _FLOAT32
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
    found |= {name: of_a_parameter * count for name, count in _heads(config).items()}
    if config.method == "lejepa":
        found["lejepa.num_directions"] = (
            _FLOAT32 * config.lejepa.num_directions * config.lejepa.embed_dim
        )
    if config.method == "gedi" and config.gedi.generative:
        found["gedi.buffer_size"] = _FLOAT32 * config.gedi.buffer_size * channels * large**2
    if config.method == "swav":
        found["swav.queue_length"] = _FLOAT32 * config.swav.queue_length * config.swav.embed_dim
    return found


def _heads(config: RunConfig) -> dict[str, int]:
    """Parameters of the layers whose widths a method has as options; a method of the user's has none."""
    own = getattr(config, config.method, None)
    if own is None:
        return {}
    hidden, outputs = getattr(own, "hidden_dim", 0) or 0, getattr(own, "num_prototypes", 0)
    outputs = sum(outputs) if isinstance(outputs, tuple) else outputs
    inner = getattr(own, "embed_dim", hidden) or hidden
    counts = (hidden * hidden, (hidden or 1) * inner, outputs * inner)
    found = dict(zip(_OF_HEADS, counts, strict=True))
    return {f"{config.method}.{name}": found[name] for name in _OF_HEADS if hasattr(own, name)}


def _is_worth_counting(config: RunConfig) -> bool:
    """Whether a layer is wide, or the encoder divided for its size: the meta device takes seconds to load."""
    own = getattr(config, config.method, None)
    heads = [getattr(own, name, None) for name in _OF_HEADS]
    return (
        config.engine.shard
        or _widest(vars(config.encoder).values()) > _WIDE
        or _widest(heads) > _WIDE_HEAD
    )


def _widest(options: Iterable[object]) -> int:
    """The largest whole number of some options, lists among them."""
    entries = [one for many in options for one in (many if isinstance(many, tuple) else (many,))]
    return max((one for one in entries if isinstance(one, int)), default=0)


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
        ranks = planned_ranks() if config.engine.shard else 1
        moments = OPTIMIZERS[config.optim.name].moments
        return {"weights": parameter_bytes(method, moments=moments, ranks=ranks)}
    return {}


def parameter_bytes(method: Method, *, moments: int, ranks: int = 1) -> int:
    """Bytes of weights, gradients and moments on a rank.

    Args:
        method: On any device.
        moments: Of a parameter.
        ranks: R that the encoders are divided over. Every rank then has all of their weights before they are divided,
            and again at the end of an epoch, beside its 1/R of weights and moments.
    """
    encoders = divided_encoders(method) if ranks > 1 else []
    divided = {id(p) for encoder in encoders for p in encoder.parameters()}
    total = 0
    for p in method.parameters():
        kept = 1 + moments * p.requires_grad  # numbers from step to step
        if id(p) in divided:
            total += p.numel() + kept * p.numel() // ranks
        else:
            total += (kept + p.requires_grad) * p.numel()
    return _FLOAT32 * total
