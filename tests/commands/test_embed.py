"""Embeddings as a table: every tool reads it, it is resumed, all ranks write it, and its rows find their images."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from falcon_ssl import cli, commands
from falcon_ssl.config import FalconConfig, ReadingConfig, RunConfig
from falcon_ssl.core.errors import InputError
from falcon_ssl.dictionary import assign
from falcon_ssl.evaluation import load_features
from falcon_ssl.evaluation.features import extract
from falcon_ssl.records.embeddings import EmbeddingFile, PartsFolder

EMBED = sys.modules["falcon_ssl.commands.embed"]  # the module; commands.embed is its function
CONFIG = RunConfig(
    epochs=1, falcon=FalconConfig(dictionary="rademacher", num_codes=64, embed_dim=16)
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return commands.pretrain(CONFIG, out=tmp_path_factory.mktemp("embed") / "run", monitors=[])


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EMBED, "PART", 100)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Five gray images in two folders; the third breaks off."""
    random = np.random.default_rng(0)
    for i in range(5):
        file = tmp_path / "photos" / ("cats", "dogs")[i % 2] / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 255, (12, 12), dtype=np.uint8)).save(file)
    whole = (tmp_path / "photos" / "cats" / "2.png").read_bytes()
    (tmp_path / "photos" / "cats" / "2.png").write_bytes(whole[: len(whole) // 2])
    return tmp_path / "photos"


@pytest.mark.usefixtures("small_parts")
def test_the_table_holds_what_the_network_says(run: Path, tmp_path: Path) -> None:
    file = EmbeddingFile(commands.embed(run, out=tmp_path / "z.parquet"))
    assert file.names == ["row", "split", "label", "class_name", "code", "probability", "z", "u"]
    columns = file.read(*file.names)
    _, splits, views, method = commands.load_run(run)
    expected = extract(method, splits.test, views)
    np.testing.assert_allclose(columns["z"], expected.z, atol=1e-6)
    np.testing.assert_allclose(columns["u"], expected.u, atol=1e-6)
    assert columns["label"].tolist() == splits.test.labels.tolist()
    assert columns["class_name"] == [splits.test.class_names[i] for i in columns["label"]]
    assigned = assign(expected.u, method.dictionary, logit_scale=method.logit_scale)
    assert columns["code"].tolist() == assigned.code.tolist()
    np.testing.assert_allclose(columns["probability"], assigned.probability, rtol=1e-3)
    assert file.about["data"] == "digits"
    assert len(list(file.groups("row"))) == 4  # 360 images, 100 a row group
    assert not list(tmp_path.glob("*.parts"))


def test_all_formats_hold_the_same_numbers(run: Path, tmp_path: Path) -> None:
    files = [
        commands.embed(run, out=tmp_path / f"z{s}") for s in (".parquet", ".npz", ".safetensors")
    ]
    first, *others = [load_features(file) for file in files]
    for other in others:
        for name in ("z", "u", "code", "label", "index"):
            assert torch.equal(getattr(first, name), getattr(other, name)), name


def test_both_splits_in_one_file(run: Path, tmp_path: Path) -> None:
    file = EmbeddingFile(commands.embed(run, out=tmp_path / "z.parquet", split="all"))
    columns = file.read("split", "row")
    assert columns["split"] == ["train"] * 1437 + ["test"] * 360
    assert columns["row"].tolist() == [*range(1437), *range(360)]


def test_other_tools_read_it_as_it_is(run: Path, tmp_path: Path) -> None:
    path = commands.embed(run, out=tmp_path / "z.parquet")
    z = EmbeddingFile(path).read("z")["z"]
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_parquet(path)
    assert np.array_equal(np.stack(frame["z"]), z)
    assert frame["class_name"][0] == str(frame["label"][0])
    polars = pytest.importorskip("polars")
    assert np.array_equal(polars.read_parquet(path)["z"].to_numpy(), z)
    duckdb = pytest.importorskip("duckdb")
    query = f"select list_cosine_similarity(z, z), label from '{path}' limit 1"
    assert duckdb.sql(query).fetchall() == [(pytest.approx(1.0), frame["label"][0])]
    datasets = pytest.importorskip("datasets")
    loaded = datasets.Dataset.from_parquet(str(path), cache_dir=str(tmp_path / "cache"))
    assert np.array_equal(loaded.with_format("numpy")[:5]["z"], z[:5])


def test_paths_lead_to_the_images(run: Path, photos: Path, tmp_path: Path) -> None:
    reading = ReadingConfig(max_unreadable=0.5, folder_labels=True)
    path = commands.embed(run, out=tmp_path / "z.parquet", data=f"folder:{photos}", reading=reading)
    columns = EmbeddingFile(path).read("path", "row", "class_name")
    found = [str(Path(one).relative_to(photos)) for one in columns["path"]]
    assert found == ["cats/0.png", "cats/4.png", "dogs/1.png", "dogs/3.png"]
    assert columns["row"].tolist() == [0, 2, 3, 4]  # among all files
    assert columns["class_name"] == ["cats", "cats", "dogs", "dogs"]


@pytest.mark.usefixtures("small_parts")
def test_an_interrupted_command_is_continued(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="falcon_ssl")
    whole = commands.embed(run, out=tmp_path / "whole.parquet")
    batches, seen = EMBED._batches, []

    def interrupted(opened: Any, part: Any, *rest: Any) -> Iterator[Any]:
        seen.append(part.number)
        if part.number == 2 and seen.count(2) == 1:
            raise KeyboardInterrupt
        return batches(opened, part, *rest)

    monkeypatch.setattr(EMBED, "_batches", interrupted)
    out = tmp_path / "z.parquet"
    with pytest.raises(KeyboardInterrupt):
        commands.embed(run, out=out)
    assert not out.exists()
    with pytest.raises(InputError, match=r"unfinished file of other.*other values of .*split"):
        commands.embed(run, out=out, split="train")
    commands.embed(run, out=out)
    assert seen == [0, 1, 2, 2, 3]
    assert "continued: 2 of 4 row groups are there" in caplog.text
    assert EmbeddingFile(out).read("row")["row"].tolist() == list(
        EmbeddingFile(whole).read("row")["row"]
    )
    assert not list(tmp_path.glob("*.parts"))


def test_files_are_kept_unless_replaced(run: Path, tmp_path: Path) -> None:
    out = commands.embed(run, out=tmp_path / "z.parquet")
    with pytest.raises(InputError, match=r"the file exists.*--overwrite"):
        commands.embed(run, out=out)
    commands.embed(run, out=out, split="train", overwrite=True)
    assert len(EmbeddingFile(out)) == 1437
    with pytest.raises(InputError, match=r"unknown kind of file.*\.parquet"):
        commands.embed(run, out=tmp_path / "z.csv")
    assert cli.main(["embed", str(run), "--out", str(tmp_path / "b.npz"), "--checkpoint", "x"]) == 2


def test_what_is_no_table_of_embeddings(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    broken, other = tmp_path / "broken.parquet", tmp_path / "other.parquet"
    broken.write_bytes(b"PAR1 and no more")
    pyarrow.parquet.write_table(pyarrow.table({"x": [1]}), other)
    for path, message in (
        (broken, "cannot read .*broken"),
        (other, "has no column z"),
        (tmp_path / "none.parquet", "no such file"),
        (tmp_path / "z.npz", r"expected a \.parquet"),
    ):
        with pytest.raises(InputError, match=message):
            EmbeddingFile(path)


def test_rows_that_are_no_representations(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    ragged, empty = tmp_path / "ragged.parquet", tmp_path / "empty.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"z": [[1.0], [1.0, 2.0, 3.0]]}), ragged)
    pyarrow.parquet.write_table(
        pyarrow.table({"z": pyarrow.array([], pyarrow.list_(pyarrow.float32()))}), empty
    )
    with pytest.raises(InputError, match="lists of different lengths"):
        EmbeddingFile(ragged).read("z")
    with pytest.raises(InputError, match="is empty"):
        EmbeddingFile(empty)


def test_replacing_an_unfinished_table_keeps_others_out(tmp_path: Path) -> None:
    """And deletes what is its own alone."""
    first = PartsFolder(tmp_path / "z.parquet", {"split": "train"})
    first.begin(overwrite=False)
    first.write(0, {})
    (first.path / "mine.txt").write_text("not of this library")
    parts = PartsFolder(tmp_path / "z.parquet", {"split": "test"})
    parts.begin(overwrite=True)
    assert not parts.has(0)
    assert (parts.path / "mine.txt").exists()
    code = "import pathlib, sys; from falcon_ssl.records.lock import Lock; Lock(pathlib.Path(sys.argv[1]))"
    other = subprocess.run(
        [sys.executable, "-c", code, str(parts.path)], capture_output=True, text=True, check=False
    )
    assert "another process is writing here" in other.stderr


def test_parts_of_other_kinds_are_no_table(tmp_path: Path) -> None:
    parts = PartsFolder(tmp_path / "z.parquet", {})
    parts.begin(overwrite=False)
    parts.write(0, {"row": np.arange(2), "z": np.ones((2, 3), np.float32)})
    pq.write_table(pa.table({"row": [1], "z": [[1.0, 2.0]]}), parts.path / "part-000001.parquet")
    with pytest.raises(InputError, match=r"z\.parquet\.parts.*expected parts of one table"):
        parts.finish(2)


def test_no_image_at_all_is_an_error(tmp_path: Path) -> None:
    parts = PartsFolder(tmp_path / "z.parquet", {})
    parts.begin(overwrite=False)
    parts.write(0, {})
    with pytest.raises(InputError, match="no image could be read"):
        parts.finish(1)


@pytest.mark.slow
def test_two_processes_write_what_one_writes(run: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one.parquet", tmp_path / "two.parquet"
    script = tmp_path / "embed.py"
    script.write_text(
        "import sys\nfrom falcon_ssl import cli, commands\n"
        "sys.modules['falcon_ssl.commands.embed'].PART = 100\n"
        f"sys.exit(cli.main(['embed', {str(run)!r}, '--out', {str(two)!r}]))\n"
    )
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, *torchrun, str(script)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("embeddings: ") == 1
    commands.embed(run, out=one)
    first, second = (EmbeddingFile(path).read("row", "z") for path in (one, two))
    assert first["row"].tolist() == second["row"].tolist()
    np.testing.assert_allclose(first["z"], second["z"], atol=1e-5)
