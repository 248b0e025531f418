"""From words to the arguments of a command.

argparse collects the words and prints the help; `falcon_ssl.config.mapping` checks them, as it does values of YAML.
"""

from __future__ import annotations

import re
import textwrap
from argparse import SUPPRESS, ArgumentParser, HelpFormatter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING
from pathlib import Path
from typing import Any, NoReturn, get_type_hints

from falcon_ssl.cli.options import Option, first_line, options_of
from falcon_ssl.config.mapping import build, merged, named_by, read_yaml, typed
from falcon_ssl.config.recipes import recipe_names, recipe_path
from falcon_ssl.config.run import RunConfig
from falcon_ssl.config.sources import joined_name
from falcon_ssl.core.errors import InputError, did_you_mean
from falcon_ssl.records.folder import CONFIG

Command = Callable[..., None]
RUNNING_NO_CODE = ("demo", "report", "compare", "runs", "watch")  # whatever a run folder names


class UsageError(ValueError):
    """Words that are no command: says what is wrong, and how to get help."""


def overview(commands: Mapping[str, Command]) -> str:
    """What ``falcon-ssl --help`` prints."""
    lines = [
        "usage: falcon-ssl COMMAND [options]\n",
        "Collapse-proof self-supervised pretraining of image encoders (FALCON, arXiv 2410.04959).\n",
        "commands:",
    ]
    for name, command in commands.items():
        text = f"  {name:<12}{first_line(command)}"
        lines.append(textwrap.fill(text, 80, subsequent_indent=" " * 14))
    return "\n".join([*lines, "\nfalcon-ssl COMMAND --help lists the options of a command."])


def parse(name: str, command: Command, words: Sequence[str]) -> dict[str, Any]:
    """The keyword arguments of a command, from the words that were typed after its name.

    Later --config win over earlier ones, and options over all. ``print_config`` is among the arguments if the
    configuration shall be printed instead, ``trust_code`` if code that files name may be run.

    Raises:
        UsageError: Unknown, missing or incomplete options.
        InputError: Values of a wrong type or out of range.
        SystemExit: After --help.
    """
    hints = get_type_hints(command)
    options = {option.name: option for option in options_of(command)}
    words = [_full_name(word, options) for word in words]
    is_complete = "--print_config" not in words
    parser = _parser(name, command, options.values(), is_complete=is_complete)
    found, unknown = parser.parse_known_args(words)
    if unknown:
        word = unknown[0].partition("=")[0]
        placed = options.get(word.removeprefix("--"))
        if word.startswith("--") and placed is not None and placed.is_positional:
            parser.error(f"unknown option {word}, {placed.metavar} stands without it")
        what = "option" if word.startswith("--") else "argument"
        hint = did_you_mean(word, (f"--{n}" for n, one in options.items() if not one.is_positional))
        parser.error(", ".join(filter(None, [f"unknown {what} {word}", hint])))
    given: dict[str, Any] = vars(found)
    configs = given.pop("config", [])
    general = {key: given.pop(key) for key in ("print_config", "trust_code") if key in given}
    values: dict[str, Any] = {}
    for key, value in given.items():
        group, _, last = key.rpartition(".")
        place = values.setdefault(group, {}) if group else values
        place[last] = _plain(options[key], value)
    arguments = {key: typed(key, values.pop(key), hints[key]) for key in hints if key in values}
    if "config" in hints:
        arguments["config"] = _run_config(values, configs, arguments)
    return arguments | general


def _full_name(word: str, options: Mapping[str, Option]) -> str:
    """A word with the name of its option in full: a group's name stands for its first option, where that is a name too.

    ``--init runs/photos`` is ``--init.weights runs/photos``, ``--encoder resnet18`` is ``--encoder.name resnet18``.
    """
    found = re.match(r"--([\w-]+)(?=$|=)", word)
    if not found:
        return re.sub(r"^--[\w-]+", lambda m: f"--{m[0][2:].replace('-', '_')}", word)
    name = found[1].replace("-", "_")
    hints = get_type_hints(RunConfig)
    if name not in options and (first := named_by(hints.get(name))):
        name = f"{name}.{first}" if f"{name}.{first}" in options else name
    return f"--{name}{word[found.end() :]}"


