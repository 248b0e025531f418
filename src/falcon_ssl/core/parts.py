"""A user's own parts by name: "python:MODULE:FUNCTION" is what an importable function returns.

A run is what its ``config.yaml`` says, so a part is stated there by the name of what makes it: whoever reads the run,
in this process or another, makes it again, where that code is trusted (`falcon_ssl.core.consent`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib import import_module
from operator import attrgetter
from typing import TypeVar

from falcon_ssl.core.consent import check_trusted
from falcon_ssl.core.errors import InputError

logger = logging.getLogger(__name__)

PREFIX = "python:"
Part = TypeVar("Part")
_handed_over: set[str] = set()  # by the user of this process, as functions: these are trusted


def is_part(name: str) -> bool:
    """Whether a name is that of a user's own part."""
    return name.startswith(PREFIX)


def part_name(what: str, make: Callable[..., object]) -> str:
    """The name of a function, or class; `make_part` then makes it in this process.

    Args:
        what: What it makes, for errors.
        make: Importable: neither a lambda nor defined inside another function.

    Raises:
        InputError: Not a function, or one that nobody could import.

    Example:
        >>> from torch import nn
        >>> part_name("encoder", nn.Flatten)
        'python:torch.nn.modules.flatten:Flatten'
    """
    if isinstance(make, str):
        raise InputError(
            f"{what} is a name",
            received=repr(make),
            expected=f"a function or class that returns the {what}",
            fix="names belong into the RunConfig",
        )
    module, own = getattr(make, "__module__", None), getattr(make, "__qualname__", None)
    name = f"{PREFIX}{module}:{own}"
    try:
        found = module is not None and own is not None and _imported(name) is make
    except (ImportError, AttributeError, ValueError):
        found = False
    if not found or not callable(make):
        raise InputError(
            f"{what} is not an importable function",
            received=own or f"an object of the type {type(make).__name__}",
            expected=f"a function or class, at the top of a module, that returns the {what}",
            fix="pass the function itself, uncalled: whoever reads the run later calls it again",
        )
    if module == "__main__":
        logger.warning("%s: %s is of a script, and only that script can read this run", what, own)
    _handed_over.add(name)
    return name


def make_part(what: str, name: str, *arguments: object) -> object:
    """Import and call what a name says.

    Args:
        what: What it makes, for errors.
        name: "python:MODULE:FUNCTION".
        arguments: What the function is called with: nothing, unless it makes a method.

    Raises:
        InputError: No consent to run it, before anything is imported; nothing to import, or nothing to call.
    """
    if name not in _handed_over:
        module, _, own = name.removeprefix(PREFIX).partition(":")
        check_trusted(f"the {what}", f"the function {own or '?'} of the module {module} ({name})")
    try:
        make = _imported(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            f"cannot import the {what}",
            received=f"{name!r}: {error}",
            expected=f"{PREFIX}MODULE:FUNCTION",
            fix="start where the module can be imported, for example with its folder in PYTHONPATH",
        ) from error
    if not callable(make):
        raise InputError(
            f"the {what} is not made by a function",
            received=f"{name!r}, an object of the type {type(make).__name__}",
            expected=f"a function or class that returns the {what}",
        )
    return make(*arguments)


def make_part_of(
    kind: type[Part], what: str, name: str, *arguments: object, returned: str, expected: str
) -> Part:
    """`make_part`, for a part that has a type.

    Args:
        kind: What it must be.
        what: As there, like the next two.
        name: As there.
        arguments: As there.
        returned: What it makes, with its article, for the error.
        expected: The type in words, for the error.

    Raises:
        InputError: As there, or a part of another type.
    """
    made = make_part(what, name, *arguments)
    if not isinstance(made, kind):
        received = f"an object of the type {type(made).__name__}"
        raise InputError(f"{name} does not return {returned}", received=received, expected=expected)
    return made


def _imported(name: str) -> object:
    module, own = name.removeprefix(PREFIX).split(":")
    return attrgetter(own)(import_module(module))
