"""Every file of examples/ runs as its user would run it, in a folder of its own."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from ast import literal_eval
from pathlib import Path
from typing import Any

import pytest
import torch

from falcon_ssl.networks.timm import import_beside_torchvision

EXAMPLES = Path(__file__).parents[2] / "examples"
NO_SCRIPT = {"my_parts", "lightning_module"}  # imported by another; starts processes of its own
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
    if path.stem in ("hugging_face_trainer", "lightly_heads"):
        import_beside_torchvision("torchvision")  # which they import
    names: dict[str, Any] = runpy.run_path(str(path), run_name="__main__")
    totals = [float(one) for one in re.findall(r"'total': ([\d.]+)", capsys.readouterr().out)]
    if path.stem == "hugging_face_trainer":
        totals = names["losses"]
    if path.stem == "own_parts":
        assert names["numbers"]["top1_knn"] > 0.5, "ten classes"
    elif path.stem == "scikit_learn":
        images, labels = names["images"][1400:], names["labels"][1400:]
        score = names["few"].score(names["encoder"].transform(images), labels)
        assert score > names["raw"].score(images.reshape(len(images), -1), labels)
    else:
        assert totals[-1] < totals[0] - 0.3, "it learns"


def test_a_lightning_module_runs_on_two_processes(tmp_path: Path) -> None:
    # Before it, where torchvision and a CPU build of torch do not fit: Lightning imports the former.
    (tmp_path / "sitecustomize.py").write_text(
        "from falcon_ssl.networks.timm import import_beside_torchvision\n"
        'import_beside_torchvision("torchvision")\n'
    )
    paths = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
    run = subprocess.run(
        [sys.executable, str(EXAMPLES / "lightning_module.py")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    lines = [literal_eval(one) for one in re.findall(r"\{'processes'.*?\}", run.stdout)]
    assert [line["processes"] for line in lines] == [2, 2, 2], "the first process alone prints"
    assert lines[-1]["total"] < lines[0]["total"] - 0.3, "it learns"
