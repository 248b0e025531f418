"""Weights from elsewhere into an encoder: by name and shape, all of them, and everything that was adapted is said."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch

import torch
from torch import Tensor, nn

from falcon_ssl.core.errors import InputError
from falcon_ssl.networks.timm import import_beside_torchvision

AVERAGED = ("teacher", "ema")  # of several copies in one file, what is evaluated
COUNTERS = "num_batches_tracked"  # of batch normalization; older files lack them, and nothing depends on them


@dataclass(frozen=True)
class Match:
    """What of an encoder was found among weights, and what was not.

    Args:
        source: What the weights are called.
        matched: Names of the encoder's tensors that were found.
        of: How many tensors the encoder has.
        parameters: How many parameters were found.
        of_parameters: How many the encoder has.
        adapted: What was done to tensors of another shape, a sentence each.
        random: Names of tensors that keep what they had, as ``partial`` allows.
        unused: Names among the weights that the encoder does not have.
        prefix: What came before the names among the weights.
    """

    source: str
    matched: tuple[str, ...]
    of: int
    parameters: int
    of_parameters: int
    adapted: tuple[str, ...] = ()
    random: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    prefix: str = ""

    def sentences(self) -> list[str]:
        """The same in words, one line each."""
        under = f", under {self.prefix!r}" if self.prefix else ""
        lines = [
            f"{self.source}: {len(self.matched)} of {self.of} tensors, {self.parameters:,} of"
            f" {self.of_parameters:,} parameters{under}",
            *self.adapted,
        ]
        if self.random:
            lines.append(f"not in it, left random: {_some(self.random)}")
        if self.unused:
            lines.append(f"not used of it: {_some(self.unused)}")
        return lines


def load_weights(
    encoder: nn.Module,
    tensors: Mapping[str, Tensor],
    *,
    source: str,
    in_channels: int,
    partial: Sequence[str] = (),
) -> Match:
    """Fill an encoder, parameters and buffers, and say what was found.

    Names may have something before them, as "module.encoder_q." or "teacher.backbone.": what makes most names match is
    taken off. Tensors of another shape are adapted where that has a meaning: position embeddings are resized to the
    grid of the encoder (bicubic, antialiased, as timm does), a first convolution is given as many channels as the
    images have, so that a gray image gives what it gave.

    Args:
        encoder: Any.
        tensors: By name.
        source: What they are called in messages.
        in_channels: Channels of the images.
        partial: Which of the encoder's tensors may be missing: names, patterns as "blocks.1*", or modules as "layer4".

    Returns:
        What was found.

    Raises:
        InputError: A tensor of the encoder is not among the weights and ``partial`` does not name it, ``partial`` names
            nothing that is missing, or a weight is NaN or infinite.
    """
    own = {name: value for name, value in encoder.state_dict().items() if not _is_counter(name)}
    prefix = _prefix(list(tensors), set(own))
    found = {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }
    new: dict[str, Tensor] = {}
    adapted: list[str] = []
    missing: dict[str, str] = {}
    for name, mine in own.items():
        theirs = found.get(name)
        if theirs is None:
            missing[name] = name
        elif theirs.shape == mine.shape:
            new[name] = theirs
        elif (fitting := _adapted(encoder, name, theirs, mine, in_channels)) is not None:
            new[name], how = fitting
            adapted.append(f"{name}: {how}")
        else:
            missing[name] = f"{name} {_by(theirs)} and not {_by(mine)}"
    allowed = [name for name in missing if any(_names(part, name) for part in partial)]
    _check_all_there(encoder, source, own, missing, allowed)
    for part in partial:
        if not any(_names(part, name) for name in missing):
            raise InputError(
                "init.partial names nothing that the weights lack",
                received=part,
                expected=_some(tuple(missing)) or f"nothing: {source} has all of the encoder",
                fix="leave it out",
            )
    for name, value in new.items():
        if not torch.isfinite(value).all():
            raise InputError(
                "the weights are broken", received=f"NaN or infinity in {name}", expected="numbers"
            )
    counters = {name: value for name, value in found.items() if _is_counter(name)}
    encoder.load_state_dict(new | counters, strict=False)
    sizes = {name: parameter.numel() for name, parameter in encoder.named_parameters()}
    return Match(
        source=source,
        matched=tuple(new),
        of=len(own),
        parameters=sum(size for name, size in sizes.items() if name in new),
        of_parameters=sum(sizes.values()),
        adapted=tuple(adapted),
        random=tuple(allowed),
        unused=tuple(
            n for n in tensors if n.removeprefix(prefix) not in own and not _is_counter(n)
        ),
        prefix=prefix,
    )


def _prefix(names: Sequence[str], own: set[str]) -> str:
    """What to take off the names of a file so that most of them are the encoder's; an averaged copy before others."""
    counts: Counter[str] = Counter()
    for name in names:
        parts = name.split(".")
        for start in range(len(parts)):
            if ".".join(parts[start:]) in own:
                counts[".".join([*parts[:start], ""])] += 1
    best = [prefix for prefix, count in counts.items() if count == max(counts.values())]
    averaged = [prefix for prefix in best if any(word in prefix for word in AVERAGED)]
    return next(iter(averaged or best), "")


