"""Checkpoints: safetensors and JSON, written whole or not at all, checked when they are read, safe to load from anyone.

    model.safetensors      parameters and buffers of the method, loadable by any tool
    training.safetensors   optimizer moments and the state of the random generators
    state.json             position, checksums of these files and of the dictionary, the optimizer's plain numbers

Where they lie and which are kept is in `falcon_ssl.records.checkpoints`. Order and augmentations are functions of
(seed, position), so the position is all that is kept of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.optim import Optimizer

from falcon_ssl.core.errors import InputError, one_line
from falcon_ssl.core.sharding import divided_as, gathered, rows_of, whole_shape
from falcon_ssl.dictionary.prototypes import PrototypeDictionary
from falcon_ssl.methods import Method
from falcon_ssl.records.checkpoints import (
    Checkpoint,
    find_checkpoint,
    new_checkpoint,
    newest_checkpoint,
)
from falcon_ssl.records.files import replacing
from falcon_ssl.records.folder import MODEL, TRAINING


def save_checkpoint(
    run: Path,
    *,
    method: Method,
    optimizer: Optimizer,
    state: Mapping[str, Any],
    keep: int = 1,
    writes: bool = True,
) -> None:
    """Write a checkpoint; a crash at any moment leaves the last one loadable.

    Args:
        run: The run folder.
        method: Its state_dict is kept.
        optimizer: Its moments are kept.
        state: Plain JSON values: the position and whatever the caller needs again.
        keep: How many checkpoints are left, this one among them.
        writes: False on ranks that only give their rows of sharded weights; whoever reads finds whole tensors.
    """
    weights = on_host(method.state_dict(), writes=writes)
    moments, numbers = split_optimizer(optimizer, writes=writes)
    if not writes:
        return
    generators = {"generator.cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        generators["generator.cuda"] = torch.cuda.get_rng_state()
    state = {**state, "optimizer": numbers, "dictionary": _fixed_codes(method)}
    with new_checkpoint(run, state, keep=keep) as folder:
        save_tensors(weights, folder / MODEL)
        save_tensors(moments | generators, folder / TRAINING)


def load_model(run: Path, method: Method, *, name: str = "last") -> Checkpoint:
    """Load the parameters and buffers of a run's checkpoint into ``method``.

    Args:
        run: The run folder.
        method: Filled in place.
        name: Of a checkpoint that is kept; "last" is the newest whole one.

    Raises:
        InputError: No such checkpoint, none that is not damaged, or parameters that do not fit the configuration.
    """
    found = find_checkpoint(run, name, files=[MODEL])
    _fill(method, found)
    return found


def load_training(run: Path, method: Method, optimizer: Optimizer) -> Checkpoint:
    """Restore method, optimizer and random generators from a run's newest whole checkpoint.

    Raises:
        InputError: As `load_model`, or an optimizer of another shape.
    """
    found = newest_checkpoint(run, files=[MODEL, TRAINING])
    _fill(method, found)
    tensors = load_tensors(found.path / TRAINING)
    _restore_optimizer(optimizer, tensors, found.state["optimizer"])
    torch.set_rng_state(tensors["generator.cpu"])
    if torch.cuda.is_available() and "generator.cuda" in tensors:
        torch.cuda.set_rng_state(tensors["generator.cuda"])
    return found


def _fill(method: Method, found: Checkpoint) -> None:
    tensors = load_tensors(found.path / MODEL)
    for name, own in method.state_dict().items():
        if name in tensors:
            tensors[name] = divided_as(tensors[name], own)
    try:
        method.load_state_dict(tensors)
    except RuntimeError as error:
        raise InputError(
            "the checkpoint does not fit the configuration",
            received=one_line(error),
            expected="the parameters of the configured encoder and projector",
            fix="use the config.yaml that lies beside the checkpoint",
        ) from error
    if found.state["dictionary"] != _fixed_codes(method):
        raise InputError(
            "the codes are not those that the run was trained on",
            received=f"checksum {_fixed_codes(method)}",
            expected=f"{found.state['dictionary']}, of {found.path}",
            fix="use the config.yaml and the version of the library that the run was started with",
        )


def _fixed_codes(method: Method) -> str | None:
    """Checksum of codes that are not trained and so not among the parameters."""
    codes = method.dictionary
    return None if codes is None or isinstance(codes, PrototypeDictionary) else codes.checksum()


def on_host(tensors: Mapping[str, Tensor], *, writes: bool = True) -> dict[str, Tensor]:
    """Whole tensors in the memory of the host, one after the other; nothing on ranks that do not write."""
    whole = ((name, gathered(value.detach())) for name, value in tensors.items())
    return {name: value.cpu() for name, value in whole if writes}


def split_optimizer(
    optimizer: Optimizer, *, writes: bool = True
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors by name "moment.PARAMETER.KEY", and everything else as plain numbers."""
    state, parameters = optimizer.state_dict(), _parameters(optimizer)
    moments: dict[str, Tensor] = {}
    for index, entries in state["state"].items():
        own = parameters[index]
        for key, value in entries.items():
            whole = gathered(value, own) if value.shape == own.shape else value
            if writes:
                moments[f"moment.{index}.{key}"] = whole.cpu()
    return moments, {"param_groups": state["param_groups"]}


def _parameters(optimizer: Optimizer) -> list[Tensor]:
    """Those that an optimizer moves, in the order in which its state counts them."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _restore_optimizer(
    optimizer: Optimizer, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]
) -> None:
    entries: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("moment."):
            _, index, key = name.split(".", 2)
            entries.setdefault(int(index), {})[key] = value
    parameters = _parameters(optimizer)
    try:
        for number, kept in entries.items():
            own = parameters[number]
            for key, value in kept.items():
                if value.shape == whole_shape(own):
                    kept[key] = rows_of(value, own)
        optimizer.load_state_dict({"state": entries, "param_groups": numbers["param_groups"]})
        for parameter, moments in optimizer.state.items():
            for key, value in moments.items():
                if isinstance(value, Tensor) and value.shape == parameter.shape:
                    # Fused kernels walk parameter and moments side by side: their strides must be alike.
                    moments[key] = torch.empty_like(parameter).copy_(value)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise InputError(
            "the checkpoint's optimizer does not fit the configuration",
            received=str(error),
            expected="the same trainable parameters",
            fix="resume with the config.yaml of the run",
        ) from error


def save_tensors(
    tensors: Mapping[str, Tensor], path: Path, *, metadata: dict[str, str] | None = None
) -> None:
    """Write a .safetensors file, whole or not at all."""
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    with replacing(path) as unfinished:
        save_file(plain, unfinished, metadata=metadata)


def load_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file. InputError: there is none, or it is damaged."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"cannot read {path}",
            received=one_line(error),
            expected="a file written by falcon-ssl pretrain",
            fix="restore it from a copy",
        ) from error
