"""Dataclasses from plain values: the one check of options, be they from YAML, Python or the command line."""

from __future__ import annotations

import collections.abc
import dataclasses
import math
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from falcon_ssl.core.errors import InputError, did_you_mean, one_line
from falcon_ssl.core.extras import train_extra

Values = Mapping[str, Any]

_LARGEST_YAML = 2**22  # characters
_MOST_NODES = 200_000

_KINDS = {int: "an integer", float: "a number", str: "a string"}
_SEVERAL = {int: "integers", float: "numbers", str: "strings"}


def read_yaml(path: Path) -> dict[str, Any]:
    """The nested mapping of a YAML file. InputError: no such file, not YAML, or not a mapping."""
    with train_extra("reading YAML"):
        import yaml

    if path.exists() and not path.is_file():  # a pipe or a device would be read for ever
        raise _unreadable(path, "no regular file")
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(_LARGEST_YAML + 1)
        if len(text) > _LARGEST_YAML:
            raise _unreadable(path, f"more than {_LARGEST_YAML} characters")
        if _nodes(yaml.compose(text, Loader=yaml.SafeLoader)) > _MOST_NODES:
            raise _unreadable(path, f"more than {_MOST_NODES} entries, aliases written out")
        values = yaml.safe_load(text)
    except FileNotFoundError as error:
        raise _unreadable(path, "no such file") from error
    except RecursionError as error:
        raise _unreadable(path, "entries that are nested too deeply, or in themselves") from error
    # Dates that do not exist, keys that cannot be keys: the loader raises what Python raises.
    except (OSError, ValueError, TypeError, AttributeError, yaml.YAMLError) as error:
        if isinstance(error, InputError):
            raise
        raise _unreadable(path, one_line(error)) from error
    if not isinstance(values, dict):
        raise _unreadable(path, f"a {type(values).__name__}")
    return values


def _nodes(node: Any, seen: dict[int, float] | None = None) -> float:
    """Entries of a YAML file with every alias written out: a few lines can stand for billions."""
    seen = {} if seen is None else seen
    if node is None or isinstance(node.value, str):
        return 1
    if id(node) not in seen:
        seen[id(node)] = math.inf  # as long as it is walked: an entry in itself
        parts = [
            part for item in node.value for part in (item if isinstance(item, tuple) else [item])
        ]
        # Bounded, as it may have thousands of digits.
        seen[id(node)] = min(2.0 * _MOST_NODES, 1 + sum(_nodes(part, seen) for part in parts))
    return seen[id(node)]


def _unreadable(path: Path, received: str) -> InputError:
    return InputError(
        f"cannot read the configuration {path}",
        received=received,
        expected="a YAML mapping of options",
        fix="see falcon-ssl pretrain --print_config",
    )


def merged(values: Values, more: Values) -> dict[str, Any]:
    """``values`` with ``more`` over them, group by group.

    Example:
        >>> merged({"epochs": 1, "optim": {"lr": 0.1, "trust": 1}}, {"optim": {"lr": 0.2}})
        {'epochs': 1, 'optim': {'lr': 0.2, 'trust': 1}}
    """
    result = dict(values)
    for key, value in more.items():
        old = result.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        result[key] = merged(old, value) if both else value  # type: ignore[arg-type]
    return result


def flat_mapping(values: Values, prefix: str = "") -> dict[str, Any]:
    """Nested options by their full names.

    Example:
        >>> flat_mapping({"epochs": 1, "optim": {"lr": 0.1}})
        {'epochs': 1, 'optim.lr': 0.1}
    """
    found: dict[str, Any] = {}
    for key, value in values.items():
        is_group = isinstance(value, Mapping)
        found |= flat_mapping(value, f"{prefix}{key}.") if is_group else {f"{prefix}{key}": value}
    return found


def build(kind: Any, values: Values, *, path: str = "") -> Any:
    """A dataclass from the values of its fields; those that are dataclasses are groups of options.

    Args:
        kind: The dataclass.
        values: Nested plain values, see `typed`; what is missing keeps its default.
        path: Of this group in the whole, for error messages.

    Raises:
        InputError: An unknown or missing key (named with its path), or a value of the wrong type.

    Example:
        >>> from falcon_ssl.config import OptimConfig
        >>> build(OptimConfig, {"lr": "1e-3"}).lr
        0.001
    """
    types, fields = get_type_hints(kind), dataclasses.fields(kind)
    known = [field.name for field in fields]
    for key in values:
        if key not in known:
            raise InputError(
                "unknown option",
                received=f"{path}{key}",
                expected=f"one of {', '.join(known)}",
                fix=did_you_mean(key, known, before=path),
            )
    needed = [f.name for f in fields if f.default is f.default_factory is dataclasses.MISSING]
    missing = [path + name for name in needed if name not in values]
    if missing:
        received = ", ".join(map(str, values)) or "nothing"
        raise InputError(
            f"missing {', '.join(missing)}", received=received, expected=", ".join(known)
        )
    return kind(**{key: typed(path + key, value, types[key]) for key, value in values.items()})


