"""The wheel is whole; its core needs torch, numpy and safetensors alone, and names what is missing for the rest."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from importlib.metadata import distribution, distributions, packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "falcon_ssl"
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]


def needed(requires: Iterable[str], extra: str = "") -> set[str]:
    """Names of the distributions that are required on this machine, with an extra or without."""
    wanted = map(Requirement, requires)
    return {
        canonicalize_name(one.name)
        for one in wanted
        if one.marker is None or one.marker.evaluate({"extra": extra})
    }


def closure(names: set[str]) -> set[str]:
    """Distributions, and all that they need."""
    found: set[str] = set()
    while new := names - found:
        found |= new
        names = set().union(*(needed(distribution(name).requires or ()) for name in new))
    return found


def imported(path: Path) -> set[str]:
    """Packages that a file imports, also within functions."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    modules = [alias.name for n in nodes if isinstance(n, ast.Import) for alias in n.names]
    modules += [n.module or "" for n in nodes if isinstance(n, ast.ImportFrom)]
    return {module.split(".")[0] for module in modules} - sys.stdlib_module_names - {"falcon_ssl"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy: setuptools leaves what it makes beside the sources, and finds it again."""
    tree = tmp_path_factory.mktemp("tree")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    shutil.copytree(ROOT / "src" / "falcon_ssl", tree / "src" / "falcon_ssl")
    command = [*PIP, "wheel", "--no-deps", "--no-build-isolation", "-w", str(tree), str(tree)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    (built,) = tree.glob("*.whl")
    return built


PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]


def requires(wheel: Path) -> list[str]:
    (built,) = distributions(name="falcon-ssl", path=[str(wheel)])
    return built.requires or []


@pytest.mark.slow
def test_what_is_imported_is_declared_and_what_is_declared_is_imported(wheel: Path) -> None:
    of_module, used = packages_distributions(), set()
    declared = needed(requires(wheel), "train") | needed(requires(wheel), "export")
    declared.remove("falcon-ssl")  # the second needs the first
    for path in PACKAGE.rglob("*.py"):
        for module in imported(path) - {
            "timm",
            "triton",
            "torchvision",
            "tifffile",
        }:  # optional, each in a file of its own
            names = {canonicalize_name(name) for name in of_module.get(module, [module])}
            assert names & declared, f"{path.relative_to(PACKAGE)} imports {module}"
            used |= names
    assert declared <= used


@pytest.mark.slow
def test_the_wheel_holds_every_file_of_the_package(wheel: Path) -> None:
    files = {path for path in PACKAGE.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    names = {str(path.relative_to(PACKAGE.parent)) for path in files}
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if name.startswith("falcon_ssl/")}
    assert packed == names


@pytest.fixture(scope="module")
def core_only(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python of a fresh environment: the wheel, installed by pip, and what its core requires; nothing else."""
    home = tmp_path_factory.mktemp("core")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], check=True)
    python = home / "bin" / "python"
    (site,) = home.glob("lib/python*/site-packages")
    core = needed(requires(wheel))
    assert core == {"torch", "numpy", "safetensors"}
    for name in closure(core):
        installed = distribution(name)
        for top in {path.parts[0] for path in installed.files or ()} - {"..", "__pycache__"}:
            if not (site / top).exists():  # namespaces belong to several
                (site / top).symlink_to(Path(str(installed.locate_file(top))).resolve())
    install = ["--python", str(python), "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run([*PIP, *install], check=True, capture_output=True, text=True)
    return python


CORE_JOB = """
import sys
import torch
from torch.nn.functional import normalize
import falcon_ssl
from falcon_ssl import CompleteDictionary, FalconLoss, FalconProjector, Features
from falcon_ssl import HadamardDictionary, RademacherDictionary, assign, certify, diagnose
from falcon_ssl.config import FalconConfig, ViewsConfig
from falcon_ssl.losses import barlow_twins_loss
from falcon_ssl.views import build_views

assert "site-packages" in falcon_ssl.__file__, falcon_ssl.__file__
z = torch.randn(64, 32, requires_grad=True)
for dictionary in (RademacherDictionary(128, 16), HadamardDictionary(128, 16), CompleteDictionary(16)):
    loss = FalconLoss(dictionary)
    terms = loss(*FalconProjector(32, 16)(torch.cat([z, z + 0.1])).chunk(2))
    terms.total.backward()
assert z.grad.isfinite().all()
u = normalize(torch.randn(64, 16), dim=1)
assign(u, RademacherDictionary(128, 16), logit_scale=20.0)
codes = torch.randint(8, (64,))
assert diagnose(Features(z=z.detach(), u=u, code=codes), num_codes=128)["intracluster"].verdict == "healthy"
assert "Not measured: cluster and intracluster collapse" in diagnose(Features(z=torch.randn(500, 64))).sentence
terms = {name: float(value) for name, value in terms._asdict().items()}
certify(terms, num_codes=2**16, logit_scale=loss.logit_scale, beta=1.0, prior_matching="renyi2", batch_size=64)
images = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
build_views(ViewsConfig("cifar"))(images, generator=torch.Generator())
print("done")
"""

MISSING = """
import torch
for statement in (
    "import falcon_ssl.commands",
    "import falcon_ssl.report",
    "from falcon_ssl.data import load_splits; load_splits('digits')",
    "from falcon_ssl.data import load_splits; load_splits('folder:.')",
    "from falcon_ssl.evaluation import clustering; clustering.kmeans_clusters(torch.eye(3), num_clusters=2)",
    "from falcon_ssl.config.mapping import read_yaml; read_yaml(None)",
):
    try:
        exec(statement)
    except ImportError as error:
        print(error)
    else:
        raise SystemExit(statement)
"""


@pytest.mark.slow
def test_the_core_needs_torch_numpy_and_safetensors_alone(core_only: Path) -> None:
    done = run(core_only, "-c", CORE_JOB)
    assert done.stdout.endswith("done\n"), done.stderr


@pytest.mark.slow
def test_a_missing_extra_is_named_in_one_line(core_only: Path) -> None:
    done = run(core_only, "-c", MISSING)
    assert done.returncode == 0, done.stdout + done.stderr
    fix = 'received an installation without it, expected the extra train; run pip install "falcon-ssl[train]".'
    lines = done.stdout.splitlines()
    assert len(lines) == 6
    for line in lines:
        assert re.fullmatch(rf".* needs the package \w+: {re.escape(fix)}", line), line
    command = run(core_only.parent / "falcon-ssl", "demo")
    line = rf"falcon-ssl: error: the command falcon-ssl needs the package \w+: {re.escape(fix)}\n"
    assert re.fullmatch(line, command.stderr), command.stderr
    assert command.returncode == 2


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"}  # no PYTHONPATH above all
    return subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False, env=environment
    )
