"""Records name the commit that made them, and nothing goes wrong where there is none."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import torch

from falcon_ssl.core.devices import hardware
from falcon_ssl.records import provenance as module

NOWHERE = {"commit": None, "uncommitted_changes": None}


def git(root: Path, *words: str) -> str:
    own = ["-c", "user.name=n", "-c", "user.email=e", "-c", "commit.gpgsign=false"]
    return subprocess.run(
        ["git", "-C", str(root), *own, *words], check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package in a repository, where this library's lies in its own."""
    package = tmp_path / "src" / "package"
    package.mkdir(parents=True)
    (package / "code.py").write_text("1\n")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", "src")
    git(tmp_path, "commit", "--quiet", "--message", "first")
    return package


def test_the_commit_and_whether_it_is_all(package: Path) -> None:
    root = package.parents[1]
    commit = git(root, "rev-parse", "HEAD")
    assert module.find_commit(package) == {"commit": commit, "uncommitted_changes": False}
    (root / "runs.txt").write_text("what a run leaves there")
    assert module.find_commit(package)["uncommitted_changes"] is False
    (package / "code.py").write_text("2\n")
    assert module.find_commit(package) == {"commit": commit, "uncommitted_changes": True}
    (package / "code.py").write_text("1\n")
    (package / "more.py").write_text("code that no commit has\n")
    assert module.find_commit(package)["uncommitted_changes"] is True


def test_an_installed_package_has_no_commit_even_inside_somebody_elses(package: Path) -> None:
    installed = package.parents[1] / "lib" / "python" / "site-packages" / "package"
    installed.mkdir(parents=True)
    assert module.find_commit(installed) == NOWHERE


def test_without_git_or_with_a_broken_repository_there_is_none(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".git" / "HEAD").write_text("nonsense")
    assert module.find_commit(package) == NOWHERE
    monkeypatch.setenv("PATH", str(tmp_path))
    assert module.find_commit(package) == NOWHERE


def test_records_have_it_and_no_path() -> None:
    about = module.environment(hardware(torch.device("cpu")))
    assert about.keys() >= NOWHERE.keys()
    assert str(Path(module.__file__).parents[3]) not in json.dumps(
        {key: about[key] for key in NOWHERE}
    )
