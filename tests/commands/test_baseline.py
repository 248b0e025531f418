"""The baseline command on real digits: numbers, record, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from falcon_ssl import cli


def test_digits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--patch_size", "3", "--num_centers", "20", "--out", str(tmp_path)]
    assert cli.main(["baseline", "digits", *options]) == 0
    record = json.loads((tmp_path / "baseline.json").read_text())
    assert record["numbers_read"] == 80
    assert record["top1_linear"] > 0.9
    assert record["options"]["num_centers"] == 20
    assert set(record["seconds"]) == {"fit", "extract", "linear", "knn"}
    assert record["cpu_seconds"] > 0
    printed = capsys.readouterr().out
    assert "patch k-means, 80 numbers an image" in printed
    assert f"linear probe, top-1: {record['top1_linear']:.3f}" in printed


def test_images_without_labels_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    (tmp_path / "photos").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "photos" / "a.png")
    out = str(tmp_path / "out")
    assert cli.main(["baseline", f"folder:{tmp_path}/photos", "--out", out]) == 2
    assert "the baseline needs labels and a test part" in capsys.readouterr().err
    assert not Path(out).exists()
