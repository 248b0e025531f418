"""Sources: what is read, how it is labeled, and what is refused."""

import io
import logging
import re
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from falcon_ssl.config import ReadingConfig
from falcon_ssl.core.errors import InputError
from falcon_ssl.data import DigitsSource, TensorSource, count_skipped, hub, load_splits
from falcon_ssl.data.hub import SCAN_CLASSES
from falcon_ssl.data.skipped import Skipped
from falcon_ssl.data.source import data_paths, read_images


def everything(source):
    return source.images(torch.arange(len(source)))


def test_digits_are_split_evenly_and_always_alike():
    train, test = DigitsSource("train"), DigitsSource("test")
    assert (len(train), len(test)) == (1437, 360)
    assert train.image_shape == (1, 8, 8)
    counts = torch.bincount(test.labels, minlength=10)
    assert counts.min() >= 34
    assert counts.max() <= 37
    assert everything(train).max() == 255
    assert torch.equal(everything(train), everything(DigitsSource("train")))


def test_digits_parts_do_not_overlap():
    from sklearn.datasets import load_digits

    pixels = load_digits().data
    seen = [everything(DigitsSource(part)).flatten(1) for part in ("train", "test")]
    whole = torch.from_numpy(pixels / 16 * 255).round().to(torch.uint8)
    assert sorted(map(tuple, torch.cat(seen).tolist())) == sorted(map(tuple, whole.tolist()))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(3, 8, 8), "wrong shape"),
        (torch.zeros(0, 1, 8, 8), "wrong shape"),
        (torch.full((2, 1, 8, 8), float("nan")), "not finite"),
        (torch.full((2, 1, 8, 8), 3.0), "out of range"),
        (torch.zeros(2, 1, 8, 8, dtype=torch.int32), "wrong type"),
    ],
)
def test_bad_tensors_are_refused(images, message):
    with pytest.raises(InputError, match=message):
        TensorSource(images, name="mine")


def test_labels_must_fit():
    with pytest.raises(InputError, match="do not fit"):
        TensorSource(torch.zeros(2, 1, 8, 8), name="mine", labels=torch.zeros(3))


@pytest.mark.parametrize("data", ["digitz", "folder", "folder:", "parquet:", "hf:", "s3:x"])
def test_unknown_data_lists_the_known_kinds(data):
    with pytest.raises(InputError, match=r"digits, folder:PATH, parquet:DIR, tar:PATH, hf:NAME"):
        load_splits(data)


def test_a_bare_folder_is_asked_about(tmp_path):
    with pytest.raises(InputError, match=f"did you mean folder:{tmp_path}"):
        load_splits(str(tmp_path))


@pytest.mark.parametrize(
    "options",
    [
        {"image_size": 32},
        {"image_size": 0},
        {"max_unreadable": 2.0},
        {"holdout": 1.0},
        {"folder_labels": True},
        {"stream": True},
    ],
)
def test_options_that_do_not_fit_are_refused(options):
    with pytest.raises(InputError):
        load_splits("digits", ReadingConfig(**options))


