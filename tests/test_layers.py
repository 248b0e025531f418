"""Imports go down the floors of docs/architecture.md, never up or sideways."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "falcon_ssl"

FLOORS = {
    "_version": 0, "errors": 0, "checks": 0, "config": 0, "config_mapping": 0, "config_methods": 0,
    "distributed": 0, "devices": 0, "matmul": 0,
    "batchnorm": 1, "temperature": 1, "dictionary": 1, "dictionary_hadamard": 1,
    "dictionary_complete": 1, "dictionary_coherence": 1, "dictionary_prototypes": 1,
    "encoders": 1, "data": 1, "views": 1,
    "projector": 2,
    "losses": 3,
    "methods": 4, "monitor": 4,
    "engine": 5, "evaluation": 5,
    "report": 6,
    "runs": 7, "judging": 7, "diagnosing": 7, "commands": 7, "studies": 7,
    "grid": 7, "cells": 7, "calibration": 7, "reproduce": 7, "cli": 7, "cli_parser": 7, "cli_help": 7,
    "__main__": 7, "__init__": 7,
}  # fmt: skip
# Inside one floor only these look at each other, and never in a circle.
SIDEWAYS = {
    ("checks", "errors"), ("config", "errors"), ("config", "config_methods"),
    ("config", "config_mapping"), ("config_mapping", "errors"),
    ("config_methods", "errors"), ("distributed", "errors"), ("distributed", "checks"),
    ("encoders", "batchnorm"), ("monitor", "methods"), ("dictionary_hadamard", "dictionary"),
    ("dictionary_complete", "dictionary"), ("dictionary_coherence", "dictionary"),
    ("judging", "runs"), ("diagnosing", "runs"), ("diagnosing", "judging"), ("commands", "diagnosing"),
    ("studies", "runs"), ("studies", "judging"), ("commands", "runs"), ("commands", "judging"), ("studies", "commands"),
    ("cli_parser", "cli_help"), ("cli", "cli_parser"), ("cli", "commands"), ("cli", "studies"), ("__main__", "cli"),
    ("cells", "commands"), ("calibration", "cells"), ("calibration", "grid"), ("calibration", "judging"),
    ("calibration", "runs"),
    ("reproduce", "calibration"), ("reproduce", "cells"), ("reproduce", "grid"), ("reproduce", "judging"),
    ("reproduce", "runs"), ("cli", "reproduce"), ("cli", "grid"), ("cli_parser", "grid"),
}  # fmt: skip
ONLY_HERE = {
    "torch.distributed": {"distributed.py"},
    "triton": {"losses/falcon_triton.py", "losses/falcon_triton_kernels.py"},
}
FILES = sorted(PACKAGE.rglob("*.py"))


def imported_modules(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(str(node.module))
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def unit_of(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def violations(path: Path, modules: set[str]) -> list[str]:
    unit, wrong = unit_of(path), []
    for module in sorted(modules):
        parts = module.split(".")
        if parts[0] == "falcon_ssl" and len(parts) > 1 and parts[1] in FLOORS:
            other = parts[1]
            sideways = FLOORS[other] == FLOORS[unit] and other != unit
            if FLOORS[other] > FLOORS[unit] or (sideways and (unit, other) not in SIDEWAYS):
                wrong.append(
                    f"{unit} (floor {FLOORS[unit]}) imports {other} (floor {FLOORS[other]})"
                )
        for name, allowed in ONLY_HERE.items():
            here = str(path.relative_to(PACKAGE))
            if (module == name or module.startswith(name + ".")) and here not in allowed:
                wrong.append(f"{here} imports {module}")
        if unit == "report" and parts[0] == "torch":
            wrong.append("report imports torch")
    return wrong


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path: Path) -> None:
    assert unit_of(path) in FLOORS, "a new module needs a floor"
    assert violations(path, imported_modules(path)) == []


@pytest.mark.parametrize(
    ("path", "module"),
    [
        ("losses/falcon.py", "falcon_ssl.projector.x.methods"),
        ("losses/falcon.py", "falcon_ssl.methods"),
        ("evaluation/knn.py", "falcon_ssl.engine.trainer"),
        ("engine/trainer.py", "torch.distributed"),
        ("report/html.py", "torch"),
    ],
)
def test_the_check_can_fail(path: str, module: str) -> None:
    expected = module != "falcon_ssl.projector.x.methods"
    assert bool(violations(PACKAGE / path, {module})) is expected


def test_no_file_is_called_utils_and_all_are_short() -> None:
    assert not [path for path in FILES if path.stem == "utils"]
    assert {
        str(path): lines
        for path in FILES
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > 400
    } == {}


HEAVY = ("sklearn", "datasets", "timm", "kornia", "accelerate", "jsonargparse")


@pytest.mark.parametrize(
    ("statement", "unwanted"),
    [
        ("from falcon_ssl import FalconLoss, FalconProjector, RademacherDictionary", HEAVY),
        ("import falcon_ssl.report", ("torch", *HEAVY)),
    ],
)
def test_importing_a_part_stays_light(statement: str, unwanted: tuple[str, ...]) -> None:
    """The loss drops into any training loop without data packages; a report is rebuilt without torch."""
    code = f"import sys\n{statement}\nprint([m for m in {unwanted!r} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
