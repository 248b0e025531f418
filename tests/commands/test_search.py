"""The nearest images and near-duplicates of a table of embeddings: a user's two first questions."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from falcon_ssl import cli, commands
from falcon_ssl.config import FalconConfig, RunConfig
from falcon_ssl.core.errors import InputError

NUM = 40


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Colored noise; the last one is a copy of the first, a little brighter."""
    root, random = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for i in range(NUM):
        pixels = random.integers(0, 250, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"{i:02d}.png")
    with Image.open(root / "00.png") as first:
        brighter = np.asarray(first) + 2
    Image.fromarray(brighter).save(root / f"{NUM - 1:02d}.png")
    return root


@pytest.fixture(scope="module")
def run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = RunConfig(
        data=f"folder:{photos}",
        epochs=1,
        batch_size=20,
        falcon=FalconConfig(dictionary="rademacher", num_codes=64, embed_dim=16),
    )
    return commands.pretrain(config, out=tmp_path_factory.mktemp("search") / "run", monitors=[])


@pytest.fixture(scope="module")
def table(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return commands.embed(run, out=tmp_path_factory.mktemp("table") / "z.parquet")


def size_of(picture: Path) -> tuple[int, int]:
    with Image.open(picture) as image:
        return image.size


def test_an_image_finds_itself_and_its_copy(table: Path, photos: Path) -> None:
    outside = table.parent / "outside.png"
    shutil.copy(photos / "00.png", outside)
    (found,) = commands.search(table, [outside], k=5)
    assert [Path(hit.place).name for hit in found[:2]] == ["00.png", f"{NUM - 1:02d}.png"]
    assert found[0].cosine == pytest.approx(1, abs=1e-4)
    assert len(found) == 5
    assert size_of(table.with_suffix(".search.png")) == (6 * 100 + 4, 1 * 116 + 4)


def test_a_row_is_not_its_own_neighbor(table: Path) -> None:
    ((first, *_), (other, *_)) = commands.search(table, [0, NUM - 1], k=3)
    assert (first.row, other.row) == (NUM - 1, 0)


def test_the_command_line(table: Path, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = table.parent / "found.png"
    assert cli.main(["search", str(table), str(photos / "03.png"), "7", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert printed.count("1.000  ") == 1  # the file finds itself, the row does not
    assert str(photos / "03.png") in printed
    assert out.is_file()
    for words, message in (
        ([str(table), "nowhere.png"], "no such image"),
        ([str(table), str(NUM)], "no such row"),
        ([str(table), "1", "--out", str(out)], "the file exists"),
        ([str(table), "1", "--k", "0"], "k is too small"),
        ([str(table), str(table)], "received cannot identify image file, expected an image file"),
        ([str(photos / "03.png"), "1"], "not a table of embeddings"),
        ([str(table), str(photos / "03.png"), "--run", "gone"], "is not there"),
    ):
        assert cli.main(["search", *words]) == 2
        assert message in capsys.readouterr().err


def test_a_run_that_has_trained_on_is_refused(
    table: Path, run: Path, photos: Path, tmp_path: Path
) -> None:
    other = tmp_path / "run"
    shutil.copytree(run, other)
    config = RunConfig(
        data=f"folder:{photos}",
        epochs=1,
        batch_size=20,
        seed=1,
        falcon=FalconConfig(dictionary="rademacher", num_codes=64, embed_dim=16),
    )
    commands.pretrain(config, out=other, overwrite=True, monitors=[])
    with pytest.raises(InputError, match="the run has changed since"):
        commands.search(table, [photos / "03.png"], run=other)


def test_duplicates_are_listed_and_drawn(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["duplicates", str(table), "--similarity", "0.99"]) == 0
    assert "1 groups; 1 images besides the first of each" in capsys.readouterr().out
    with table.with_suffix(".duplicates.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [Path(row["path"]).name for row in rows] == ["00.png", f"{NUM - 1:02d}.png"]
    assert [row["group"] for row in rows] == ["0", "0"]
    assert size_of(table.with_suffix(".duplicates.png")) == (2 * 100 + 4, 116 + 4)
    assert cli.main(["duplicates", str(table), "--out", "x.png"]) == 2
    assert "--out is the list, x.csv; its picture is written beside it" in capsys.readouterr().err
    assert commands.duplicates(table, similarity=1.0) == []  # renewed, without a picture
    assert not table.with_suffix(".duplicates.png").is_file()


def test_images_that_are_gone_are_still_named(
    table: Path, tmp_path: Path, photos: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = pq.read_table(table)
    about = file.schema.metadata[b"falcon_ssl"].replace(str(photos).encode(), b"/gone")
    moved = tmp_path / "moved.parquet"
    pq.write_table(file.replace_schema_metadata({b"falcon_ssl": about}), moved)
    ((hit, *_),) = commands.search(moved, [0])
    assert Path(hit.place).name == f"{NUM - 1:02d}.png"
    assert "no pictures" in caplog.text
    assert not moved.with_suffix(".search.png").exists()


def test_a_sheet_never_shows_other_images(
    table: Path, tmp_path: Path, photos: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Where a file is gone all rows after it have moved: no sheet, and an earlier one does not stay."""
    folder = shutil.copytree(photos, tmp_path / "photos")
    file = pq.read_table(table)
    about = file.schema.metadata[b"falcon_ssl"].replace(str(photos).encode(), str(folder).encode())
    copied = tmp_path / "copied.parquet"
    pq.write_table(file.replace_schema_metadata({b"falcon_ssl": about}), copied)
    sheet = copied.with_suffix(".search.png")
    commands.search(copied, [np.int64(NUM - 1)], k=2)
    assert sheet.is_file()
    (folder / "00.png").unlink()
    commands.search(copied, [3], k=2)
    assert "the images have changed since" in caplog.text
    assert not sheet.exists()


def test_a_table_of_another_tool(tmp_path: Path) -> None:
    z = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    z[19] = z[4]
    path = tmp_path / "other.parquet"
    pq.write_table(pa.table({"z": z.tolist()}), path)
    ((hit, *_),) = commands.search(path, [4], k=1)
    assert (hit.place, hit.row) == ("row 19", 19)
    assert [group.indices for group in commands.duplicates(path, similarity=0.999)] == [[4, 19]]
    with pytest.raises(InputError, match="does not say what embedded"):
        commands.search(path, [__file__])


@pytest.mark.parametrize(
    ("column", "values", "received"),
    [
        ("z", ["word"] * NUM, "text"),
        ("z", [1.5] * NUM, r"double|float64 \[40\]"),
        ("z", [[1.0, float("nan")]] * NUM, r"float64 \[40, 2\]"),
        ("row", [0.5] * NUM, r"float64 \[40\]"),
        ("path", [7] * NUM, r"int64 \[40\]"),
    ],
)
def test_columns_of_other_kinds_are_named(
    column: str, values: list[object], received: str, table: Path, tmp_path: Path
) -> None:
    whole, odd = pq.read_table(table), tmp_path / "odd.parquet"
    pq.write_table(whole.drop_columns([column]).append_column(column, [values]), odd)
    for use in (lambda: commands.duplicates(odd), lambda: commands.search(odd, [0])):
        with pytest.raises(InputError, match=rf"a column {column} of another kind: .*{received}"):
            use()


def test_damage_to_a_table_is_named(table: Path, tmp_path: Path) -> None:
    whole, odd = pq.read_table(table), tmp_path / "odd.parquet"
    for text, message in ((b"{", "valid JSON"), (b'{"run": 3}', "an entry checkpoint|run: 3")):
        pq.write_table(whole.replace_schema_metadata({b"falcon_ssl": text}), odd)
        with pytest.raises(InputError, match=message):
            commands.search(odd, [0])
    content = bytearray(table.read_bytes())
    content[200:2000] = bytes(1800)
    odd.write_bytes(content)
    with pytest.raises(InputError, match=r"cannot read .*odd\.parquet"):
        commands.duplicates(odd)


def test_a_table_of_another_width_than_its_run_reads(
    table: Path, photos: Path, tmp_path: Path
) -> None:
    whole = pq.read_table(table)
    z = pa.array([[1.0, float(i)] for i in range(NUM)])
    changed = whole.drop_columns(["z"]).append_column("z", z)
    pq.write_table(changed.replace_schema_metadata(whole.schema.metadata), tmp_path / "z.parquet")
    with pytest.raises(InputError, match=r"rows of 2 numbers in z\.parquet, expected"):
        commands.search(tmp_path / "z.parquet", [photos / "03.png"])
