"""Imports go down the floors of docs/architecture.md, never up or sideways; inside a room they are free."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "falcon_ssl"

FLOORS: list[set[str]] = [
    {"core"},
    {"config"},
    {"data", "dictionary", "networks", "records", "views"},
    {"evaluation", "losses", "report"},
    {"methods"},
    {"engine"},
    {"commands"},
    {"cli"},
    {"__init__", "__main__"},
]
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
NO_TORCH = {"config", "records", "report", "cli"}
ONLY_HERE = {
    "torch.distributed": {"core/distributed.py", "core/sharding.py"},
    "triton": {
        "losses/falcon/triton.py",
        "losses/falcon/triton_kernels.py",
        "losses/falcon/triton_tiles.py",
    },
}
FILES = sorted(PACKAGE.rglob("*.py"))


def imported_modules(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def violations(path: Path, modules: set[str]) -> list[str]:
    room, here, wrong = room_of(path), str(path.relative_to(PACKAGE)), []
    for module in sorted(modules):
        package, other, *_ = [*module.split("."), ""]
        ours = package == "falcon_ssl" and other in FLOOR and other != room
        if ours and FLOOR[other] >= FLOOR[room]:
            wrong.append(f"{here} (floor {FLOOR[room]}) imports {module} (floor {FLOOR[other]})")
        for name, allowed in ONLY_HERE.items():
            if (module + ".").startswith(name + ".") and here not in allowed:
                wrong.append(f"{here} imports {module}")
        if room in NO_TORCH and package == "torch":
            wrong.append(f"{here} imports torch")
    return wrong


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path: Path) -> None:
    assert room_of(path) in FLOOR, "a new room needs a floor"
    assert violations(path, imported_modules(path)) == []


@pytest.mark.parametrize(
    ("path", "module"),
    [
        ("losses/falcon/loss.py", "falcon_ssl.methods"),
        ("losses/falcon/loss.py", "falcon_ssl.evaluation.knn.knn"),
        ("evaluation/knn.py", "falcon_ssl.engine.trainer"),
        ("engine/trainer.py", "torch.distributed"),
        ("report/run.py", "torch"),
        ("records/run.py", "torch.Tensor"),
    ],
)
def test_the_check_can_fail(path: str, module: str) -> None:
    assert (PACKAGE / path).is_file()
    assert violations(PACKAGE / path, {module})


def test_the_top_holds_rooms_alone() -> None:
    entries = {path.name for path in PACKAGE.iterdir()} - {"__pycache__"}
    rooms = {room for room in FLOOR if not room.startswith("__")}
    assert entries == rooms | {"__init__.py", "__main__.py", "py.typed"}
    assert len(rooms) <= 14


def test_no_file_is_called_utils_and_all_are_short() -> None:
    assert not [path for path in FILES if path.stem == "utils"]
    assert {
        str(path): lines
        for path in FILES
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > 400
    } == {}


HEAVY = ("sklearn", "datasets", "timm", "kornia", "accelerate")


@pytest.mark.parametrize(
    ("statement", "unwanted"),
    [
        (
            "from falcon_ssl import FalconLoss, FalconProjector, RademacherDictionary",
            ("torch._dynamo", *HEAVY),  # a compiler that takes as long to import as torch
        ),
        ("import falcon_ssl.report", ("torch", *HEAVY)),
        (
            "from falcon_ssl import cli; assert cli.main(['--help']) == 0",
            ("torch", "numpy", "rich", *HEAVY),
        ),
    ],
)
def test_importing_a_part_stays_light(statement: str, unwanted: tuple[str, ...]) -> None:
    """The loss drops into any training loop without data packages; a report is rebuilt without torch."""
    code = f"import sys\n{statement}\nprint([m for m in {unwanted!r} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "[]"
