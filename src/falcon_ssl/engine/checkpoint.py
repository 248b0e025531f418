"""Checkpoints: safetensors and JSON, written whole or not at all, safe to load from anyone.

    checkpoint/model.safetensors      parameters and buffers of the method, loadable by any tool
    checkpoint/training.safetensors   optimizer moments and the state of the random generators
    checkpoint/state.json             position, dictionary checksum, the optimizer's plain numbers

Order and augmentations are functions of (seed, position), so the position is all that is kept of them.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from falcon_ssl.core.errors import InputError
from falcon_ssl.records.files import read_json, write_json
from falcon_ssl.records.folder import MODEL, STATE, TRAINING


def save_checkpoint(
    path: Path, *, method: nn.Module, optimizer: Optimizer, state: Mapping[str, Any]
) -> None:
    """Write a checkpoint; a crash at any moment leaves the last one loadable.

    Args:
        path: Folder of the checkpoint; replaced as a whole.
        method: Its state_dict is kept.
        optimizer: Its moments are kept.
        state: Plain JSON values: the position and whatever the caller needs again.
    """
    unfinished = path.with_name(path.name + ".tmp")
    previous = path.with_name(path.name + ".old")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    moments, numbers = _split_optimizer(optimizer)
    generators = {"generator.cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        generators["generator.cuda"] = torch.cuda.get_rng_state()
    _save_tensors(method.state_dict(), unfinished / MODEL)
    _save_tensors(moments | generators, unfinished / TRAINING)
    write_json(unfinished / STATE, {**state, "optimizer": numbers})
    shutil.rmtree(previous, ignore_errors=True)
    if path.exists():
        path.rename(previous)
    unfinished.rename(path)
    shutil.rmtree(previous, ignore_errors=True)


def load_model(path: Path, method: nn.Module) -> None:
    """Load the parameters and buffers of a checkpoint into ``method``.

    Raises:
        InputError: No checkpoint, a damaged file, or parameters that do not fit the configuration.
    """
    tensors = _load_tensors(_existing(path) / MODEL)
    try:
        method.load_state_dict(tensors)
    except RuntimeError as error:
        raise InputError(
            "the checkpoint does not fit the configuration",
            received=" ".join(str(error).split())[:300],
            expected="the parameters of the configured encoder and projector",
            fix="use the config.yaml that lies beside the checkpoint",
        ) from error


def load_training(path: Path, optimizer: Optimizer) -> dict[str, Any]:
    """Restore optimizer and random generators; return the state that was saved.

    Raises:
        InputError: No checkpoint, a damaged file, or an optimizer of another shape.
    """
    path = _existing(path)
    tensors = _load_tensors(path / TRAINING)
    state = read_state(path)
    _restore_optimizer(optimizer, tensors, state.pop("optimizer"))
    torch.set_rng_state(tensors["generator.cpu"])
    if torch.cuda.is_available() and "generator.cuda" in tensors:
        torch.cuda.set_rng_state(tensors["generator.cuda"])
    return state


def read_state(path: Path) -> dict[str, Any]:
    """The plain values of a checkpoint.

    Raises:
        InputError: No checkpoint, or a damaged one.
    """
    return read_json(_existing(path) / STATE)


def _existing(path: Path) -> Path:
    """``path``, or what a crash between two renames left of it."""
    previous = path.with_name(path.name + ".old")
    for candidate in (path, previous):
        if (candidate / STATE).is_file():
            return candidate
    raise InputError(
        "no checkpoint",
        received=path,
        expected=f"a folder that holds {STATE}",
        fix="check the path; a run writes its first checkpoint at the end of an epoch",
    )


def _split_optimizer(optimizer: Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors by name "moment.PARAMETER.KEY", and everything else as plain numbers."""
    state = optimizer.state_dict()
    moments = {
        f"moment.{index}.{key}": value
        for index, entries in state["state"].items()
        for key, value in entries.items()
    }
    return moments, {"param_groups": state["param_groups"]}


def _restore_optimizer(
    optimizer: Optimizer, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]
) -> None:
    entries: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("moment."):
            _, index, key = name.split(".", 2)
            entries.setdefault(int(index), {})[key] = value
    try:
        optimizer.load_state_dict({"state": entries, "param_groups": numbers["param_groups"]})
        for parameter, moments in optimizer.state.items():
            for key, value in moments.items():
                if isinstance(value, Tensor) and value.shape == parameter.shape:
                    # Fused kernels walk parameter and moments side by side: their strides must be alike.
                    moments[key] = torch.empty_like(parameter).copy_(value)
    except ValueError as error:
        raise InputError(
            "the checkpoint's optimizer does not fit the configuration",
            received=str(error),
            expected="the same trainable parameters",
            fix="resume with the config.yaml of the run",
        ) from error


def _save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, path)
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _load_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(
        f"cannot read {path}",
        received=" ".join(str(error).split()),
        expected="a file written by falcon-ssl pretrain",
        fix="restore it from a copy",
    )
