"""Encoders from timm, by name; an optional dependency, imported when one is asked for."""

from __future__ import annotations

import importlib
import inspect
from contextlib import suppress
from types import MethodType, ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from falcon_ssl.core.errors import InputError, one_line
from falcon_ssl.core.extras import train_extra

_NOT_KEPT = ("num_classes", "drop_path_rate")  # said elsewhere, or of training alone


class AsTimm(NamedTuple):
    """How ``timm.create_model`` builds an encoder."""

    architecture: str
    arguments: dict[str, Any]


def timm_encoder(
    name: str,
    *,
    in_channels: int,
    image_size: int | None = None,
    patch_size: int | None = None,
    drop_path: float | None = None,
) -> nn.Module:
    """Build a timm model without classifier.

    Args:
        name: timm's name: "vit_small_patch16_224".
        in_channels: Channels of the images.
        image_size: Side of the images, for models with position embeddings; they accept other
            sizes (small crops) too where timm can interpolate. Other models do not need it.
        patch_size: Overrides the patch size in the name.
        drop_path: Rate of stochastic depth.

    Returns:
        A module mapping [N, C, H, W] to pooled features z_ND; with ``maps(images)``, or ``tokens(images, n)`` for
        vision transformers, where timm gives access to them; ``as_timm`` says how timm builds it.

    Raises:
        InputError: timm is not installed, has no such model, or the model does not take an option.
    """
    timm = _timm_with(name)
    options: dict[str, Any] = {"in_chans": in_channels, "num_classes": 0}
    if patch_size is not None:
        options["patch_size"] = patch_size
    if drop_path is not None:
        options["drop_path_rate"] = drop_path
    if image_size is not None and timm.get_pretrained_cfg(name).fixed_input_size:
        options["img_size"] = image_size
        try:  # most transformers interpolate their position embeddings, some cannot
            return _create(timm, name, options | {"dynamic_img_size": True})
        except TypeError:
            pass
    try:
        return _create(timm, name, options)
    except TypeError as error:
        raise InputError(
            f"timm model {name} does not take an option",
            received=str(error),
            expected="options of that model",
            fix="leave the option out",
        ) from error


def pretrained_timm(name: str) -> tuple[nn.Module, dict[str, Any]]:
    """A timm model without classifier, with the weights that timm downloads, and what they were trained with.

    Args:
        name: timm's name, with the tag of the weights or without: "resnet50.a1_in1k".

    Returns:
        The model as it was trained, for its own number of channels and image size; its ``pretrained_cfg``.

    Raises:
        InputError: timm is not installed, has no such model or no weights of it, or they cannot be had.
    """
    timm = _timm_with(name)
    try:
        model: nn.Module = timm.create_model(name, pretrained=True, num_classes=0)
    except Exception as error:  # no network, no weights: the kinds of several libraries
        raise InputError(
            f"timm cannot get the weights of {name}",
            received=one_line(error, named=True),
            expected="a model with pretrained weights and a network connection",
            fix="pass the weights in a .safetensors file",
        ) from error
    about: dict[str, Any] = model.pretrained_cfg  # type: ignore[assignment]
    return model, about


def _timm_with(name: str) -> ModuleType:
    """timm, if it has a model of this name."""
    timm = _import_timm()
    if not timm.is_model(name):
        alike = (
            timm.list_models(f"*{name.split('_')[0]}*")[:5] or timm.list_models("vit_small*")[:5]
        )
        raise InputError(
            "unknown timm model",
            received=repr(name),
            expected=f"a name such as {', '.join(alike)}",
            fix="look it up with timm.list_models()",
        )
    return timm


def _create(timm: ModuleType, name: str, options: dict[str, Any]) -> nn.Module:
    model: nn.Module = timm.create_model(name, pretrained=False, **options)
    kept = {key: value for key, value in options.items() if key not in _NOT_KEPT}
    model.as_timm = AsTimm(name.partition(".")[0], kept)  # type: ignore[assignment]
    return _readable(model)


def _readable(model: nn.Module) -> nn.Module:
    """The model with what a readout asks for; bound to it, so that a copy reads itself."""
    if hasattr(model, "forward_intermediates"):
        known = inspect.signature(model.forward_intermediates).parameters  # type: ignore[arg-type]
        if "return_prefix_tokens" in known:
            model.tokens = MethodType(_tokens, model)  # type: ignore[assignment]
        else:
            model.maps = MethodType(_maps, model)  # type: ignore[assignment]
    return model


def _maps(model: Any, images: Tensor) -> tuple[Tensor, ...]:
    """[N, C, H, W] -> the maps of all stages."""
    return tuple(model.forward_intermediates(images, intermediates_only=True))


def _tokens(model: Any, images: Tensor, n: int) -> tuple[tuple[Tensor, Tensor], ...]:
    """[N, C, H, W] -> patch tokens [N, L, D] and other tokens [N, R, D], normalized, of the last n blocks."""
    found = model.forward_intermediates(
        images,
        indices=n,
        norm=True,
        output_fmt="NLC",
        return_prefix_tokens=True,
        intermediates_only=True,
    )
    return tuple(pair if isinstance(pair, tuple) else (pair, pair[:, :0]) for pair in found)


def _import_timm() -> ModuleType:
    with train_extra("an encoder of timm", extra="timm"):
        return import_beside_torchvision("timm")


def import_beside_torchvision(name: str) -> ModuleType:
    """Import a module that imports torchvision, even one that was built for another torch.

    Without its compiled part torchvision fails to import, because it describes operators that
    nothing declared. Declaring the two is enough where nobody runs them.

    Args:
        name: Of the module.

    Returns:
        The module.
    """
    try:
        return importlib.import_module(name)
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        boxes_to_rows = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        for operator in ("torchvision::nms", "torchvision::qnms"):
            torch.library.define(operator, boxes_to_rows)
        return importlib.import_module(name)


def import_transformers() -> ModuleType:
    """Import Hugging Face's transformers, which imports torchvision where there is one."""
    with train_extra("Hugging Face's transformers", extra="export"):
        with suppress(ModuleNotFoundError):
            import_beside_torchvision("torchvision")
        return importlib.import_module("transformers")
