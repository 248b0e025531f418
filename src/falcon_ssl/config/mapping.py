"""Dataclasses from nested plain values: unknown keys and wrong types are named."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from falcon_ssl.core.errors import InputError
from falcon_ssl.core.extras import train_extra


def read_yaml(path: Path) -> dict[str, Any]:
    """The nested mapping of a YAML file.

    Raises:
        InputError: No such file, not YAML, or not a mapping.
    """
    with train_extra("reading YAML"):
        import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise _unreadable(path, "no such file") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise _unreadable(path, " ".join(str(error).split())) from error
    if not isinstance(values, dict):
        raise _unreadable(path, f"a {type(values).__name__}")
    return values


def _unreadable(path: Path, received: str) -> InputError:
    return InputError(
        f"cannot read the configuration {path}",
        received=received,
        expected="a YAML mapping of options",
        fix="see falcon-ssl pretrain --print_config",
    )


def build(kind: Any, values: Mapping[str, Any], *, path: str = "") -> Any:
    """A dataclass from the values of its fields; fields whose default is a dataclass are groups of options.

    Args:
        kind: The dataclass.
        values: Nested plain values, as YAML has them; what is missing keeps its default.
        path: Of this group in the whole, for complaints.

    Raises:
        InputError: An unknown key (named with its path), a group that is not a mapping, or a value of the wrong type.

    Example:
        >>> from falcon_ssl.config import OptimConfig
        >>> build(OptimConfig, {"lr": "1e-3"}).lr
        0.001
    """
    types = get_type_hints(kind)
    groups = {
        f.name: f.default_factory
        for f in dataclasses.fields(kind)
        if dataclasses.is_dataclass(f.default_factory)
    }
    known = [f.name for f in dataclasses.fields(kind)]
    made: dict[str, Any] = {}
    for key, value in values.items():
        if key not in known:
            raise InputError(
                "unknown option in the configuration",
                received=path + str(key),
                expected=f"one of {', '.join(known)}",
                fix="correct its name or leave it out",
            )
        if key in groups:
            if not isinstance(value, Mapping):
                raise InputError(
                    f"{path}{key} is a group of options",
                    received=value,
                    expected="a mapping",
                    fix="indent its options below it",
                )
            made[key] = build(groups[key], value, path=f"{path}{key}.")
        else:
            made[key] = _typed(path + key, value, types[key])
    return kind(**made)


def _typed(name: str, value: Any, wanted: Any) -> Any:
    """``value`` as the type of its option; YAML's own reading of 1e-8 as a word is repaired."""
    parts = get_args(wanted)
    if get_origin(wanted) is Literal and value in parts:
        return value
    if get_origin(wanted) is tuple and isinstance(value, (list, tuple)):
        repeated = len(parts) == 2 and parts[1] is Ellipsis
        if repeated or len(value) == len(parts):
            kinds = [parts[0]] * len(value) if repeated else parts
            return tuple(_typed(name, v, k) for v, k in zip(value, kinds, strict=True))
    if get_origin(wanted) in (Union, UnionType):
        if value is None:
            return None
        return _typed(name, value, next(part for part in parts if part is not type(None)))
    if wanted is float and not isinstance(value, bool):
        with suppress(TypeError, ValueError):
            return float(value)
    if isinstance(wanted, type) and type(value) is wanted:
        return value
    raise InputError(
        f"{name} has the wrong type",
        received=repr(value),
        expected=getattr(wanted, "__name__", None) if isinstance(wanted, type) else wanted,
        fix="see falcon-ssl pretrain --help",
    )
