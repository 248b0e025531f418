"""`falcon-ssl speedrun`: against the clock, on CIFAR alone, judged on the test split or on a held-out part of train."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from falcon_ssl.cli.main import main
from falcon_ssl.config.mapping import merged, read_yaml
from falcon_ssl.config.recipes import recipe_path
from support.images import encoded

CLASSES = 10
SMALL = {
    "epochs": 2,
    "batch_size": 32,
    "encoder": {"widths": [8, 32], "head_width": 24},
    "falcon": {"embed_dim": 32},
    "optim": {"warmup_epochs": 0.1},
    "engine": {"log_every": 2},
    "evaluation": {"knn_components": 16},
}


def write(path: Path, count: int, *, side: int = 32, seed: int) -> None:
    """Images whose brightness is their class."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % CLASSES
    pixels = [random.integers(20 * c, 20 * c + 60, (side, side, 3), dtype=np.uint8) for c in labels]
    rows = [{"bytes": encoded(one), "path": None} for one in pixels]
    pq.write_table(pa.table({"image": rows, "label": labels}), path)


@pytest.fixture(scope="module")
def cifar(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("cifar")
    write(folder / "train.parquet", 200, seed=0)
    write(folder / "test.parquet", 60, seed=1)
    return f"parquet:{folder}"


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The recipe, small: every option that is not a size is its own."""
    path = tmp_path_factory.mktemp("recipe") / "small.yaml"
    values = merged(read_yaml(recipe_path("cifar10-speedrun")), SMALL)
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return str(path)


def run(*words: str) -> int:
    return main(["speedrun", *words])


def test_a_record_says_what_when_and_where(cifar, recipe, tmp_path, capsys):
    assert run(cifar, "--out", str(tmp_path / "run"), "--recipe", recipe) == 0
    record = json.loads((tmp_path / "run" / "speedrun.json").read_text())
    assert record["split"] == "test"
    assert record["images"] == 2 * 6 * 32
    assert record["top1_linear"] > 0.3, "brightness can be read"
    assert set(record["untrained"]) == {"top1_linear", "top1_knn", "numbers_read"}
    assert (
        record["numbers_read"]
        == record["untrained"]["numbers_read"]
        == 9 * (96 + 8) + 4 * (32 + 24)
    )
    assert set(record["seconds_of"]) == {"train", "extract", "linear", "knn"}
    assert record["seconds"] == pytest.approx(sum(record["seconds_of"].values()), abs=0.3)
    assert f"{record['top1_linear']:.4f}" in capsys.readouterr().out


def test_options_are_chosen_on_a_part_of_train_without_the_untrained_network(
    cifar, recipe, tmp_path, capsys
):
    other = tmp_path / "trial.yaml"
    other.write_text(
        yaml.safe_dump(merged(read_yaml(Path(recipe)), {"evaluation": {"untrained": False}})),
        encoding="utf-8",
    )
    words = ("--recipe", str(other), "--held_out", "--epochs", "1")
    assert run(cifar, "--out", str(tmp_path / "run"), *words) == 0
    record = json.loads((tmp_path / "run" / "speedrun.json").read_text())
    assert record["untrained"] is None
    assert "untrained" not in capsys.readouterr().out
    assert record["split"] == "held-out fifth of train"
    assert record["images"] == 160


def test_other_images_are_refused_before_any_work(recipe, tmp_path, capsys):
    folder = tmp_path / "photos"
    folder.mkdir()
    write(folder / "train.parquet", 40, side=48, seed=0)
    write(folder / "test.parquet", 20, side=48, seed=1)
    assert run(f"parquet:{folder}", "--out", str(tmp_path / "run"), "--recipe", recipe) == 2
    assert "the speed run is one of CIFAR" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_digits_are_refused(recipe, tmp_path, capsys):
    assert run("digits", "--out", str(tmp_path / "run"), "--recipe", recipe) == 2
    assert "1 x 8 x 8" in capsys.readouterr().err
