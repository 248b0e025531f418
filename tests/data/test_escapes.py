"""Files that are not where, or not what, they should be: refused, and nothing outside is read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from falcon_ssl.config import ReadingConfig
from falcon_ssl.core.errors import InputError
from falcon_ssl.data import load_splits, read_images
from falcon_ssl.data.decode import decode
from falcon_ssl.data.skipped import Skipped, count_skipped
from falcon_ssl.records.files import write_text
from support.images import encoded, pixels

ALL_BROKEN = ReadingConfig(max_unreadable=1.0, in_memory=False, image_size=12)


def table_of(folder: Path, cells: list[dict[str, object]]) -> str:
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(exist_ok=True)
    pq.write_table(pa.table({"image": cells, "label": [0] * len(cells)}), folder / "train.parquet")
    return f"parquet:{folder}"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def readable(data: str, reading: ReadingConfig = ALL_BROKEN) -> list[int]:
    """Rows of a data set whose images can be read."""
    train = load_splits(data, reading).train
    return read_images(train, torch.arange(len(train)))[0].tolist()


@pytest.mark.parametrize("stream", [False, True])
def test_cells_of_a_table_name_files_in_its_own_folder_alone(
    stream: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, secret = tmp_path / "table", tmp_path / "secret.png"
    folder.mkdir()
    secret.write_bytes(encoded(pixels(1)))
    (folder / "inside.png").write_bytes(encoded(pixels(2)))
    (folder / "link.png").symlink_to(secret)
    names = ["inside.png", str(folder / "inside.png"), str(secret), "../secret.png", "link.png"]
    cells: list[dict[str, object]] = [{"bytes": encoded(pixels(0)), "path": str(secret)}]
    cells += [{"bytes": None, "path": name} for name in [*names, "/etc/hostname", "/dev/zero"]]
    data = table_of(folder, cells)
    reading = ReadingConfig(max_unreadable=1.0, in_memory=False, image_size=12, stream=stream)
    assert readable(data, reading) == [0, 1, 2]
    assert caplog.text.count("lies outside of") == 5


def test_pipes_and_devices_are_no_images(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A pipe would be waited for and /dev/zero be read until the memory is full."""
    (tmp_path / "a.png").write_bytes(encoded(pixels(0)))
    os.mkfifo(tmp_path / "b.png")
    (tmp_path / "c.png").symlink_to("/dev/zero")
    with (tmp_path / "d.png").open("wb") as file:
        file.truncate(2**40)  # sparse: takes no room
    assert readable(f"folder:{tmp_path}") == [0]
    assert caplog.text.count("no regular file") == 2
    assert "larger than any image" in caplog.text


def test_a_pipe_is_no_record(tmp_path: Path) -> None:
    from falcon_ssl.config.mapping import read_yaml
    from falcon_ssl.records.files import read_json

    os.mkfifo(tmp_path / "pipe")
    for read in (read_json, read_yaml):
        with pytest.raises(InputError, match="no regular file"):
            read(tmp_path / "pipe")


def test_pixels_are_bounded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "bomb.png").write_bytes(encoded(pixels(size=(300, 400), channels=1)))
    (tmp_path / "good.png").write_bytes(encoded(pixels(channels=1)))
    reading = ReadingConfig(max_unreadable=1.0, in_memory=False, image_size=12, max_megapixels=0.1)
    assert readable(f"folder:{tmp_path}", reading) == [1]
    assert "0 megapixels, more than --reading.max_megapixels 0.1" in caplog.text
    jpeg = encoded(pixels(size=(1200, 1200)), "JPEG")
    assert decode(jpeg, (3, 12, 12), max_pixels=1e6).shape == (3, 12, 12), "decoded smaller"


@pytest.mark.parametrize("labels", [["a", "b"], [0.5, 1.0], [0, None], [[0], [1]]])
def test_labels_are_integers(labels: list[object], tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    images = [{"bytes": encoded(pixels(i)), "path": None} for i in range(2)]
    pq.write_table(pa.table({"image": images, "label": labels}), tmp_path / "train.parquet")
    with pytest.raises(InputError, match="the column label holds no labels"):
        load_splits(f"parquet:{tmp_path}")


@pytest.mark.parametrize("stream", [False, True])
def test_labels_that_are_identifiers_are_refused(stream: bool, tmp_path: Path) -> None:
    """A probe would have a row for every number below the largest."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    images = [{"bytes": encoded(pixels(i)), "path": None} for i in range(2)]
    pq.write_table(pa.table({"image": images, "label": [1, 10**9]}), tmp_path / "train.parquet")
    with pytest.raises(InputError, match=r"no numbers of classes: received 1000000000 among them"):
        load_splits(f"parquet:{tmp_path}", ReadingConfig(stream=stream))


def test_names_that_are_not_utf8_are_written_all_the_same(tmp_path: Path) -> None:
    """From archives of other systems: lists, tables and pages hold UTF-8."""
    folder = tmp_path / "images"
    for name, content in ((b"caf\xe9", encoded(pixels(1))), (b"th\xe9", b"broken")):
        (folder / os.fsdecode(name)).mkdir(parents=True)
        (folder / os.fsdecode(name) / os.fsdecode(name + b".png")).write_bytes(content)
    reading = ReadingConfig(max_unreadable=0.5, in_memory=False, image_size=12, folder_labels=True)
    skipped = tmp_path / "skipped.txt"
    train = load_splits(f"folder:{folder}", reading, skipped_path=skipped).train
    assert read_images(train, torch.arange(2))[0].tolist() == [0]
    assert "th\\xe9/th\\xe9.png\t" in skipped.read_text(encoding="utf-8")
    assert train.class_names == ["caf\\xe9", "th\\xe9"]
    assert train.paths(torch.tensor([0]))[0].endswith("caf\\xe9/caf\\xe9.png")
    write_text(tmp_path / "page.html", "folder:" + os.fsdecode(b"caf\xe9"))
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == "folder:caf\\udce9"


def test_a_list_of_unreadable_images_has_one_line_an_image(tmp_path: Path) -> None:
    """Whatever a file is called, and however many lines a library has to say of it."""
    path = tmp_path / "skipped.txt"
    place = "folder/two\nlines\tand a tab.png"
    for _ in range(2):  # a run, and its resumption
        skipped = Skipped("photos", 3, max_unreadable=1.0, path=path)
        skipped.add(0, place=place, reason=OSError("broken\nat byte 7\n"))
        assert count_skipped([skipped]) == 1
    assert path.read_text() == r"folder/two\nlines\tand a tab.png" + "\tbroken at byte 7\n"
