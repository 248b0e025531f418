"""Every option of every command reaches the function that does the work: none is read and dropped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, get_args

import pytest

from falcon_ssl import commands
from falcon_ssl.cli.commands import COMMANDS
from falcon_ssl.cli.options import Option, options_of
from falcon_ssl.cli.parser import parse
from falcon_ssl.commands import studies
from falcon_ssl.config.mapping import choices, without_none

WORK: dict[str, tuple[Any, str]] = {
    **{name: (commands, name) for name in ("evaluate", "diagnose", "baseline", "embed", "search")},
    **{name: (commands, name) for name in ("duplicates", "finetune", "export", "speedrun")},
    **{name: (studies, name) for name in ("sweep", "tune", "reproduce")},
    "pretrain": (commands, "pretrain"),
    "views": (commands, "views_sheet"),
}
# What the command line does itself.
OWN = {"diagnose": {"fail_on_collapse"}, "reproduce": {"dry_run"}, "speedrun": {"recipe"}}


class _Caught(Exception):  # with what was passed
    pass


def catch(*args: Any, **options: Any) -> None:
    raise _Caught(args, options)


def other_than_default(option: Option, number: int) -> tuple[list[str], Any]:
    """The words of an option, and the value that they state; ``number`` tells numbers and names apart."""
    kind = without_none(option.kind)
    words = [] if option.is_positional else [f"--{option.name}"]
    if option.is_flag:
        return words, True
    if option.is_mapping:
        return [*words, f"a=b{number}"], {"a": f"b{number}"}
    if option.is_list:
        (_, one), several = other_than_default(_of(option, get_args(kind)[0]), number), True
    else:
        one, several = _value(option, kind, number), False
    word = str(one).lower() if isinstance(one, bool) else str(one)
    return [*words, word], (one,) if several else one


def _of(option: Option, kind: Any) -> Option:
    return Option(option.name, kind, MISSING, "", "", option.is_positional)


def _value(option: Option, kind: Any, number: int) -> Any:
    if kind is bool:
        return not option.default
    if words := choices(kind):
        return next(word for word in words if word != option.default)
    return {int: 100 + number, float: 0.001 * number}.get(kind, f"word{number}")


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Everything in what was passed, by the last part of its name."""
    yield name, value
    if isinstance(value, Mapping):
        for key, entry in value.items():
            yield from leaves(entry, str(key))
    elif is_dataclass(value):
        for field in fields(value):
            yield from leaves(getattr(value, field.name), field.name)


def not_passed(name: str) -> list[str]:
    """Options of a command that do not reach what stands for its work."""
    words: list[str] = []
    expected: dict[str, Any] = {}
    own = [option for option in options_of(COMMANDS[name]) if not option.title]
    for number, option in enumerate(own, start=1):
        if option.name not in OWN.get(name, ()):
            more, value = other_than_default(option, number)
            words, expected[option.name] = words + more, value
    arguments = parse(name, COMMANDS[name], words)
    arguments.pop("trust_code", None)
    with pytest.raises(_Caught) as caught:
        COMMANDS[name](**arguments)
    args, options = caught.value.args
    passed = [*leaves(options), *(leaf for one in args for leaf in leaves(one))]
    passed += [(key, one) for key in expected for one in args]
    # Of several sets of images one is evaluated at a time.
    alone = {k: v[0] if k == "data" and isinstance(v, tuple) else v for k, v in expected.items()}
    return [key for key, value in alone.items() if (key, value) not in passed]


@pytest.mark.parametrize("name", WORK)
def test_every_option_reaches_the_work(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*WORK[name], catch)
    assert not_passed(name) == []


def test_one_that_is_dropped_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def drops(*args: Any, checkpoint: str, **options: Any) -> None:
        catch(*args, **options)

    monkeypatch.setattr(commands, "embed", drops)
    assert not_passed("embed") == ["checkpoint"]