class TestFolder:
    def test_any_nesting_is_read_in_order_of_paths(self, write_folder):
        root = write_folder({"b/x/2.png": 2, "a/1.PNG": 1, "c.png": 3, "notes.txt": b"hello"})
        splits = load_splits(f"folder:{root}")
        assert splits.test is None
        assert len(splits.train) == 3
        assert splits.train.labels is None
        first = np.array(Image.open(root / "a" / "1.PNG"))
        assert torch.equal(everything(splits.train)[0], torch.from_numpy(first).permute(2, 0, 1))
        assert "PNG files" in splits.note

    def test_train_and_test_folders_with_classes(self, write_folder):
        root = write_folder(
            {"train/dog/1.png": 1, "train/cat/2.png": 2, "train/dog/3.png": 3, "val/dog/4.png": 4}
        )
        splits = load_splits(f"folder:{root}", ReadingConfig(folder_labels=True))
        assert splits.train.class_names == ["cat", "dog"]
        assert splits.train.labels.tolist() == [0, 1, 1]
        assert splits.test.labels.tolist() == [1]
        assert "train and val" in splits.note

    def test_unknown_classes_in_the_test_part_are_refused(self, write_folder):
        root = write_folder({"train/dog/1.png": 1, "test/cow/4.png": 4})
        with pytest.raises(InputError, match=r"training images lack.*cow"):
            load_splits(f"folder:{root}", ReadingConfig(folder_labels=True))

    def test_labels_need_class_folders(self, write_folder):
        with pytest.raises(InputError, match="no class folder"):
            load_splits(f"folder:{write_folder({'1.png': 1})}", ReadingConfig(folder_labels=True))

    def test_missing_and_empty_folders_are_refused(self, tmp_path):
        with pytest.raises(InputError, match="no such image folder"):
            load_splits(f"folder:{tmp_path / 'nowhere'}")
        with pytest.raises(InputError, match=f"paths are relative to {Path.cwd()}"):
            load_splits("folder:nowhere")
        with pytest.raises(InputError, match=r"has no images: received no files.*\.jpeg"):
            load_splits(f"folder:{tmp_path}")
        for name in ("a.heic", "b.txt", "c/d.txt", ".e.png"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).touch()
        with pytest.raises(InputError, match=r"received 3 files of other kinds: \.txt, \.heic,"):
            load_splits(f"folder:{tmp_path}")

    def test_files_of_other_kinds_are_named(self, write_folder, caplog):
        root = write_folder({"1.png": 1})
        for name in ("a.HEIC", "b.txt"):
            (root / name).touch()
        with caplog.at_level("INFO"):
            assert len(load_splits(f"folder:{root}").train) == 1
        assert "left out 2 files of other kinds: .HEIC, .txt" in caplog.text

    def test_a_class_called_train_is_no_split(self, write_folder, caplog):
        root = write_folder({"train/1.png": 1, "cat/2.png": 2, "dog/3.png": 3})
        with caplog.at_level("INFO"):
            splits = load_splits(f"folder:{root}", ReadingConfig(folder_labels=True))
        assert splits.test is None
        assert splits.train.class_names == ["cat", "dog", "train"]
        assert "train is read as a class, like cat, dog beside it" in caplog.text

    @pytest.mark.parametrize("beside", ["notes/1.txt", ".cache/1.png", "test/.2.png"])
    def test_folders_without_images_do_not_matter(self, write_folder, beside):
        root = write_folder({"train/1.png": 1, "val/2.png": 2, beside: 3})
        splits = load_splits(f"folder:{root}")
        assert (len(splits.train), len(splits.test)) == (1, 1)

    def test_images_that_are_in_no_part_are_logged(self, write_folder, caplog):
        root = write_folder({"train/1.png": 1, "test/2.png": 2, "unlabeled/3.png": 3})
        splits = load_splits(f"folder:{root}")
        assert (len(splits.train), len(splits.test)) == (1, 1), "the test part is never trained on"
        assert "left out, because there is a folder train: unlabeled" in caplog.text

    def test_an_empty_train_folder_is_refused(self, write_folder):
        root = write_folder({"val/2.png": 2})
        (root / "train").mkdir()
        with pytest.raises(InputError, match="train has no images"):
            load_splits(f"folder:{root}")

    def test_dot_files_are_no_images(self, write_folder):
        root = write_folder({"a/1.png": 1, "a/._1.png": b"macOS", ".thumbnails/1.png": 2})
        assert len(load_splits(f"folder:{root}", ReadingConfig(max_unreadable=0)).train) == 1

    def test_links_are_followed_once(self, write_folder, tmp_path):
        root = write_folder({"a/1.png": 1, "b/2.png": 2})
        (root / "a" / "again").symlink_to(root)
        (root / "a" / "itself").symlink_to(root / "a")
        elsewhere = tmp_path / "elsewhere"
        (root / "b").rename(elsewhere)
        (root / "b").symlink_to(elsewhere)
        (root / "a_first").symlink_to(elsewhere)
        (root / "z").mkdir()
        (root / "z" / "3.png").write_bytes((root / "a" / "1.png").read_bytes())
        (root / "a_last").symlink_to(root / "z")
        splits = load_splits(f"folder:{root}", ReadingConfig(folder_labels=True))
        assert splits.train.class_names == ["a", "a_first", "z"]
        assert splits.train.labels.tolist() == [0, 1, 2]

    def test_avif_is_read_where_pillow_reads_it(self, write_folder, png, monkeypatch):
        from PIL import features

        assert features.check("avif"), "the Pillow of constraints.txt reads it"
        picture = io.BytesIO()
        Image.open(io.BytesIO(png(1))).save(picture, "AVIF")
        root = write_folder({"1.avif": picture.getvalue(), "2.png": 2})
        assert len(load_splits(f"folder:{root}").train) == 2
        monkeypatch.setattr(features, "check", lambda name: False)
        assert len(load_splits(f"folder:{root}").train) == 1

    @pytest.mark.parametrize(
        ("sizes", "side"),
        [
            ([(300, 200), (150, 400), (90, 90)], 128),
            ([(20, 30), (27, 60), (500, 500)], 24),
            ([(5, 9), (5, 7)], 5),
        ],
    )
    def test_images_of_several_sizes_are_brought_to_one(
        self, write_folder, png, caplog, sizes, side
    ):
        root = write_folder({f"{i}.png": png(i, size=size) for i, size in enumerate(sizes)})
        with caplog.at_level(logging.INFO):
            splits = load_splits(f"folder:{root}")
        assert splits.train.image_shape == (3, side, side)
        assert splits.resized_to == side
        assert f"brought to {side} x {side}, or to another --reading.image_size" in caplog.text
        chosen = load_splits(f"folder:{root}", ReadingConfig(image_size=16))
        assert chosen.train.image_shape == (3, 16, 16)
        assert chosen.resized_to is None

    def test_images_of_one_size_keep_it(self, write_folder, png):
        root = write_folder({f"{i}.png": png(i, size=(300, 200)) for i in range(2)})
        splits = load_splits(f"folder:{root}")
        assert splits.train.image_shape == (3, 300, 200)
        assert splits.resized_to is None

    def test_gray_folders_have_one_channel(self, write_folder, png):
        root = write_folder({"1.png": png(1, channels=1), "2.png": png(2, channels=1)})
        assert load_splits(f"folder:{root}").train.image_shape == (1, 12, 12)

    def test_holdout_is_fixed_and_disjoint(self, write_folder):
        root = write_folder({f"{i:02}.png": i for i in range(10)})
        splits, again = (
            load_splits(f"folder:{root}", ReadingConfig(holdout=0.3)) for _ in range(2)
        )
        assert (len(splits.train), len(splits.test)) == (7, 3)
        assert "held out" in splits.note
        assert torch.equal(everything(splits.test), everything(again.test))
        whole = everything(load_splits(f"folder:{root}").train)
        parts = torch.cat([everything(splits.train), everything(splits.test)])
        assert sorted(map(tuple, parts.flatten(1).tolist())) == sorted(
            map(tuple, whole.flatten(1).tolist())
        )
        with pytest.raises(InputError, match="leaves a part empty"):
            load_splits(f"folder:{root}", ReadingConfig(holdout=0.01))

    @pytest.mark.parametrize("place", [0, 5, 11])  # the last one, in the order of paths, too
    def test_broken_images_do_not_change_what_is_held_out(self, write_folder, place):
        files = {f"{i:02}.png": i for i in range(12)} | {f"{place:02}.png": b"not an image"}
        root = write_folder(files)
        names = []
        for in_memory in (True, False):
            reading = ReadingConfig(holdout=0.3, in_memory=in_memory, max_unreadable=0.2)
            splits = load_splits(f"folder:{root}", reading)
            kept = [
                read_images(one, torch.arange(len(one)))[0] for one in (splits.train, splits.test)
            ]
            parts = zip((splits.train, splits.test), kept, strict=True)
            names.append([data_paths(source, rows) for source, rows in parts])
        assert names[0] == names[1]
        assert [len(part) for part in names[0]] in ([7, 4], [8, 3])

    def test_a_test_part_stays_unread_when_a_part_of_train_is_held_out(self, write_folder):
        """Options are chosen there, and never by the test part."""
        files = {f"train/{i}.png": i for i in range(10)} | {"test/broken.png": b"not an image"}
        root = write_folder(files)
        splits = load_splits(f"folder:{root}", ReadingConfig(holdout=0.2))
        assert (len(splits.train), len(splits.test)) == (8, 2)
        with pytest.raises(InputError, match=r"broken\.png"):
            load_splits(f"folder:{root}")
        digits = load_splits("digits", ReadingConfig(holdout=0.2))
        assert (len(digits.train), len(digits.test)) == (1150, 287)


