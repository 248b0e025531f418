"""From the bytes of an image file to uint8 pixels, whatever the file holds."""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from PIL.Image import Image

_GRAY_MODES = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N", "F")
_IJG_LUMINANCE_SUM = 3688  # of the quantization table of the JPEG standard, quality 50


Shape: TypeAlias = tuple[int, int, int]  # channels (1 is grayscale, 3 RGB), height, width


def decode(data: bytes, shape: Shape, *, max_pixels: float = math.inf) -> Tensor:
    """Decode the content of an image file of any format that Pillow reads, to uint8 [C, H, W].

    The EXIF orientation is applied; transparency is composited over white; palettes, CMYK and
    other color spaces become RGB; 16-bit grayscale keeps its upper 8 bits; floating point
    grayscale must be in [0, 1]. An image of another size is resized, antialiased, until it covers the shape, and
    cut to it around its center.

    Raises:
        Exception: Whatever Pillow makes of a file that is broken; ValueError for floating point
            pixels that are NaN or out of range, and for images of more pixels than allowed: nine kilobytes may
            unpack to 81 megapixels.
    """
    return pixels_of(
        upright_image(data, max_pixels=max_pixels, size=(2 * shape[2], 2 * shape[1])), shape
    )


def upright_image(data: bytes, *, max_pixels: float, size: tuple[int, int] | None = None) -> Image:
    """The image in a file, turned as its EXIF orientation says; a JPEG may be decoded smaller, down to ``size``."""
    from PIL import Image as pil
    from PIL import ImageOps

    image: Image = pil.open(io.BytesIO(data))
    if size is not None:
        image.draft(None, size)
    check_size(image.width * image.height, max_pixels)
    ImageOps.exif_transpose(image, in_place=True)
    return image


def check_size(count: int, most: float) -> None:
    """Raise ValueError for an image of more pixels than allowed."""
    if count > most:
        raise ValueError(
            f"{count / 1e6:.0f} megapixels, more than --reading.max_megapixels {most / 1e6:g}"
        )


def pixels_of(image: Image, shape: Shape) -> Tensor:
    """The pixels of an image that Pillow has opened and turned, as `decode` returns them."""
    from PIL import Image as pil
    from PIL import ImageOps

    channels, height, width = shape
    mode = "L" if channels == 1 else "RGB"
    image = plain(image)
    if image.mode != mode:
        image = image.convert(mode)
    if image.size != (width, height):
        image = ImageOps.fit(image, (width, height), method=pil.Resampling.BICUBIC)
    pixels = np.array(image)  # a copy that owns its memory
    return torch.from_numpy(pixels.reshape(*pixels.shape[:2], -1)).permute(2, 0, 1)


class Head(NamedTuple):
    """Properties of an image, from the head of its file."""

    shape: Shape  # size after the EXIF orientation, and 1 channel for grayscale
    encoding: str  # "PNG", "JPEG q75" and the like


def read_head(data: bytes) -> Head:
    """Read the head of an image file; raises whatever Pillow makes of a broken one."""
    from PIL import ExifTags
    from PIL import Image as pil

    with pil.open(io.BytesIO(data)) as image:
        width, height = image.size
        if image.getexif().get(ExifTags.Base.Orientation, 1) >= 5:
            width, height = height, width
        channels = 1 if image.mode in _GRAY_MODES else 3
        return Head((channels, height, width), _encoding(image))


def plain(image: Image) -> Image:
    """Remove what ``convert`` to L or RGB would get wrong: transparency, 16-bit and floating point grayscale."""
    from PIL import Image as pil

    if image.mode.startswith("I"):
        deep = np.asarray(image).astype(np.int64)
        if deep.size and (deep.min() < 0 or deep.max() > 65535):
            raise ValueError(f"gray values from {deep.min()} to {deep.max()}, expected 0 to 65535")
        return pil.fromarray((deep >> 8).astype(np.uint8))
    if image.mode == "F":
        gray = np.asarray(image)
        if not ((gray >= 0) & (gray <= 1)).all():  # NaN fails too
            raise ValueError("floating point pixels are NaN or outside [0, 1]")
        return pil.fromarray((gray * 255).round().astype(np.uint8))
    if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        layers = image.convert("RGBA")
        paper = pil.new("RGBA", layers.size, "white")
        return pil.alpha_composite(paper, layers)
    return image


def _encoding(image: Image) -> str:
    """Format of a file; the quality too for JPEGs with the standard's tables."""
    tables = getattr(image, "quantization", None)
    if image.format != "JPEG" or not tables:
        return str(image.format)
    percent = 100 * sum(tables[0]) / _IJG_LUMINANCE_SUM
    quality = (200 - percent) / 2 if percent <= 100 else 5000 / percent
    return f"JPEG q{round(quality)}"