def _plain(option: Option, value: Any) -> Any:
    """What was given for an option as YAML would have it, and lists as one string."""
    if option.is_list and not option.is_positional:
        return ",".join(value)
    if option.is_joined:
        return joined_name(value)
    if not option.is_mapping:
        return value
    for pair in value:
        if "=" not in pair:
            raise InputError(
                f"{option.name} has the wrong type", received=pair, expected="NAME=VALUE"
            )
    return dict(pair.split("=", 1) for pair in value)


def _run_config(
    values: Mapping[str, Any], configs: Sequence[str], arguments: Mapping[str, Any]
) -> RunConfig:
    """The options of the run that is resumed, then those of every --config, then the typed ones; later ones win."""
    paths = [recipe_path(config) for config in configs]
    resumed = Path(arguments.get("out", "")) / CONFIG
    if arguments.get("resume") and resumed.is_file():
        paths.insert(0, resumed)
    options: Mapping[str, Any] = {}
    for path in paths:
        options = merged(options, read_yaml(path))
    config: RunConfig = build(RunConfig, merged(options, values))
    return config


class _Formatter(HelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32)

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(text, width, break_on_hyphens=False)


class _Parser(ArgumentParser):
    def error(self, message: str) -> NoReturn:
        message = message.replace("the following arguments are required:", "missing argument")
        name = self.prog.removeprefix("falcon-ssl ")
        raise UsageError(f"{name}: {message.removeprefix('argument ')} ({self.prog} --help)")


def _parser(
    name: str, command: Command, options: Iterable[Option], *, is_complete: bool
) -> _Parser:
    """Collects words; where they need not be complete, nothing is required."""
    needed = [option for option in options if option.default is MISSING]
    usage = [o.metavar if o.is_positional else f"--{o.name} {o.metavar}" for o in needed]
    usage += [f"[{o.metavar}]" for o in options if o.is_positional and o.default is not MISSING]
    parser = _Parser(
        prog=f"falcon-ssl {name}",
        usage=" ".join([f"falcon-ssl {name}", *usage, "[options]"]),
        description=f"{first_line(command)}.",
        formatter_class=_Formatter,
        argument_default=SUPPRESS,
        allow_abbrev=False,
    )
    groups: dict[str, Any] = {"": parser}
    for option in options:
        if option.title not in groups:
            groups[option.title] = parser.add_argument_group(option.title)
        names = (option.name,) if option.is_positional else (f"--{option.name}",)
        about: dict[str, Any] = {"help": option.help.replace("%", "%%")}
        if option.is_flag and option.words:
            about |= {"nargs": "?", "const": True, "metavar": option.metavar}
        elif option.is_flag:
            about["action"] = "store_true"
        else:
            about["metavar"] = option.metavar
        if option.is_list or option.is_mapping or option.is_joined:
            about["nargs"] = "+"
        elif option.is_positional and option.default is not MISSING:
            about["nargs"] = "?"
        if not option.is_positional:
            about["required"] = is_complete and option.default is MISSING
        groups[option.title].add_argument(*names, **about)
    if "config" in get_type_hints(command):
        recipes = f"YAML file, or a recipe: {', '.join(recipe_names())}."
        parser.add_argument("--config", action="append", metavar="FILE", help=recipes)
        parser.add_argument(
            "--print_config",
            action="store_true",
            help="Print the options of the run as YAML, and end.",
        )
    if name not in RUNNING_NO_CODE:
        parser.add_argument(
            "--trust_code",
            action="store_true",
            help="Run code that a run, a table or an option names: python:MODULE:FUNCTION can do whatever you can.",
        )
    return parser
