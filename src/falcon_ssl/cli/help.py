"""How the command line speaks: help that says what an option means, complaints in one line."""

from __future__ import annotations

import re
import sys
from argparse import Action
from collections.abc import Iterable
from types import UnionType
from typing import Any, Literal, NoReturn, Union, get_args, get_origin

from jsonargparse import ArgumentParser, DefaultHelpFormatter

_TYPES = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "a word",
    "tuple": "a list such as [a,b]",
    "NoneType": "null",
}


class Parser(ArgumentParser):
    """An argument parser that complains in one line, with exit code 2."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Say what is wrong and where help is."""
        program = self.prog.replace(" [options]", "")
        missing = re.fullmatch(r"the following arguments are required: (\w+)\.(\w+)", message)
        if missing:
            program = f"falcon-ssl {missing[1]}"
            message = f"{missing[1]} needs to be told: {missing[2]}"
        sys.stderr.write(f"falcon-ssl: error: {plain(message)} ({program} --help)\n")
        sys.exit(2)


class Formatter(DefaultHelpFormatter):
    """One line of usage; for every option its choices, meaning and default."""

    def add_usage(
        self, usage: str | None, actions: Iterable[Action], *args: Any, **kwargs: Any
    ) -> None:
        """Name what must be given; the rest is listed below."""
        needed = []
        for action in actions:
            if action.option_strings:
                if action.required:
                    needed.append(f"{action.option_strings[0]} {action.dest.upper()}")
            else:
                needed.append(str(action.metavar or action.dest).upper())
        program = self._prog.replace(" [options]", "")
        super().add_usage(" ".join([program, *needed, "[options]"]), actions, *args, **kwargs)

    def add_argument(self, action: Action) -> None:
        """List an option, unless it is a whole group: those are for files, not for the command line."""
        if action.help != "Path to a configuration file.":
            super().add_argument(action)

    def _get_help_string(self, action: Action) -> str:
        """Meaning and default; what words an option takes stands beside its name."""
        text = super()._get_help_string(action)
        text = re.sub(r"(, )?type: %\(type\)s(, )?", "", text)
        return re.sub(r" \((required)?\)$", "", text)

    def _get_default_metavar_for_optional(self, action: Action) -> str:
        choices = _choices(getattr(action, "_typehint", None))
        return "{" + ",".join(choices) + "}" if choices else action.dest.rsplit(".")[-1].upper()


def _choices(kind: Any) -> list[str]:
    """The words that an option takes, where it takes words of a list, or null."""
    if get_origin(kind) in (Union, UnionType):
        found = [_choices(part) for part in get_args(kind) if part is not type(None)]
        return [*found[0], "null"] if found and found[0] else []
    return [str(word) for word in get_args(kind)] if get_origin(kind) is Literal else []


def plain(message: str) -> str:
    r"""What is wrong, in one line and without names of Python types.

    Example:
        >>> plain("Parser key \"epochs\":\n  Expected a <class 'int'>. Got value: three")
        '--epochs: received three, expected a whole number'
    """
    message = message.replace(" does not accept option ", " has no option ")
    key = re.match(r'Parser key "([\w.]+)":', message)
    given = re.findall(r"(?:Given value|Got value): (.*)", message)
    wanted = re.findall(r"Expected a (?:typing\.)?(Literal\[.*?\]|<class '\w+'>)", message)
    if key and given and wanted:
        expected = " or ".join(dict.fromkeys(_in_words(kind) for kind in wanted))
        return f"--{key[1]}: received {given[-1]}, expected {expected}"
    return " ".join(message.split())


def _in_words(kind: str) -> str:
    if kind.startswith("Literal"):
        return ", ".join(re.findall(r"'([^']*)'", kind))
    name = kind.split("'")[1]
    return _TYPES.get(name, name)
