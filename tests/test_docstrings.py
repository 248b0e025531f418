"""Every example in a docstring runs; public names have one, and describe their arguments."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import re

import pytest
import torch

import falcon_ssl
import falcon_ssl.dictionary
import falcon_ssl.losses

MODULES = [
    module.name
    for module in pkgutil.walk_packages(falcon_ssl.__path__, "falcon_ssl.")
    if "triton" not in module.name and not module.name.endswith("__main__")
]
PUBLIC = [name for name in falcon_ssl.__all__ if not name.startswith("_")]
DESCRIBED = {
    f"{module.__name__}.{name}": getattr(module, name)
    for module in (falcon_ssl, falcon_ssl.losses, falcon_ssl.dictionary)
    for name in module.__all__
    if not name.startswith("_")
}


def examples(name: str) -> int:
    """How many there are in a module; fails where one does."""
    torch.manual_seed(0)
    module = importlib.import_module(name)
    result = doctest.testmod(module, extraglobs={"torch": torch})
    assert result.failed == 0
    return result.attempted


def undescribed(thing: object) -> list[str]:
    """Arguments that the docstring says nothing about."""
    parameters = inspect.signature(thing).parameters  # type: ignore[arg-type]
    text = inspect.getdoc(thing) or ""
    named = [
        name for name, p in parameters.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    return [name for name in named if not re.search(rf"^    (\w+, )*{name}(, \w+)*: ", text, re.M)]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    examples(name)


def test_examples_are_found_and_can_fail() -> None:
    assert examples("falcon_ssl.core.theory") > 2
    broken = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "broken", None, 0)
    assert doctest.DocTestRunner(verbose=False).run(broken, out=lambda _: None).failed == 1


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_have_an_example(name: str) -> None:
    assert ">>>" in (inspect.getdoc(getattr(falcon_ssl, name)) or "")


@pytest.mark.parametrize("name", DESCRIBED)
def test_public_names_describe_their_arguments(name: str) -> None:
    assert undescribed(DESCRIBED[name]) == []
