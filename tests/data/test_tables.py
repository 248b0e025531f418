"""Tables of images as several tools write them: pandas, polars, DuckDB, Arrow, the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from falcon_ssl.config import ReadingConfig
from falcon_ssl.core.errors import InputError
from falcon_ssl.data import load_splits
from support.images import encoded, pixels


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "kind",
    [
        pa.binary(),
        pa.large_binary(),
        pa.struct({"bytes": pa.binary()}),
        pa.struct({"bytes": pa.large_binary(), "path": pa.large_string()}),
        pa.struct({"path": pa.string()}),
    ],
    ids=str,
)
def test_images_as_several_tools_write_them(
    kind: pa.DataType, stream: bool, tmp_path: Path, png: Callable[[int], bytes]
) -> None:
    (tmp_path / "0.png").write_bytes(png(0))
    cell = {"bytes": png(0), "path": "0.png"}
    is_struct = pa.types.is_struct(kind)
    value = {field.name: cell[field.name] for field in kind} if is_struct else cell["bytes"]
    pq.write_table(pa.table({"image": pa.array([value] * 3, kind)}), tmp_path / "train.parquet")
    reading = ReadingConfig(stream=stream, in_memory=not stream)
    source = load_splits(f"parquet:{tmp_path}", reading).train
    assert source.images(torch.arange(3)).shape == (3, 3, 12, 12)


@pytest.mark.parametrize("kind", [pa.struct({"pixels": pa.binary()}), pa.string()], ids=str)
def test_cells_that_are_no_images_are_refused(kind: pa.DataType, tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": pa.nulls(3, kind)}), tmp_path / "train.parquet")
    with pytest.raises(InputError, match="no column of images: received columns image: "):
        load_splits(f"parquet:{tmp_path}")


def write_words(folder: Path, part: str, words: list[str], kind: pa.DataType) -> None:
    images = [encoded(pixels(i)) for i in range(len(words))]
    labels = pa.array(words).cast(kind)
    pq.write_table(pa.table({"image": images, "label": labels}), folder / f"{part}.parquet")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", [pa.string(), pa.dictionary(pa.int8(), pa.string())], ids=str)
def test_words_name_classes(kind: pa.DataType, stream: bool, tmp_path: Path) -> None:
    """In the order of the training part's, whatever is in the test part."""
    write_words(tmp_path, "train", ["cat", "dog", "cat", "ant", "dog", "ant"], kind)
    write_words(tmp_path, "test", ["dog", "cat"], kind)
    splits = load_splits(f"parquet:{tmp_path}", ReadingConfig(stream=stream, in_memory=not stream))
    assert splits.train.labels.tolist() == [1, 2, 1, 0, 2, 0]
    assert splits.test.labels.tolist() == [2, 1]
    assert splits.train.class_names == splits.test.class_names == ["ant", "cat", "dog"]


def test_numbers_and_words_are_not_mixed(tmp_path: Path) -> None:
    """In one part of a set words are numbered, in the other numbers may mean anything."""
    write_words(tmp_path, "train", ["0", "1"] * 2, pa.int64())
    write_words(tmp_path, "test", ["a", "b"] * 2, pa.string())
    with pytest.raises(InputError, match="labeled in two ways"):
        load_splits(f"parquet:{tmp_path}", ReadingConfig(stream=True))


@pytest.mark.parametrize("stream", [False, True])
def test_shards_of_several_types_are_one_column_or_an_error(stream: bool, tmp_path: Path) -> None:
    reading = ReadingConfig(stream=stream, in_memory=not stream)
    write_words(tmp_path, "train-0", ["0", "1"] * 2, pa.int64())
    write_words(tmp_path, "train-1", ["1", "0"] * 2, pa.int32())
    labels = load_splits(f"parquet:{tmp_path}", reading).train.labels
    assert labels is not None
    assert labels.tolist() == [0, 1, 0, 1, 1, 0, 1, 0]
    write_words(tmp_path, "train-1", ["a", "b"] * 2, pa.string())
    with pytest.raises(InputError, match="int64"):
        load_splits(f"parquet:{tmp_path}", reading)


@pytest.mark.parametrize(
    ("train", "test", "error"),
    [
        (["cat"] * 4, ["cat", "dog"], "classes that training images lack: received dog"),
        (["a", "b", "c", "d", "a"], ["a"], "received 4 different words for 5 images"),
    ],
)
def test_words_that_name_no_classes_are_refused(
    train: list[str], test: list[str], error: str, tmp_path: Path
) -> None:
    write_words(tmp_path, "train", train, pa.string())
    write_words(tmp_path, "test", test, pa.string())
    with pytest.raises(InputError, match=error):
        load_splits(f"parquet:{tmp_path}")