class TestUnreadable:
    def write(self, write_folder, broken: int, good: int = 20):
        files = {f"good{i:02}.png": i for i in range(good)}
        files |= {f"broken{i}.png": b"\x89PNG nothing" for i in range(broken)}
        return write_folder(files)

    def test_few_are_skipped_counted_and_listed(self, write_folder, tmp_path, caplog):
        root, listing = self.write(write_folder, broken=1), tmp_path / "skipped.txt"
        with caplog.at_level(logging.WARNING):
            splits = load_splits(
                f"folder:{root}", ReadingConfig(max_unreadable=0.05), skipped_path=listing
            )
        assert len(splits.train) == 20
        assert listing.read_text().startswith(str(root / "broken0.png"))
        load_splits(f"folder:{root}", ReadingConfig(max_unreadable=0.05), skipped_path=listing)
        assert len(listing.read_text().splitlines()) == 1
        assert "skipped" in caplog.text

    def test_two_processes_list_an_image_once_and_read_only_what_is_new(self, tmp_path):
        path, broken = tmp_path / "run" / "skipped.txt", OSError("broken")
        one, two = (Skipped("x", 9, max_unreadable=1.0, path=path) for _ in range(2))
        one.add(0, place="0.png", reason=broken)
        two.add(0, place="0.png", reason=OSError("broken, says another version"))
        two.add(1, place="a\tb\n.png", reason=broken)
        two.add(2, place="0.png.png", reason=broken)
        one.add(1, place="a\tb\n.png", reason=broken)
        lines = ["0.png\tbroken", "a\\tb\\n.png\tbroken", "0.png.png\tbroken"]
        assert path.read_text().splitlines() == lines
        assert count_skipped([one, two]) == 3
        seen = path.stat().st_size
        path.write_text("\n" * seen)  # what was read is not read again
        one.add(3, place="3.png", reason=broken)
        one.add(4, place="0.png", reason=broken)
        assert path.read_text() == "\n" * seen + "3.png\tbroken\n"
        path.unlink()  # a new run begins
        one.add(5, place="0.png", reason=broken)
        assert path.read_text() == "0.png\tbroken\n"

    def test_more_than_one_percent_is_an_error(self, write_folder):
        root = self.write(write_folder, broken=2)
        with pytest.raises(InputError, match=r"too many unreadable.*broken.*max_unreadable"):
            load_splits(f"folder:{root}")

    @pytest.mark.parametrize(
        ("good", "broken", "limit", "message"),
        [
            (20, 1, 0.01, "none, because 1 % of 21 images is less than one"),
            (3, 1, 0.01, "none, because 1 % of 4 images is less than one"),
            (20, 10, 0.1, "at most 3"),
        ],
    )
    def test_what_would_be_allowed_is_said(self, write_folder, good, broken, limit, message):
        root = self.write(write_folder, broken, good)
        with pytest.raises(InputError, match=message) as raised:
            load_splits(f"folder:{root}", ReadingConfig(max_unreadable=limit))
        found = re.search(r"max_unreadable ([0-9.]+)\.$", str(raised.value))
        allowed = ReadingConfig(max_unreadable=float(found[1]))
        assert len(load_splits(f"folder:{root}", allowed).train) == good

    def test_labels_follow_the_images_that_are_left(self, write_folder, png):
        files = {f"{'ab'[i % 2]}/{i:02}.png": i for i in range(10)} | {"a/00.png": b"broken"}
        splits = load_splits(
            f"folder:{write_folder(files)}", ReadingConfig(folder_labels=True, max_unreadable=0.2)
        )
        assert splits.train.labels.tolist() == [0] * 4 + [1] * 5

    def test_only_broken_files_are_refused(self, write_folder):
        root = write_folder({"1.png": b"broken", "2.png": b"broken"})
        with pytest.raises(InputError, match="none of the images"):
            load_splits(f"folder:{root}", ReadingConfig(max_unreadable=1.0))

    def test_on_demand_they_are_black_and_known(self, write_folder):
        root = self.write(write_folder, broken=1)
        source = load_splits(
            f"folder:{root}", ReadingConfig(max_unreadable=0.05, in_memory=False)
        ).train
        assert len(source) == 21
        images = everything(source)
        assert (images[0] == 0).all()  # "broken0" comes before "good00"
        assert source.readable(torch.arange(21)).tolist() == [False] + [True] * 20


