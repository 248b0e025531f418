"""Thirty photographs: what can be measured is, the rest is left out with a line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from falcon_ssl import commands
from falcon_ssl.commands.loading import read_config
from falcon_ssl.config import FalconConfig, ReadingConfig, RunConfig
from falcon_ssl.core.errors import InputError
from falcon_ssl.engine import RunFolder
from falcon_ssl.report import build_report

NUM = 30


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, random = tmp_path_factory.mktemp("thirty"), np.random.default_rng(0)
    for i in range(NUM):
        path = root / ("cats" if i % 2 else "dogs") / f"{i:02d}.png"
        path.parent.mkdir(exist_ok=True)
        pixels = random.integers(0, 250, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    return root


@pytest.fixture(scope="module")
def run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    falcon = FalconConfig(dictionary="rademacher", num_codes=64, embed_dim=16)
    config = RunConfig(data=f"folder:{photos}", epochs=1, batch_size=15, falcon=falcon)
    return commands.pretrain(config, out=tmp_path_factory.mktemp("few") / "run")


@pytest.mark.parametrize("labeled", [False, True])
def test_an_evaluation_of_six_images(
    run: Path, labeled: bool, caplog: pytest.LogCaptureFixture
) -> None:
    (run / "diagnosis.json").write_text("{}")  # of other images
    found = commands.evaluate(run, reading=ReadingConfig(folder_labels=labeled))
    assert found["about"]["num_test"] == 6
    assert found["effective_rank_z"] > 1
    assert ("top1_knn" in found) == labeled
    assert "no diagnosis: 6 test images, it takes 10" in caplog.text
    assert not (run / "diagnosis.json").exists()
    assert build_report(run).is_file()


def test_images_of_a_pixel_are_refused(tmp_path: Path) -> None:
    for i in range(NUM):
        Image.fromarray(np.full((1, 1, 3), i, np.uint8)).save(tmp_path / f"{i}.png")
    config = RunConfig(data=f"folder:{tmp_path}", batch_size=15)
    with pytest.raises(InputError, match="too small to learn from: received 1 pixels"):
        commands.pretrain(config, out=tmp_path / "run")


def test_a_batch_that_is_too_large_says_which_would_do(photos: Path, tmp_path: Path) -> None:
    config = RunConfig(data=f"folder:{photos}")
    with pytest.raises(InputError, match="give --batch_size 15 or so"):
        commands.pretrain(config, out=tmp_path / "run")


def test_no_batch_size_helps_a_single_image(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(tmp_path / "one.png")
    config = RunConfig(data=f"folder:{tmp_path}", batch_size=2)
    with pytest.raises(InputError, match="too few images to train on: received 1"):
        commands.pretrain(config, out=tmp_path / "run")


@pytest.mark.parametrize("tested", [1, 2])
def test_labels_of_one_class_are_no_task(
    tested: int, run: Path, photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither while training nor after it, whatever there is to test on; the rest is measured."""
    data = of_classes(photos, tmp_path / "only", train=1, test=tested)
    config = replace(read_config(RunFolder.open(run)), data=data)
    trained = commands.pretrain(config, out=tmp_path / "run")
    probed = [line["monitor"] for line in RunFolder.open(trained).metrics() if "monitor" in line]
    assert [line.keys() for line in probed] == [{"effective_rank_z", "rankme_best_epoch"}]
    found = commands.evaluate(trained)
    assert "effective_rank_z" in found
    assert "top1_knn" not in found
    assert "all training images are of one class" in caplog.text
    with pytest.raises(InputError, match="nothing to tell apart"):
        commands.finetune(trained, out=tmp_path / "finetuned")


def test_images_of_a_class_that_is_only_tested_count_as_wrong(
    run: Path, photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = of_classes(photos, tmp_path / "more", train=2, test=3)
    config = replace(read_config(RunFolder.open(run)), data=data)
    found = commands.evaluate(commands.pretrain(config, out=tmp_path / "run"))
    assert "10 test images are of classes without a training image" in caplog.text
    assert found["top1_linear"] <= 2 / 3
    assert found["top1_knn"] <= 2 / 3


def of_classes(photos: Path, folder: Path, *, train: int, test: int) -> str:
    """The photographs as tables, labeled in turn with so many classes."""
    folder.mkdir()
    images = [path.read_bytes() for path in sorted(photos.rglob("*.png"))]
    for part, count in {"train": train, "test": test}.items():
        rows = [{"image": {"bytes": one}, "label": i % count} for i, one in enumerate(images)]
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{part}.parquet")
    return f"parquet:{folder}"
