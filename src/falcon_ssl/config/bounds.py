"""Options: default, meaning and bounds of each in one place, and the one check of all bounds.

@dataclass(frozen=True)
class SwAVConfig(Options, group="swav"):
    temperature: float = option(0.1, "T of the predictions.", above=0)
"""

from __future__ import annotations

import inspect
import math
import operator
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from typing import ClassVar, TypeVar

from falcon_ssl.core.errors import InputError

T = TypeVar("T")

_SIGNS = {
    "at_least": (">=", operator.ge),
    "above": (">", operator.gt),
    "at_most": ("<=", operator.le),
    "below": ("<", operator.lt),
}


def option(default: T, text: str, *, needs: str = "", **bounds: float) -> T:
    """A field of a group of options.

    Args:
        default: Its default; where the type admits None, that is always accepted.
        text: Its meaning, as --help prints it.
        needs: Another option of the group, option=value or option=value|value, without which this one has no effect.
        bounds: at_least, above, at_most or below; they hold for every entry of a tuple.
    """
    assert bounds.keys() <= _SIGNS.keys()
    metadata = {"text": text, "needs": needs, "bounds": bounds}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Options:
    """Base of every group of options: completes its docstring by the options, and checks them when it is made.

    Raises:
        InputError: A value out of its bounds, or one that has no effect; names group and option.
    """

    group: ClassVar[str]  # its name in the configuration; "" is the whole

    def __init_subclass__(cls, *, group: str) -> None:
        cls.group = group
        options = {n: f for n, f in vars(cls).items() if isinstance(f, Field)}
        lines = [f"    {n}: {f.metadata['text']}" for n, f in options.items() if f.metadata]
        if lines:
            cls.__doc__ = "\n".join([inspect.cleandoc(cls.__doc__ or ""), "", "Args:", *lines])

    def __post_init__(self) -> None:
        prefix = self.group and f"{self.group}."
        for of in fields(self):
            name, value = prefix + of.name, getattr(self, of.name)
            optional = str(of.type).endswith("| None")  # annotations are text
            if (bounds := of.metadata.get("bounds")) and not (value is None and optional):
                entries = value if isinstance(value, tuple) else (value,)
                check_bounds(f"number of entries of {name}", len(entries), {"at_least": 1})
                for entry in entries:
                    check_bounds(name, entry, bounds)
            needs = of.metadata.get("needs")
            if needs and value != of.default and not self._has(needs):
                raise InputError(
                    f"{name} does nothing without {prefix}{needs}",
                    received=value,
                    expected=prefix + needs,
                )

    def _has(self, needs: str) -> bool:
        name, _, wanted = needs.partition("=")
        value = getattr(self, name)
        return str(value).lower() in wanted.split("|") if wanted else bool(value)

    def changed(self) -> list[str]:
        """Names of the options that are not at their defaults."""
        return [of.name for of in fields(self) if getattr(self, of.name) != of.default]


def check_bounds(name: str, value: object, bounds: Mapping[str, float]) -> None:
    """Raise InputError unless ``value`` is a finite number within its bounds; NaN never passes.

    Example:
        >>> check_bounds("swav.queue_starts", 0.5, {"at_least": 0, "at_most": 1})
    """
    if not isinstance(value, (int, float)):
        wrong = "has the wrong type"
    elif value == math.inf:
        wrong = "is not finite"
    elif all(_SIGNS[kind][1](value, bound) for kind, bound in bounds.items()):
        return
    elif len(bounds) > 1:
        wrong = "is out of range"
    else:
        wrong = "is not positive" if bounds == {"above": 0} else "is too small"
    raise InputError(
        f"{name} {wrong}",
        received=repr(value),
        expected=" and ".join(f"{_SIGNS[kind][0]} {bound}" for kind, bound in bounds.items()),
        fix=f"see falcon-ssl {'finetune' if name.startswith('finetune.') else 'pretrain'} --help",
    )
