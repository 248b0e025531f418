"""Options of the network and of what it starts from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from falcon_ssl.config.bounds import Options, option


@dataclass(frozen=True)
class EncoderConfig(Options, group="encoder"):
    """The network g from images to representations."""

    name: str = option(
        "auto",
        "digits_cnn, whitened_cnn, resnet8, resnet10, resnet18, resnet50, timm:NAME or python:MODULE:FUNCTION; auto "
        "chooses by the data and writes its choice into config.yaml.",
    )
    width: int | None = option(
        None,
        "Channels of the first stage; null is the encoder's own default.",
        at_least=1,
        at_most=2**16,
    )
    stem: Literal["cifar", "half", "imagenet"] | None = option(
        None,
        "cifar (keeps the resolution), half or imagenet (a quarter), for resnet10, resnet18 and resnet50.",
    )
    stages: int | None = option(
        None,
        "Stages to build, for small images on a CPU: of resnet10, resnet18 and resnet50 four at most (null), of "
        "whitened_cnn 2 (null) or more.",
    )
    widths: tuple[int, ...] | None = option(
        None,
        "Channels of every stage of whitened_cnn, instead of width and stages.",
        at_least=1,
        at_most=2**16,
    )
    patch_size: int | None = option(
        None,
        "Side of a patch, for vision transformers and whitened_cnn (null is 6).",
        at_least=1,
        at_most=2**16,
    )
    eigenvectors: int | None = option(
        None,
        "Eigenvectors of patches in the stem of whitened_cnn (null is 48).",
        at_least=1,
        at_most=2**16,
    )
    head_width: int | None = option(
        None,
        "Channels of a last 1x1 convolution of whitened_cnn; null is none.",
        at_least=1,
        at_most=2**16,
    )
    drop_path: float | None = option(
        None, "Rate of stochastic depth, for timm models.", at_least=0, below=1
    )


@dataclass(frozen=True)
class InitConfig(Options, group="init"):
    """What the encoder starts from in place of random weights."""

    weights: str | None = option(
        None,
        "timm:NAME, hf:OWNER/NAME, a file (.safetensors, .pth), or the folder of a run or an export; --init is short "
        "for it. With encoder.name auto it says the encoder too.",
    )
    partial: tuple[str, ...] = option(
        (),
        "Layers of the encoder that may be missing there and stay random: modules, names or patterns, such as layer4.",
        needs="weights",
    )