class TestTables:
    def test_parquet_train_and_test(self, write_parquet, png):
        folder = write_parquet("set/train.parquet", 6)
        write_parquet("set/test.parquet", 4, first_seed=50)
        splits = load_splits(f"parquet:{folder}")
        assert (len(splits.train), len(splits.test)) == (6, 4)
        assert splits.train.labels.tolist() == [0, 1, 0, 1, 0, 1]
        assert splits.train.class_names == ["cat", "dog"]
        assert splits.note == "set: its train and test splits; PNG files"
        on_demand = load_splits(f"parquet:{folder}", ReadingConfig(in_memory=False))
        assert torch.equal(everything(splits.test), everything(on_demand.test))
        assert not torch.equal(everything(splits.test), everything(splits.train)[:4])

    def test_parquet_shards_are_joined_in_order(self, write_parquet):
        folder = write_parquet("set/data/train-00001-of-00002.parquet", 2, first_seed=2).parent
        write_parquet("set/data/train-00000-of-00002.parquet", 2)
        whole = write_parquet("whole/train.parquet", 4)
        shards = load_splits(f"parquet:{folder}")
        assert shards.test is None
        assert torch.equal(
            everything(shards.train), everything(load_splits(f"parquet:{whole}").train)
        )

    def test_streaming_reads_the_same_without_storing(self, write_parquet, tmp_path):
        folder = write_parquet("set/train-0.parquet", 10, rows_per_group=4)
        write_parquet("set/train-1.parquet", 7, rows_per_group=3, first_seed=10)
        write_parquet("set/test.parquet", 3, first_seed=50)
        streamed = load_splits(f"parquet:{folder}", ReadingConfig(stream=True))
        assert not list((tmp_path / "cache").rglob("*.arrow"))
        kept = load_splits(f"parquet:{folder}")
        assert list((tmp_path / "cache").rglob("*.arrow"))
        assert streamed.train.blocks == (4, 4, 2, 3, 3, 1)
        for part in ("train", "test"):
            one, other = getattr(streamed, part), getattr(kept, part)
            assert torch.equal(everything(one), everything(other))
            assert torch.equal(one.labels, other.labels)
            assert one.class_names == other.class_names
        assert streamed.note == kept.note

    def test_streaming_refuses_what_is_no_parquet(self, tmp_path):
        (tmp_path / "train.parquet").write_bytes(b"nothing")
        with pytest.raises(InputError, match="cannot open a parquet file"):
            load_splits(f"parquet:{tmp_path}", ReadingConfig(stream=True))

    @pytest.mark.parametrize("options", [{"holdout": 0.1}, {"in_memory": True}])
    def test_streaming_contradictions_are_refused(self, write_parquet, options):
        folder = write_parquet("set/train.parquet", 4)
        with pytest.raises(InputError, match="stream"):
            load_splits(f"parquet:{folder}", ReadingConfig(stream=True, **options))

    def test_a_path_that_is_no_folder_is_refused(self, write_parquet, tmp_path):
        folder = write_parquet("set/train.parquet", 2)
        with pytest.raises(InputError, match=rf"takes a folder.*: parquet:{folder}\b"):
            load_splits(f"parquet:{folder / 'train.parquet'}")
        with pytest.raises(
            InputError, match=r"no such folder of parquet files: received .*nowhere"
        ):
            load_splits(f"parquet:{tmp_path / 'nowhere'}")

    def test_no_parquet_is_refused(self, tmp_path):
        with pytest.raises(InputError, match="no parquet files"):
            load_splits(f"parquet:{tmp_path}")

    def test_a_table_without_images_is_refused(self, write_parquet):
        folder = write_parquet("set/train.parquet", 2, image="picture")
        with pytest.raises(InputError, match=r"no column of images.*picture"):
            load_splits(f"parquet:{folder}")

    def test_a_file_that_is_no_parquet_is_refused(self, tmp_path, write_parquet):
        (tmp_path / "train.parquet").write_bytes(b"nothing")
        with pytest.raises(InputError, match="cannot open"):
            load_splits(f"parquet:{tmp_path}")

    def test_unlabeled_tables_have_no_labels(self, write_parquet):
        splits = load_splits(f"parquet:{write_parquet('set/train.parquet', 2, label=None)}")
        assert splits.train.labels is None

    def test_hidden_test_labels_give_way_to_the_validation_split(self, write_parquet):
        folder = write_parquet("set/train.parquet", 4)
        write_parquet("set/test.parquet", 2, labels=[-1, -1])
        write_parquet("set/validation.parquet", 3)
        assert len(load_splits(f"parquet:{folder}").test) == 3


