"""Every example in a docstring runs."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest
import torch

import falcon_ssl

MODULES = [
    module.name
    for module in pkgutil.walk_packages(falcon_ssl.__path__, "falcon_ssl.")
    if "triton" not in module.name and not module.name.endswith("__main__")
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    module = importlib.import_module(name)
    torch.manual_seed(0)
    result = doctest.testmod(module, extraglobs={"torch": torch})
    assert result.failed == 0


def test_public_names_have_docstrings_with_examples() -> None:
    assert all(getattr(falcon_ssl, name).__doc__ for name in falcon_ssl.__all__ if name[0] != "_")
