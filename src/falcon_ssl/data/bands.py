"""Images of any number of channels and of 16 bits: microscopes, satellites."""

from __future__ import annotations

import io
import math
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from falcon_ssl.core.extras import train_extra
from falcon_ssl.core.pixels import LUMA, full_scale
from falcon_ssl.data.decode import Shape, check_size, plain, upright_image

Pixels: TypeAlias = np.ndarray[Any, Any]

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def decode_bands(
    data: bytes,
    shape: Shape,
    *,
    keep_16bit: bool,
    value_range: tuple[float, float] | None = None,
    max_pixels: float = math.inf,
) -> Tensor:
    """Decode the content of an image file to uint8 or uint16 [C, H, W], whose full range is [0, 1].

    TIFF files are read with all their bands, be they samples of a pixel or pages (tifffile); other files as Pillow
    reads them, which leaves 8 bits of 16 in color. A gray image becomes a color one, and a color image gray; any other
    number of bands must be that of the shape. The size is brought to the shape as `falcon_ssl.data.decode.decode` does.

    Args:
        data: Content of the file.
        shape: (channels, height, width) of the result.
        keep_16bit: Return uint16.
        value_range: Values that become 0 and 1, others are clamped; None is the range of the file's type, [0, 1] for
            floating point.
        max_pixels: Largest image that is decoded.

    Raises:
        Exception: Whatever Pillow or tifffile make of a broken file; ValueError for bands or values that do not fit.
    """
    x_HWC = _in_unit_range(
        _with_channels(_stored(data, shape[0], max_pixels), shape[0]), value_range
    )
    dtype = torch.uint16 if keep_16bit else torch.uint8
    bands = [_fitted(x_HWC[..., band], shape[1:]) for band in range(shape[0])]
    scaled = (np.stack(bands).clip(0, 1) * full_scale(dtype)).round()
    return torch.from_numpy(scaled.astype(np.uint16 if keep_16bit else np.uint8))


def is_tiff(data: bytes) -> bool:
    """Whether a file begins as TIFF or BigTIFF files do."""
    return data[:4] in _TIFF


def tiff_shape(data: bytes) -> Shape:
    """(channels, height, width) of a TIFF file, from its head."""
    with _tiff(data) as file:
        sizes = dict(zip(file.series[0].axes, file.series[0].shape, strict=True))
        height, width = sizes.pop("Y"), sizes.pop("X")
        return math.prod(sizes.values()), height, width


def _stored(data: bytes, channels: int, max_pixels: float) -> Pixels:
    """[H, W, C] in the type of the file."""
    if is_tiff(data):
        _, height, width = tiff_shape(data)
        check_size(height * width, max_pixels)
        with _tiff(data) as file:
            axes = file.series[0].axes
            others = [axis for axis in range(len(axes)) if axes[axis] not in "YX"]
            x: Pixels = file.asarray().transpose(axes.index("Y"), axes.index("X"), *others)
        return x.reshape(height, width, -1)
    image = upright_image(data, max_pixels=max_pixels)
    if image.mode.startswith("I"):
        return np.asarray(image).astype(np.uint16)[..., None]
    own = ("L", "RGB", "F", *(["RGBA"] if channels == 4 else []))
    x = np.asarray(image if image.mode in own else plain(image).convert("RGB"))
    return x.reshape(*x.shape[:2], -1)


def _tiff(data: bytes) -> Any:
    with train_extra("reading the bands of TIFF files", extra="tiff"):
        import tifffile
    return tifffile.TiffFile(io.BytesIO(data))


def _with_channels(x_HWC: Pixels, channels: int) -> Pixels:
    found = x_HWC.shape[2]
    if found == 1 and channels == 3:
        return np.repeat(x_HWC, 3, axis=2)
    if found == 3 and channels == 1:
        return (x_HWC.astype(np.float32) @ np.array(LUMA, dtype=np.float32))[..., None].astype(
            x_HWC.dtype
        )
    if found != channels:
        raise ValueError(f"{found} bands, expected {channels}")
    return x_HWC


def _in_unit_range(x: Pixels, value_range: tuple[float, float] | None) -> Pixels:
    if value_range is None:
        low, high = 0.0, float(np.iinfo(x.dtype).max) if x.dtype.kind in "ui" else 1.0
        if not ((x >= low) & (x <= high)).all():  # NaN fails too
            raise ValueError("pixels are NaN or out of range, see --reading.value_range")
    else:
        low, high = value_range
        if np.isnan(x).any():
            raise ValueError("pixels are NaN")
    scaled: Pixels = (x.astype(np.float32) - low) / (high - low)
    return scaled.clip(0, 1)


def _fitted(x_HW: Pixels, size: tuple[int, int]) -> Pixels:
    """Resized, antialiased, until it covers the size, and cut to it around its center."""
    from PIL import Image as pil
    from PIL import ImageOps

    if x_HW.shape == size:
        return x_HW
    image = pil.fromarray(np.ascontiguousarray(x_HW))
    return np.asarray(ImageOps.fit(image, (size[1], size[0]), method=pil.Resampling.BICUBIC))
