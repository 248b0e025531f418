"""Every kind of image file is read as a person sees it."""

import numpy as np
import pytest
import torch
from PIL import Image

from falcon_ssl.data.decode import decode, read_head
from support.images import encoded, pixels

RGB, GRAY = (3, 12, 12), (1, 12, 12)


def expected(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array.reshape(*array.shape[:2], -1)).permute(2, 0, 1)


def test_rgb_and_gray_are_read_as_they_are():
    color, gray = pixels(), pixels(channels=1)
    assert torch.equal(decode(encoded(Image.fromarray(color)), RGB), expected(color))
    assert torch.equal(decode(encoded(Image.fromarray(gray)), GRAY), expected(gray))


def test_gray_becomes_three_equal_channels_where_color_is_asked_for():
    gray = pixels(channels=1)
    assert torch.equal(
        decode(encoded(Image.fromarray(gray)), RGB), expected(gray).expand(3, -1, -1)
    )


def test_color_becomes_luma_where_gray_is_asked_for():
    color = pixels()
    luma = color @ np.array([0.299, 0.587, 0.114])
    read = decode(encoded(Image.fromarray(color)), GRAY)[0]
    assert np.abs(read.numpy() - luma).max() <= 1


def test_transparency_is_composited_over_white():
    color = np.zeros((12, 12, 4), np.uint8)
    color[..., 0] = 200
    color[:6, :, 3], color[6:, :, 3] = 255, 0
    read = decode(encoded(Image.fromarray(color)), RGB)
    assert read[:, 0, 0].tolist() == [200, 0, 0]
    assert read[:, 11, 0].tolist() == [255, 255, 255]


def test_half_transparent_gray_is_mixed_with_white():
    layers = np.zeros((12, 12, 2), np.uint8)
    layers[..., 1] = 128
    read = decode(encoded(Image.fromarray(layers, "LA")), GRAY)
    assert read.unique().tolist() == [127]


def test_palette_with_transparent_color():
    image = Image.new("P", (12, 12), 1)
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((0, 0), 0)
    read = decode(encoded(image, transparency=0), RGB)
    assert read[:, 0, 0].tolist() == [255, 255, 255]
    assert read[:, 5, 5].tolist() == [40, 50, 60]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_gray_keeps_its_upper_bits(kind):
    deep = np.linspace(0, 65535, 144).astype(np.uint16).reshape(12, 12)
    read = decode(encoded(Image.fromarray(deep), kind), GRAY)
    assert torch.equal(read, expected((deep >> 8).astype(np.uint8)))


def test_cmyk_becomes_rgb():
    red = Image.new("RGB", (12, 12), (220, 30, 30))
    read = decode(encoded(red.convert("CMYK"), "JPEG", quality=95), RGB).float()
    assert (read.mean(dim=(1, 2)) - torch.tensor([220.0, 30, 30])).abs().max() < 12


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_done(orientation):
    # A picture whose upright top left quarter is white, stored turned.
    upright = np.zeros((16, 24), np.uint8)
    upright[:8, :12] = 255
    undo = {
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: np.transpose,
        6: lambda a: np.rot90(a, 1),
        7: lambda a: np.rot90(a, 2).T,
        8: lambda a: np.rot90(a, -1),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(undo[orientation](upright)))
    data = encoded(stored, "JPEG", quality=95, exif=exif)
    assert read_head(data).shape == (1, 16, 24)
    read = decode(data, (1, 16, 24))[0].int()
    assert (read - torch.from_numpy(upright).int()).abs().max() < 16


def test_another_size_is_covered_and_cut_around_the_center():
    wide = np.zeros((20, 60), np.uint8)
    wide[:, 20:40] = 255  # the square in the middle
    read = decode(encoded(Image.fromarray(wide)), (1, 10, 10))
    assert read[:, 1:-1, 1:-1].min() > 240  # the edge mixes with what lies outside


def test_large_jpegs_decode_small_without_losing_quality():
    smooth = np.add.outer(np.arange(512), np.arange(512)).astype(np.uint8)
    image = Image.fromarray(np.minimum(smooth, 255 - smooth))
    data = encoded(image, "JPEG", quality=95)
    read = decode(data, (1, 64, 64)).float()
    direct = image.resize((64, 64), Image.Resampling.BICUBIC)
    assert (read[0] - torch.from_numpy(np.array(direct)).float()).abs().mean() < 2


@pytest.mark.parametrize("value", [float("nan"), -0.1, 1.5])
def test_floating_point_pixels_must_be_in_range(value):
    gray = np.full((12, 12), 0.5, np.float32)
    read = decode(encoded(Image.fromarray(gray), "TIFF"), GRAY)
    assert read.unique().tolist() == [128]
    gray[3, 3] = value
    with pytest.raises(ValueError, match="NaN or outside"):
        decode(encoded(Image.fromarray(gray), "TIFF"), GRAY)


@pytest.mark.parametrize("broken", [b"", b"no image", "truncated"])
def test_broken_files_raise(broken):
    data = encoded(Image.fromarray(pixels(size=(64, 64))), "JPEG")
    with pytest.raises(OSError, match=r"identify|truncated"):
        decode(data[: len(data) // 2] if broken == "truncated" else broken, RGB)


def test_look_names_format_and_quality():
    image = Image.fromarray(pixels())
    assert read_head(encoded(image)).encoding == "PNG"
    for quality in (40, 75, 95):
        assert read_head(encoded(image, "JPEG", quality=quality)).encoding == f"JPEG q{quality}"
