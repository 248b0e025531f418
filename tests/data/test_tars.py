"""Tar files in the WebDataset format."""

import gzip
import logging

import pytest
import torch

from falcon_ssl.config import ReadingConfig
from falcon_ssl.core.errors import InputError
from falcon_ssl.data import build_loader, load_splits


def everything(source):
    return source.images(torch.arange(len(source)))


@pytest.fixture
def shards(write_tar):
    """Two tar files to train on and one to test on, with labels; a folder of three more images of the last."""
    for shard in range(2):
        seeds = range(10 * shard, 10 * shard + 5)
        members = {f"{seed:04}.png": seed for seed in seeds}
        members |= {f"{seed:04}.cls": f"{seed % 3}\n".encode() for seed in seeds}
        members["0001.json"] = b"{}"
        write_tar(f"shards/train-{shard}.tar", dict(sorted(members.items())))
    return write_tar("shards/test-0.tar", {"a.1.png": 20, "a.1.cls": b"7"}).parent


def test_samples_are_images_in_the_order_of_their_files(shards, write_folder):
    splits = load_splits(f"tar:{shards}")
    files = {f"{seed:02}.png": seed for seed in (*range(5), *range(10, 15))}
    assert torch.equal(
        everything(splits.train), everything(load_splits(f"folder:{write_folder(files)}").train)
    )
    assert splits.train.labels.tolist() == [seed % 3 for seed in (*range(5), *range(10, 15))]
    assert splits.test.labels.tolist() == [7]
    assert splits.train.paths(torch.tensor([9])) == [f"{shards}/train-1.tar/0014.png"]


def test_a_single_file_and_any_names_are_for_training(shards, write_tar):
    one = load_splits(f"tar:{shards / 'train-0.tar'}")
    assert (len(one.train), one.test) == (5, None)
    file = write_tar("others/pictures.tar", {"x/1.png": 1, "y/1.png": 2, "y/1.txt": b"words"})
    other = load_splits(f"tar:{file.parent}")
    assert (len(other.train), other.train.labels) == (2, None)


@pytest.mark.parametrize("options", [{"in_memory": False}, {"stream": True}])
def test_on_demand_and_streamed_they_are_the_same_images(shards, options):
    kept = load_splits(f"tar:{shards}").train
    read = load_splits(f"tar:{shards}", ReadingConfig(**options)).train
    assert torch.equal(everything(kept), everything(read))
    assert getattr(read, "blocks", None) == ((5, 5) if "stream" in options else None)
    loader = build_loader(read, batch_size=5, seed=0, device="cpu")
    seen = torch.cat([indices for indices, _ in loader.epoch_batches(0)])
    assert sorted(seen.tolist()) == list(range(10))


def test_a_broken_image_is_left_out_and_named(shards, write_tar, caplog):
    write_tar("shards/train-2.tar", {"1.png": b"no image"})
    with caplog.at_level(logging.WARNING):
        splits = load_splits(f"tar:{shards}", ReadingConfig(max_unreadable=0.5))
    assert len(splits.train) == 10
    assert "train-2.tar/1.png" in caplog.text


def test_what_is_no_tar_file_is_refused(tmp_path, write_tar):
    good = write_tar("good.tar", {"1.png": 1, "1.cls": b"\xff\xfe"})
    with pytest.raises(InputError, match=r"cannot read a tar file.*good\.tar"):
        load_splits(f"tar:{good}")
    packed = tmp_path / "packed.tar"
    packed.write_bytes(gzip.compress(good.read_bytes()))
    with pytest.raises(InputError, match=r"uncompressed"):
        load_splits(f"tar:{packed}")
    cut = tmp_path / "cut.tar"
    cut.write_bytes(write_tar("whole.tar", {"1.png": bytes(4096), "2.png": 2}).read_bytes()[:3000])
    with pytest.raises(InputError, match=r"cannot read a tar file.*cut\.tar"):
        load_splits(f"tar:{cut}")
    with pytest.raises(InputError, match="no tar files"):
        load_splits(f"tar:{tmp_path / 'nowhere'}")
    with pytest.raises(InputError, match="no images in the tar files"):
        load_splits(f"tar:{write_tar('words.tar', {'1.txt': b'words'})}")


def test_a_member_of_negative_size_is_no_endless_file(tmp_path, write_tar):
    """Python 3.11.7's tarfile would read the members before it again and again."""
    data = bytearray(write_tar("whole.tar", {"1.png": 1, "2.png": 2}).read_bytes())
    head = data.rindex(b"2.png")
    data[head + 124 : head + 136] = (-1024).to_bytes(12, "big", signed=True)
    data[head + 148 : head + 156] = b" " * 8
    data[head + 148 : head + 156] = b"%06o\x00 " % sum(data[head : head + 512])
    (tmp_path / "endless.tar").write_bytes(data)
    with pytest.raises(InputError, match=r"cannot read a tar file.*-1024 bytes"):
        load_splits(f"tar:{tmp_path / 'endless.tar'}")


def test_labels_have_63_bits_and_minus_one_hides_them(write_tar):
    with pytest.raises(InputError, match=r"cannot read a tar file.*the label 9+ in 1\.cls"):
        load_splits(f"tar:{write_tar('long.tar', {'1.png': 1, '1.cls': b'9' * 31})}")
    hidden = write_tar("hidden.tar", {"1.png": 1, "1.cls": b"-1", "2.png": 2, "2.cls": b"3"})
    assert load_splits(f"tar:{hidden}").train.labels is None


def test_a_label_may_be_a_word(write_tar):
    """Numbered in the order of the training part's, as the cells of a table are."""

    def write(part, words):
        members = {}
        for i, word in enumerate(words):
            members |= {f"{i}.png": i, f"{i}.cls": word.encode() + b"\n"}
        return write_tar(f"named/{part}.tar", members).parent

    folder = write("train", ["cat", "dog", "dog", "cat"])
    write("test", ["dog"])
    splits = load_splits(f"tar:{folder}")
    assert splits.train.labels.tolist() == [0, 1, 1, 0]
    assert splits.test.labels.tolist() == [1]
    assert splits.train.class_names == splits.test.class_names == ["cat", "dog"]
    write("test", ["1"])
    with pytest.raises(InputError, match="labeled in two ways"):
        load_splits(f"tar:{folder}")
    write("test", ["bird"])
    with pytest.raises(InputError, match="training images lack: received bird"):
        load_splits(f"tar:{folder}")