class TestHub:
    """Small repositories in the layout of the hub stand for the large ones."""

    @pytest.fixture
    def repository(self, write_parquet, tmp_path, monkeypatch):
        def write(
            name: str, splits: dict[str, dict], *, config: str | None = None, stream: bool = False
        ):
            folder = f"{config or 'data'}"
            for split, options in splits.items():
                write_parquet(f"repo/{folder}/{split}-00000-of-00001.parquet", **options)
            if config is not None:
                (tmp_path / "repo" / "README.md").write_text(
                    f"---\nconfigs:\n- config_name: {config}\n  data_files:\n"
                    + "".join(
                        f"  - split: {split}\n    path: {folder}/{split}-*\n" for split in splits
                    )
                    + "---\n"
                )
            known = replace(hub.HUB_SETS[name], repo=str(tmp_path / "repo"))
            monkeypatch.setitem(hub.HUB_SETS, name, known)
            return load_splits(f"hf:{name}", ReadingConfig(stream=stream))

        return write

    def test_cifar10_has_its_own_column_name(self, repository):
        splits = repository(
            "cifar10", {"train": {"count": 4, "image": "img"}, "test": {"count": 2, "image": "img"}}
        )
        assert (len(splits.train), len(splits.test)) == (4, 2)
        assert splits.note == "cifar10: official split; PNG files"

    def test_cifar100_is_labeled_finely(self, repository):
        options = {"image": "img", "label": "fine_label", "names": ("apple", "bear", "crab")}
        splits = repository(
            "cifar100", {"train": {"count": 6, **options}, "test": {"count": 3, **options}}
        )
        assert splits.train.class_names == ["apple", "bear", "crab"]

    @pytest.mark.parametrize("stream", [False, True])
    def test_svhn_leaves_extra_out(self, repository, stream):
        splits = repository(
            "svhn",
            {"train": {"count": 5}, "test": {"count": 2}, "extra": {"count": 9}},
            config="cropped_digits",
            stream=stream,
        )
        assert (len(splits.train), len(splits.test)) == (5, 2)

    def test_imagenet100_cmc_names_its_list(self, repository):
        splits = repository("imagenet100-cmc", {"train": {"count": 3}, "validation": {"count": 2}})
        assert len(splits.test) == 2
        assert "imagenet100-cmc" in splits.note

    @pytest.mark.parametrize("stream", [False, True])
    def test_imagenet100_scan_is_cut_out_of_imagenet1k(self, repository, stream):
        names = tuple(f"class {index}" for index in range(1000))
        labels = [0, SCAN_CLASSES[0], SCAN_CLASSES[99], 999, SCAN_CLASSES[1]]
        options = {"count": 5, "labels": labels, "names": names}
        splits = repository(
            "imagenet100-scan", {"train": options, "validation": options}, stream=stream
        )
        assert len(splits.train) == 3
        assert splits.train.labels.tolist() == [0, 99, 1]
        assert len(splits.train.class_names) == 100
        assert splits.train.class_names[99] == f"class {SCAN_CLASSES[99]}"
        assert "imagenet100-scan" in splits.note

    def test_imagenet1k_reports_on_its_validation_images(self, repository):
        splits = repository(
            "imagenet1k",
            {
                "train": {"count": 3},
                "validation": {"count": 2},
                "test": {"count": 2, "labels": [-1, -1]},
            },
        )
        assert splits.test.labels.tolist() == [0, 1]

    def test_scan_list_is_a_hundred_known_classes(self):
        assert len(set(SCAN_CLASSES)) == 100
        timm = Path(find_spec("timm").origin).parent  # importing it takes many seconds
        synsets = (timm / "data" / "_info" / "imagenet_synsets.txt").read_text().split()
        # The first, two in the middle and the last line of the published list.
        published = {15: "n01558993", 508: "n03085013", 715: "n03929855", 984: "n11879895"}
        for index, synset in published.items():
            assert index in SCAN_CLASSES
            assert synsets[index] == synset

    def test_unknown_names_list_the_known_ones(self):
        with pytest.raises(InputError, match=r"cifar10, cifar100, svhn, imagenet100-cmc"):
            load_splits("hf:cifar11")

    def test_a_set_that_cannot_be_opened_says_what_to_do(self, tmp_path):
        with pytest.raises(InputError, match=r"cannot open.*hf auth login"):
            load_splits(f"hf:{tmp_path}/nowhere")