def _adapted(
    encoder: nn.Module, name: str, theirs: Tensor, mine: Tensor, in_channels: int
) -> tuple[Tensor, str] | None:
    """A tensor in the shape of the encoder's, and what was done; None where shapes mean different things."""
    if name.endswith("pos_embed") and theirs.dim() == mine.dim() == 3:
        return _resized_positions(encoder, theirs, mine)
    before, after = theirs.shape, mine.shape
    if len(before) != 4 or len(after) != 4 or after[1] != in_channels:
        return None
    if (before[0], *before[2:]) != (after[0], *after[2:]):
        return None
    change = f"{before[1]} -> {after[1]} channels"
    if after[1] == 1:
        return theirs.sum(dim=1, keepdim=True), f"{change}, summed"
    tiled = theirs.repeat(1, math.ceil(after[1] / before[1]), 1, 1)[:, : after[1]]
    factor = before[1] / after[1]
    return tiled * factor, f"{change}, repeated and divided by {1 / factor:g}"


def _resized_positions(
    encoder: nn.Module, theirs: Tensor, mine: Tensor
) -> tuple[Tensor, str] | None:
    grid = getattr(getattr(encoder, "patch_embed", None), "grid_size", None)
    if grid is None or theirs.shape[2] != mine.shape[2]:
        return None
    others = mine.shape[1] - grid[0] * grid[1]  # class token and registers
    side = math.isqrt(max(0, theirs.shape[1] - others))
    if others < 0 or side == 0 or side * side != theirs.shape[1] - others:
        return None
    layers = import_beside_torchvision("timm.layers")
    resized: Tensor = layers.resample_abs_pos_embed(
        theirs.float(), list(grid), [side, side], num_prefix_tokens=others
    )
    return resized, f"{side} x {side} -> {grid[0]} x {grid[1]} positions, bicubic"


def _check_all_there(
    encoder: nn.Module,
    source: str,
    own: Mapping[str, Tensor],
    missing: Mapping[str, str],
    allowed: Sequence[str],
) -> None:
    lacking = [reason for name, reason in missing.items() if name not in allowed]
    if not lacking:
        return
    names = [name for name in missing if name not in allowed]
    modules = list(dict.fromkeys(_wholly_missing(name, own, missing) for name in names))
    raise InputError(
        f"{source} does not fit the encoder {type(encoder).__name__}",
        received=f"{len(own) - len(missing)} of {len(own)} tensors; missing: {_some(lacking)}",
        expected="all of them",
        fix="choose the encoder that they are of; or, to begin with them random, pretrain "
        f"--init.partial {' '.join(modules[:6])}{' ...' if len(modules) > 6 else ''}",
    )


def _wholly_missing(name: str, own: Mapping[str, Tensor], missing: Mapping[str, str]) -> str:
    """The largest module around a tensor of which nothing was found; else the tensor itself."""
    parts = name.split(".")
    for size in range(1, len(parts)):
        module = ".".join(parts[:size])
        if all(one in missing for one in own if one.startswith(f"{module}.")):
            return module
    return name


def _names(part: str, name: str) -> bool:
    """Whether an entry of ``partial`` names a tensor: a module of it, or a pattern."""
    return name == part or name.startswith(f"{part}.") or fnmatch(name, part)


def _is_counter(name: str) -> bool:
    return name.rpartition(".")[2] == COUNTERS


def _by(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a number"


def _some(names: Sequence[str], *, most: int = 6) -> str:
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")
