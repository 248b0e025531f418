"""Every file of examples/ runs as its user would run it, in a folder of its own."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

EXAMPLES = Path(__file__).parents[2] / "examples"
NO_SCRIPT = {"my_parts"}  # imported by another
FILES = sorted(EXAMPLES.glob("*.py"))


@pytest.mark.parametrize(
    "path", [path for path in FILES if path.stem not in NO_SCRIPT], ids=lambda path: path.stem
)
def test_examples_run(
    path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(EXAMPLES), *sys.path])
    torch.manual_seed(0)
    names: dict[str, Any] = runpy.run_path(str(path), run_name="__main__")
    assert names
    assert capsys.readouterr().out, "an example shows what it did"
