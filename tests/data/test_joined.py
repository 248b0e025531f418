"""Several sources at once."""

import logging

import pytest
import torch

from falcon_ssl.commands.card import published
from falcon_ssl.commands.evaluate import evaluation_name
from falcon_ssl.commands.loading import data_record
from falcon_ssl.config import ReadingConfig
from falcon_ssl.config.sources import source_names
from falcon_ssl.core.errors import InputError
from falcon_ssl.data import data_paths, data_rows, load_splits


def everything(source):
    return source.images(torch.arange(len(source)))


@pytest.fixture
def two(write_folder, write_tar):
    """Folders of classes a, b and b, c; the second has a test part."""
    root = write_folder(
        {"one/a/1.png": 1, "one/b/2.png": 2, "two/train/b/3.png": 3, "two/train/c/4.png": 4}
        | {"two/test/c/5.png": 5}
    )
    return f"folder:{root / 'one'}", f"folder:{root / 'two'}"


def test_images_come_one_source_after_the_other(two):
    first, second = (load_splits(name) for name in two)
    both = load_splits(" + ".join(two))
    parts = [everything(first.train), everything(second.train)]
    assert torch.equal(everything(both.train), torch.cat(parts))
    assert torch.equal(everything(both.test), everything(second.test))
    on_demand = load_splits(" + ".join(two), ReadingConfig(in_memory=False))
    assert torch.equal(everything(on_demand.train), everything(both.train))
    last = torch.tensor([3])
    assert data_paths(both.train, last) == data_paths(second.train, torch.tensor([1]))
    assert data_rows(both.train, last).tolist() == [3]


def test_the_record_names_every_source(two):
    name = " + ".join(two)
    record = data_record(name, load_splits(name))
    assert record["sources"] == {two[0]: 2, two[1]: 3}
    assert "one: all images; no test part + two: folders train and test" in record["note"]
    assert "sources" not in data_record(two[0], load_splits(two[0]))
    assert published(name) == "folder:one + folder:two"
    assert evaluation_name(data=name) == "evaluation-one-two.json"


def test_classes_are_joined_by_name(two):
    splits = load_splits(" + ".join(two), ReadingConfig(folder_labels=True))
    assert splits.train.class_names == ["a", "b", "c"]
    assert splits.train.labels.tolist() == [0, 1, 1, 2]
    assert splits.test.labels.tolist() == [2]
    assert splits.test.class_names == ["a", "b", "c"]


def test_numbers_without_names_are_no_labels(two, write_tar, caplog):
    shard = write_tar("shard.tar", {"1.png": 7, "1.cls": b"0"})
    with caplog.at_level(logging.WARNING):
        splits = load_splits(f"{two[0]} + tar:{shard}", ReadingConfig(folder_labels=True))
    assert (len(splits.train), splits.train.labels) == (3, None)
    assert "labels are not read" in caplog.text


def test_streams_are_joined_block_by_block(write_parquet, write_tar):
    table = write_parquet("set/train.parquet", 6, rows_per_group=2)
    shard = write_tar("shard.tar", {"1.png": 7, "2.png": 8})
    joined = load_splits(f"parquet:{table} + tar:{shard}", ReadingConfig(stream=True)).train
    assert joined.blocks == (2, 2, 2, 2)
    kept = load_splits(f"parquet:{table} + tar:{shard}").train
    assert torch.equal(everything(joined), everything(kept))


def test_images_of_other_sizes_and_gray_ones_meet(write_folder, png):
    root = write_folder({"color/1.png": 1, "gray/1.png": png(2, channels=1, size=(9, 9))})
    name = f"folder:{root / 'color'} + folder:{root / 'gray'}"
    assert load_splits(name).train.image_shape == (3, 8, 8)
    assert load_splits(name, ReadingConfig(image_size=8)).train.image_shape == (3, 8, 8)


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        ("digits + folder:x", {}, "digits cannot be joined"),
        ("folder:x + python:my:data", {}, "python cannot be joined"),
        ("folder:x + folder:x", {}, "named twice"),
        ("folder:x + tar:", {}, "unknown data"),
        ("folder:x + tar:y", {"stream": True}, "stream does not fit"),
    ],
)
def test_what_cannot_be_joined_is_refused(data, options, message):
    with pytest.raises(InputError, match=message):
        load_splits(data, ReadingConfig(**options))


def test_a_plus_in_a_path_joins_nothing():
    assert source_names("folder:salt + pepper") == ["folder:salt + pepper"]
    assert source_names("digits + digits") == ["digits", "digits"]
