"""The public names and signatures are those of tests/api.txt: a change is a decision, and an entry of the changelog.

FALCON_UPDATE_API=1 pytest tests/test_api.py        writes the file again.
"""

from __future__ import annotations

import difflib
import inspect
import os
from importlib import import_module
from pathlib import Path

import falcon_ssl

SNAPSHOT = Path(__file__).with_name("api.txt")
# With signatures: what code of users calls. Of the other rooms the names.
CALLED = ("falcon_ssl", "falcon_ssl.commands", "falcon_ssl.report", "falcon_ssl.report.figures")
ROOMS = ("config", "data", "dictionary", "evaluation", "losses", "methods", "networks", "views")


def names(module: str) -> list[str]:
    found = import_module(module)
    listed = getattr(found, "__all__", None) or [
        name
        for name, value in vars(found).items()
        if inspect.isfunction(value) and value.__module__ == module
    ]
    return sorted(name for name in listed if not name.startswith("_"))


def public() -> list[str]:
    """A line for every name."""
    lines = []
    for module in CALLED:
        for name in names(module):
            thing = getattr(import_module(module), name)
            lines.append(f"{module}.{name}{inspect.signature(thing)}")
    for room in ROOMS:
        module = f"falcon_ssl.{room}"
        lines += [f"{module}.{name}" for name in names(module)]
    return lines


def test_public_names_and_signatures_change_only_on_purpose() -> None:
    now = public()
    if os.environ.get("FALCON_UPDATE_API"):
        SNAPSHOT.write_text("\n".join(now) + "\n", encoding="utf-8")
    before = SNAPSHOT.read_text(encoding="utf-8").splitlines()
    changes = [line for line in difflib.ndiff(before, now) if line[0] in "+-"]
    assert not changes, "\n".join([*changes, "on purpose? " + (__doc__ or "").splitlines()[2]])


def test_names_are_found() -> None:
    lines = public()
    assert len(lines) > 150
    assert any(line.startswith("falcon_ssl.FalconLoss(dictionary") for line in lines)
    assert any(line.startswith("falcon_ssl.report.figures.spectrum(run") for line in lines)


def test_types_are_shipped() -> None:
    assert (Path(falcon_ssl.__file__).parent / "py.typed").is_file()
