"""Any number of channels, and 16 bits."""

import io

import numpy as np
import pytest
import tifffile
import torch

from falcon_ssl.config import ReadingConfig
from falcon_ssl.core.errors import InputError
from falcon_ssl.core.extras import MissingExtraError
from falcon_ssl.core.pixels import displayed, take_rows, unit_range
from falcon_ssl.data import TensorSource, build_loader, load_splits
from falcon_ssl.data.bands import decode_bands, tiff_shape
from falcon_ssl.data.decode import decode
from support.images import encoded, pixels

KEEP = {"keep_16bit": True}


def deep(*shape, seed=0, high=65536, dtype=np.uint16):
    return np.random.default_rng(seed).integers(0, high, shape).astype(dtype)


def tiff(array, **options):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


LAYOUTS = {
    "samples": (deep(9, 7, 5), {"photometric": "minisblack", "planarconfig": "contig"}, (0, 1, 2)),
    "planes": (deep(5, 9, 7), {"photometric": "minisblack", "planarconfig": "separate"}, (1, 2, 0)),
    "pages": (deep(5, 9, 7), {"photometric": "minisblack"}, (1, 2, 0)),
    "compressed": (deep(5, 9, 7), {"photometric": "minisblack", "compression": "zlib"}, (1, 2, 0)),
    "bands of a color image": (deep(9, 7, 5), {"photometric": "rgb"}, (0, 1, 2)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_all_bands_and_bits_of_a_tiff_file_are_kept(layout):
    array, options, to_hwc = LAYOUTS[layout]
    data = tiff(array, **options)
    assert tiff_shape(data) == (5, 9, 7)
    found = decode_bands(data, (5, 9, 7), keep_16bit=True)
    assert found.dtype == torch.uint16
    assert np.array_equal(found.numpy(), array.transpose(to_hwc).transpose(2, 0, 1))


def test_eight_bits_of_sixteen_are_rounded():
    found = decode_bands(tiff(deep(9, 7)), (1, 9, 7), keep_16bit=False)
    assert np.array_equal(found[0].numpy(), np.rint(deep(9, 7) / 257).astype(np.uint8))


def test_a_gray_png_keeps_its_bits():
    found = decode_bands(encoded(deep(9, 7)), (1, 9, 7), keep_16bit=True)
    assert np.array_equal(found[0].numpy(), deep(9, 7))


def test_ordinary_images_are_read_as_ever():
    data = encoded(pixels(size=(20, 31)))
    usual, found = decode(data, (3, 8, 8)), decode_bands(data, (3, 8, 8), keep_16bit=False)
    assert (usual.int() - found.int()).abs().max() <= 1  # resized in float32, not in integers
    same = decode_bands(data, (3, 20, 31), keep_16bit=False)
    assert torch.equal(same, decode(data, (3, 20, 31)))
    gray = decode_bands(data, (1, 20, 31), keep_16bit=False)
    assert (gray.int() - decode(data, (1, 20, 31)).int()).abs().max() <= 1


def test_a_range_of_values_fills_the_whole_range():
    array = np.array([[0, 1000], [3000, 4095]], dtype=np.uint16)
    found = decode_bands(tiff(array), (1, 2, 2), keep_16bit=True, value_range=(1000, 3000))
    assert found[0].tolist() == [[0, 0], [65535, 65535]]
    negative = tiff(np.array([[-10.0, 0.0], [5.0, 10.0]], dtype=np.float32))
    found = decode_bands(negative, (1, 2, 2), keep_16bit=False, value_range=(-10, 10))
    assert found[0].tolist() == [[0, 128], [191, 255]]


@pytest.mark.parametrize(
    ("array", "options", "message"),
    [
        (deep(9, 7, dtype=np.float32), {}, "out of range"),
        (np.full((9, 7), np.nan, dtype=np.float32), {"value_range": (0, 1)}, "NaN"),
        (deep(2, 9, 7), {}, "2 bands, expected 1"),
        (deep(90, 70), {"max_pixels": 6000}, "max_megapixels"),
    ],
)
def test_what_does_not_fit_is_refused(array, options, message):
    with pytest.raises(ValueError, match=message):
        decode_bands(tiff(array), (1, 9, 7), keep_16bit=True, **options)


@pytest.fixture
def cells(tmp_path):
    """A folder of ten images of five bands that use 12 bits."""
    folder = tmp_path / "cells"
    folder.mkdir()
    for seed in range(10):
        array = deep(5, 12, 12, seed=seed, high=4096)
        (folder / f"{seed}.tif").write_bytes(tiff(array, photometric="minisblack"))
    return folder


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_folder_of_bands_is_loaded(cells, in_memory):
    reading = ReadingConfig(channels=5, value_range=(0, 4095), in_memory=in_memory, **KEEP)
    source = load_splits(f"folder:{cells}", reading).train
    assert source.image_shape == (5, 12, 12)
    loader = build_loader(source, batch_size=5, seed=0, device="cpu")
    indices, images = next(iter(loader.epoch_batches(0)))
    assert images.dtype == torch.uint16
    wanted = deep(5, 12, 12, seed=int(indices[0]), high=4096) / 4095
    assert np.allclose(unit_range(images)[0].numpy(), wanted, atol=1 / 65535)


def test_images_of_other_bands_say_so(cells):
    with pytest.raises(InputError, match=r"the last one .*5 bands, expected 4"):
        load_splits(f"folder:{cells}", ReadingConfig(channels=4))


def test_tiff_files_that_pillow_cannot_read_say_how_many_bands_they_have(tmp_path):
    (tmp_path / "1.tif").write_bytes(tiff(deep(9, 9, 5), photometric="minisblack", planarconfig=1))
    assert load_splits(f"folder:{tmp_path}").train.image_shape == (5, 9, 9)


def test_without_tifffile_the_extra_is_named(cells, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tifffile", None)
    with pytest.raises(MissingExtraError, match=r"falcon-ssl\[tiff\]"):
        load_splits(f"folder:{cells}", ReadingConfig(channels=5))


@pytest.mark.parametrize("options", [{"channels": 17}, {"channels": 0}, {"value_range": (5, 5)}])
def test_bad_options_are_named(options):
    with pytest.raises(InputError, match=f"reading.{next(iter(options))}"):
        ReadingConfig(**options)


def test_the_digits_have_one_channel():
    with pytest.raises(InputError, match="8 bits of gray"):
        load_splits("digits", ReadingConfig(channels=3))


def test_tensors_of_sixteen_bits_stay():
    images = torch.from_numpy(deep(4, 2, 8, 8))
    source = TensorSource(images, name="mine")
    rows = torch.tensor([2, 0])
    assert torch.equal(source.images(rows), images[rows])
    assert torch.equal(take_rows(images, rows), images[rows])


def test_a_screen_shows_eight_bits_of_one_or_three_channels():
    images = torch.from_numpy(deep(4, 5, 8, 8))
    assert torch.equal(displayed(images), (images[:, :3].float() / 257).round().byte())
    assert displayed(images[:, :2]).shape == (4, 1, 8, 8)
