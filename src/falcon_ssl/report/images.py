"""Pictures as data URIs: heat maps that suit a light and a dark page, and sheets of thumbnails."""

from __future__ import annotations

import base64
import io
import math

import numpy as np
from PIL import Image

from falcon_ssl.records.run import Array

# Middle tones: each stands out on white and on near-black. Zero is transparent, so it shows the page.
POSITIVE_RGB = (37, 108, 190)
NEGATIVE_RGB = (214, 102, 38)
MOST_PIXELS = 400


def heat_map(matrix: Array) -> str:
    """Draw values in [-1, 1] as a PNG: blue above zero, orange below, more opaque when larger.

    Args:
        matrix: [R, C]; values beyond +-1 are drawn as +-1, those that are not finite as zero.

    Returns:
        A data URI of a palette image of C x R pixels.
    """
    clipped = np.clip(np.nan_to_num(matrix, nan=0.0), -1.0, 1.0)
    indices = np.rint((clipped + 1.0) * 127.0).astype(np.uint8)
    image = Image.fromarray(indices, mode="L")
    image.putpalette([*NEGATIVE_RGB] * 127 + [*POSITIVE_RGB] * 129)
    opacity = bytes(min(255, round(abs(index - 127) / 127 * 255)) for index in range(256))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", transparency=opacity, optimize=True)
    return _data_uri("png", buffer)


def pick_square(matrix: Array) -> Array:
    """The matrix itself, or every k-th row and column of it, so that at most 400 remain."""
    stride = math.ceil(matrix.shape[0] / MOST_PIXELS)
    return matrix[::stride, ::stride]


def thumbnail_sheet(thumbnails: Array) -> tuple[str, int, int]:
    """Lay thumbnails out on one sheet: PNG for gray ones, JPEG for color photographs.

    Args:
        thumbnails: uint8 [M, H, W] or [M, H, W, 3].

    Returns:
        A data URI, the number of thumbnails in a row, and the number of rows.
    """
    count, height, width = thumbnails.shape[:3]
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    sheet = np.zeros((rows * height, columns * width, *thumbnails.shape[3:]), dtype=np.uint8)
    for m in range(count):
        top, left = m // columns * height, m % columns * width
        sheet[top : top + height, left : left + width] = thumbnails[m]
    buffer, kind = io.BytesIO(), "png" if thumbnails.ndim == 3 else "jpeg"
    Image.fromarray(sheet).save(buffer, kind, quality=82, optimize=True)
    return _data_uri(kind, buffer), columns, rows


def _data_uri(kind: str, buffer: io.BytesIO) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
