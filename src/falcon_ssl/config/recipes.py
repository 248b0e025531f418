"""Configurations that come with the library, by name: recipes of a run and grids of many."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Literal, TypeAlias

from falcon_ssl.core.errors import InputError, did_you_mean

Folder: TypeAlias = Literal["recipes", "grids"]


def recipe_names() -> list[str]:
    """Names that --config takes besides files."""
    return _names("recipes")


def recipe_path(name: str) -> Path:
    """The path of a recipe by name, or a file's path as it is. InputError: neither."""
    return _path(name, "recipes", "no such configuration")


def grid_names() -> list[str]:
    """Names that `reproduce` takes besides files."""
    return _names("grids")


def grid_path(name: str) -> Path:
    """The path of a grid by name, or a file's path as it is. InputError: neither."""
    return _path(name, "grids", "no such grid")


def _names(folder: Folder) -> list[str]:
    files = _root(folder).rglob("*.yaml")
    names = [path.relative_to(_root(folder)).with_suffix("").as_posix() for path in files]
    return sorted(names, key=lambda name: ("/" in name, name))  # those in sub-folders last


def _root(folder: Folder) -> Path:
    return Path(str(resources.files("falcon_ssl.config") / folder))


def _path(name: str, folder: Folder, what: str) -> Path:
    if name in _names(folder):
        return _root(folder) / f"{name}.yaml"
    if Path(name).is_file():
        return Path(name)
    raise InputError(
        what,
        received=name,
        expected=f"a YAML file or one of {', '.join(_names(folder))}",
        fix=did_you_mean(name, _names(folder)),
    )