def typed(name: str, value: Any, kind: Any) -> Any:
    """``value`` as the type of its option.

    Args:
        name: Of the option, for error messages.
        value: A plain value, or a string that states one: a word of the command line, or 1e-8, which YAML reads as a
            word. Lists may be strings too: "1,2" or "[1,2]".
        kind: int, float, bool, str, Any, a Literal of strings, a dataclass; tuples, mappings and ``| None`` of them.

    Raises:
        InputError: It is of another type.

    Example:
        >>> typed("seeds", "0,1", tuple[int, ...])
        (0, 1)
    """
    wrong = InputError(f"{name} has the wrong type", received=repr(value), expected=describe(kind))
    inner = without_none(kind)
    if inner is not kind and value in (None, "null"):
        return None
    origin, parts = get_origin(inner), get_args(inner)
    if inner is Any:
        return value
    if dataclasses.is_dataclass(inner) or origin is collections.abc.Mapping:
        if isinstance(value, str) and (first := named_by(inner)):
            value = {first: value}
        if not isinstance(value, Mapping):
            raise wrong
        if origin is None:
            return build(inner, value, path=f"{name}.")
        return {str(key): typed(f"{name}.{key}", item, parts[1]) for key, item in value.items()}
    if origin is Literal:
        if value in parts:
            return value
        raise InputError(
            f"unknown {name}",
            received=value,
            expected=describe(kind),
            fix=did_you_mean(value, choices(kind)),
        )
    if origin is tuple:
        items = _items(value) if isinstance(value, str) else value
        several = parts[-1] is Ellipsis
        if isinstance(items, (list, tuple)) and (several or len(items) == len(parts)):
            kinds = parts[:1] * len(items) if several else parts
            with suppress(InputError):
                return tuple(typed(name, item, one) for item, one in zip(items, kinds, strict=True))
        raise wrong
    try:
        return _scalar(value, inner)
    except (TypeError, ValueError, KeyError):
        raise wrong from None


def named_by(kind: Any) -> str | None:
    """The first option of a group, where that is a name: ``encoder: resnet18`` stands for its ``name: resnet18``.

    Example:
        >>> from falcon_ssl.config import EncoderConfig, OptimConfig
        >>> named_by(EncoderConfig), named_by(OptimConfig)
        ('name', None)
    """
    if not dataclasses.is_dataclass(kind):
        return None
    first = dataclasses.fields(kind)[0].name
    return first if without_none(get_type_hints(kind)[first]) is str else None


def _items(text: str) -> list[str]:
    """The entries of a list in one string: "a,b" or "[a, b]"."""
    inner = text.strip().removeprefix("[").removesuffix("]").strip()
    return [item.strip() for item in inner.split(",")] if inner else []


def _scalar(value: Any, kind: type) -> Any:
    if kind is bool:
        return value if isinstance(value, bool) else {"true": True, "false": False}[value]
    if type(value) is kind:
        return value
    if isinstance(value, str) or (kind is float and type(value) is int):
        return kind(value)
    raise TypeError


def describe(kind: Any) -> str:
    """What an option takes, in words.

    Example:
        >>> describe(int | None), describe(Literal["a", "b"]), describe(tuple[float, float])
        ('an integer or null', 'a or b', 'a list of 2 numbers')
    """
    inner, parts = without_none(kind), get_args(without_none(kind))
    null = ["null"] if inner is not kind else []
    if get_origin(inner) is tuple:
        count = "" if parts[-1] is Ellipsis else f"{len(parts)} "
        words = [f"a list of {count}{_SEVERAL.get(parts[0]) or describe(parts[0])}"]
    else:
        words = choices(inner) or [_KINDS.get(inner, "a mapping")]
    *first, last = words + null
    return f"{', '.join(first)} or {last}" if first else last


def without_none(kind: Any) -> Any:
    """The type of an option apart from null."""
    if get_origin(kind) not in (Union, UnionType):
        return kind
    (inner,) = (part for part in get_args(kind) if part is not NoneType)
    return inner


def as_yaml(value: Any) -> str:
    """A plain value as YAML and the command line write it.

    Example:
        >>> as_yaml(None), as_yaml(True), as_yaml(0.1)
        ('null', 'true', '0.1')
    """
    return {"None": "null", "True": "true", "False": "false"}.get(str(value), str(value))


def choices(kind: Any) -> list[str]:
    """The words that a Literal or a bool may be; none for other types."""
    words = ("true", "false") if kind is bool else get_args(kind)
    return list(map(str, words)) if kind is bool or get_origin(kind) is Literal else []
