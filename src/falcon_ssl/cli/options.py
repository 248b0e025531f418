"""The options of a command, read from its function: the signature says what there is, the docstring what it means."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Any, get_args, get_origin, get_type_hints

from falcon_ssl.config.mapping import as_yaml, choices, without_none
from falcon_ssl.config.run import RunConfig


@dataclass(frozen=True)
class Option:
    """One option of a command."""

    name: str  # with its group: "falcon.beta"
    kind: Any  # its type
    default: Any  # its default; MISSING where it must be given
    meaning: str  # for the help
    title: str = ""  # heading of its group in the help; empty for the command's own
    is_positional: bool = False  # whether it is given by its place alone

    @property
    def is_flag(self) -> bool:
        """Whether its name alone switches it on: what a command does, not how a run is configured."""
        takes_none = self.kind is bool or True in get_args(self.kind)
        return takes_none and self.default is False and not self.title

    @property
    def words(self) -> list[str]:
        """What may follow a flag all the same, as "auto" after --resume."""
        return [word for word in get_args(self.kind) if isinstance(word, str)]

    @property
    def is_list(self) -> bool:
        """Whether it takes several words."""
        return get_origin(without_none(self.kind)) is tuple

    @property
    def is_joined(self) -> bool:
        """Whether several words make one value: --data folder:A folder:B."""
        return self.name == "data" and without_none(self.kind) is str and not self.is_positional

    @property
    def is_mapping(self) -> bool:
        """Whether it takes NAME=VALUE words."""
        return get_origin(without_none(self.kind)) in (dict, Mapping)

    @property
    def metavar(self) -> str:
        """What stands for its value in the help."""
        kind = without_none(self.kind)
        if self.is_mapping:
            return "NAME=VALUE"
        if self.is_flag:
            return "|".join(self.words)
        if self.is_list:
            kind = get_args(kind)[0]
        if choices(kind):
            return "{" + ",".join(choices(kind) + ["null"] * (self.default is None)) + "}"
        return {int: "INT", float: "FLOAT"}.get(kind, self.name.rpartition(".")[2].upper())

    @property
    def help(self) -> str:
        """Its meaning and default."""
        if self.is_flag or self.default is MISSING:
            return self.meaning
        return f"{self.meaning} (default: {_as_typed(self.default)})"


def _as_typed(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(_as_typed, value)) or "[]"
    return as_yaml(value)


def options_of(function: Callable[..., None]) -> list[Option]:
    """The options of a command, groups of options last; those of a `RunConfig` have no name before them."""
    hints, meanings = get_type_hints(function), _meanings(function)
    own: list[Option] = []
    groups: list[Option] = []
    for name, parameter in inspect.signature(function).parameters.items():
        if is_dataclass(hints[name]):
            prefix = "" if hints[name] is RunConfig else f"{name}."
            groups += _group(hints[name], prefix, meanings[name])
        else:
            default = MISSING if parameter.default is parameter.empty else parameter.default
            is_positional = parameter.kind is not parameter.KEYWORD_ONLY
            own.append(Option(name, hints[name], default, meanings[name], "", is_positional))
    return own + groups


def _group(kind: Any, prefix: str, title: str) -> Iterator[Option]:
    """The options of a dataclass, and of the dataclasses in it."""
    hints, meanings = get_type_hints(kind), _meanings(kind)
    for field in fields(kind):
        name, hint = field.name, hints[field.name]
        if is_dataclass(hint):
            yield from _group(hint, f"{prefix}{name}.", first_line(hint))
        else:
            yield Option(prefix + name, hint, field.default, meanings[name], title.rstrip("."))


def first_line(documented: object) -> str:
    """What something is, from its docstring."""
    return (inspect.getdoc(documented) or "").partition("\n")[0].rstrip(".")


def _meanings(documented: object) -> dict[str, str]:
    """The entries of the section "Args:" of a docstring, by name."""
    _, _, section = (inspect.getdoc(documented) or "").partition("Args:\n")
    entries = re.findall(r"^    (\w+): (.*(?:\n {6,}.*)*)", section.partition("\n\n")[0], re.M)
    return {name: " ".join(text.replace("``", "").split()) for name, text in entries}
