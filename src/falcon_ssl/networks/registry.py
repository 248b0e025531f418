"""Encoders by name, and the width that they turn out to have."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import nn

from falcon_ssl.core.errors import InputError, did_you_mean
from falcon_ssl.core.modes import evaluation_mode
from falcon_ssl.core.parts import PREFIX, is_part, make_part_of
from falcon_ssl.networks.digits import DigitsCNN
from falcon_ssl.networks.readout import OWN, Readout
from falcon_ssl.networks.resnet import ResNet
from falcon_ssl.networks.resnet8 import ResNet8
from falcon_ssl.networks.timm import timm_encoder
from falcon_ssl.networks.whitened import WhitenedCNN

_TIMM = "timm:"
_RESNET10 = partial(ResNet, block="basic", depths=(1, 1, 1, 1), stem="imagenet")
_RESNET18 = partial(ResNet, block="basic", depths=(2, 2, 2, 2), stem="imagenet")
_RESNET50 = partial(ResNet, block="bottleneck", depths=(3, 4, 6, 3), stem="imagenet")

_RESNET_OPTIONS = frozenset({"width", "stem", "stages"})

# name -> what builds it, and the options it takes
_ENCODERS: dict[str, tuple[Callable[..., nn.Module], frozenset[str]]] = {
    "digits_cnn": (DigitsCNN, frozenset({"width"})),
    "whitened_cnn": (
        WhitenedCNN,
        frozenset({"width", "stages", "widths", "patch_size", "eigenvectors", "head_width"}),
    ),
    "resnet8": (ResNet8, frozenset({"width"})),
    "resnet10": (_RESNET10, _RESNET_OPTIONS),
    "resnet18": (_RESNET18, _RESNET_OPTIONS),
    "resnet50": (_RESNET50, _RESNET_OPTIONS),
}
_TIMM_OPTIONS = frozenset({"patch_size", "drop_path"})


def encoder_names() -> list[str]:
    """Names that `build_encoder` takes; "timm:NAME" stands for every timm model.

    "python:MODULE:FUNCTION" is what a function of yours returns.
    """
    return [*_ENCODERS, _TIMM + "NAME", PREFIX + "MODULE:FUNCTION"]


def build_encoder(
    name: str,
    *,
    in_channels: int,
    image_size: int | None = None,
    width: int | None = None,
    stem: str | None = None,
    stages: int | None = None,
    widths: Sequence[int] | None = None,
    patch_size: int | None = None,
    eigenvectors: int | None = None,
    head_width: int | None = None,
    drop_path: float | None = None,
) -> nn.Module:
    """Build an encoder by name; None leaves an option at the encoder's own default.

    Args:
        name: "digits_cnn", "whitened_cnn", "resnet8", "resnet10", "resnet18", "resnet50", "timm:NAME" or
            "python:MODULE:FUNCTION".
        in_channels: Channels of the images.
        image_size: Side of the images; only models with position embeddings are built for one.
        width: Channels of the first stage.
        stem: "cifar", "half" or "imagenet" (the default), for resnet10, resnet18 and resnet50.
        stages: How many of their four stages to build, each that is left out halves D; or of whitened_cnn's own.
        widths: Channels of every stage of whitened_cnn, instead of the two.
        patch_size: Side of a patch, for vision transformers and whitened_cnn.
        eigenvectors: Of patches, in the stem of whitened_cnn.
        head_width: Channels of a last 1x1 convolution of whitened_cnn.
        drop_path: Rate of stochastic depth, for timm models.

    Returns:
        A module mapping [N, C, H, W] to z_ND.

    Raises:
        InputError: An unknown name, or an option that the encoder does not take.

    Example:
        >>> encoder = build_encoder("resnet18", in_channels=3, width=16, stem="cifar")
        >>> representation_width(encoder, (3, 32, 32))
        128
    """
    options = {
        "width": width,
        "stem": stem,
        "stages": stages,
        "widths": widths,
        "patch_size": patch_size,
        "eigenvectors": eigenvectors,
        "head_width": head_width,
        "drop_path": drop_path,
    }
    given = {option: value for option, value in options.items() if value is not None}
    if is_part(name):
        _check_options(name, given, frozenset())
        return _own_encoder(name)
    if name.startswith(_TIMM):
        _check_options(name, given, _TIMM_OPTIONS)
        return timm_encoder(
            name.removeprefix(_TIMM),
            in_channels=in_channels,
            image_size=image_size,
            patch_size=patch_size,
            drop_path=drop_path,
        )
    if name not in _ENCODERS:
        raise InputError(
            "unknown encoder",
            received=repr(name),
            expected=f"one of {', '.join(encoder_names())}",
            fix=did_you_mean(name, _ENCODERS),
        )
    make, taken = _ENCODERS[name]
    _check_options(name, given, taken)
    return make(in_channels, **given)


def _own_encoder(name: str) -> nn.Module:
    return make_part_of(
        nn.Module,
        "encoder",
        name,
        returned="an encoder",
        expected="a torch.nn.Module from images [N, C, H, W] to z_ND",
    )


def representation_width(
    encoder: nn.Module, image_shape: tuple[int, int, int], *, readout: Readout = OWN
) -> int:
    """Find D by a dry run on one blank image, in evaluation mode.

    Args:
        encoder: Maps [N, C, H, W] to z_ND.
        image_shape: (channels, height, width).
        readout: What is read off the encoder.

    Returns:
        D.

    Raises:
        InputError: The encoder does not return one row per image, or does not have such a readout.
    """
    image = torch.zeros(1, *image_shape)
    for parameter in encoder.parameters():
        image = image.to(parameter)
        break
    with evaluation_mode(encoder), torch.no_grad():
        z_ND = readout(encoder, image)
    if z_ND.dim() != 2:
        raise InputError(
            "the encoder does not return representations",
            received=f"shape {tuple(z_ND.shape)} for one image",
            expected="[N, D]",
            fix="pool over positions and flatten inside the encoder",
        )
    return int(z_ND.shape[1])


def _check_options(name: str, given: Mapping[str, object], taken: frozenset[str]) -> None:
    for option in given:
        if option not in taken:
            raise InputError(
                f"encoder {name} does not take the option {option}",
                received=f"{option}={given[option]}",
                expected=f"only {', '.join(sorted(taken))}",
                fix="leave it out",
            )
