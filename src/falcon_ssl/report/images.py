"""Pictures as data URIs: heat maps that suit a light and a dark page, and sheets of thumbnails."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from PIL import Image

from falcon_ssl.records.run import Array
from falcon_ssl.report.sheet import Sheet

# Middle tones: each stands out on white and on near-black. Zero is transparent, so it shows the page.
POSITIVE_RGB = (37, 108, 190)
NEGATIVE_RGB = (214, 102, 38)
MOST_PIXELS = 400
SIDE, GAP, LINE = 210.0, 20.0, 22.0  # of a heat map in a drawing of its own, and between two
LETTER = 6.1  # width of a letter of its name, on average
COLOR_SCALE = Markup(
    '<p class="scale" role="img" aria-label="orange is -1, blue is +1"><i></i></p>'
)


@dataclass(frozen=True)
class Matrices:
    """Square heat maps under their names; large ones show an even subsample of rows and columns.

    Attributes:
        css: How a page lays them out, "pair" or "gallery".
        named: Name and matrix [R, R] of each.
    """

    css: str
    named: Sequence[tuple[str, Array]]

    def __html__(self) -> str:
        """Them, side by side as a page has room."""
        one = Markup('<div class="matrix"><span>{n}</span><img alt="{n}" src="{u}"></div>')
        body = Markup("").join(
            one.format(n=name, u=heat_map(pick_square(matrix))) for name, matrix in self.named
        )
        return Markup('<div class="{}">{}</div>{}').format(self.css, body, COLOR_SCALE)

    def sheet(self, *, columns: int = 2) -> Sheet:
        """Them, in rows of ``columns``."""
        one = Markup(
            '<g transform="translate({:g} {:g})"><text y="12">{}</text><image y="18" width="{s:g}" height="{s:g}"'
            ' href="{}"/><path class="frame" d="M0 18h{s:g}v{s:g}h-{s:g}z"/></g>'
        )
        columns = min(columns, len(self.named))
        step = max(SIDE, *(LETTER * len(name) for name, _ in self.named)) + GAP
        body = Markup("")
        for k, (name, matrix) in enumerate(self.named):
            row, column = divmod(k, columns)
            at = column * step, row * (SIDE + LINE + GAP)
            body += one.format(*at, name, heat_map(pick_square(matrix)), s=SIDE)
        rows = -(-len(self.named) // columns)
        return Sheet(columns * step - GAP, rows * (SIDE + LINE + GAP) - GAP, body)


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


def tile_style(css: str, thumbnails: Array, *, extra: str = "") -> Markup:
    """The style of `tiles`: the sheet that they all show a part of."""
    uri, columns, rows = thumbnail_sheet(thumbnails)
    return Markup(
        "<style>.{}{{background-image:url({});background-size:{}% {}%;{}}}</style>"
    ).format(css, Markup(uri), 100 * columns, 100 * rows, Markup(extra))


def tiles(css: str, thumbnails: Array, names: Sequence[str]) -> list[Markup]:
    """One element a thumbnail, with its name; `tile_style` of the same class belongs on the page."""
    count = len(thumbnails)
    columns = math.ceil(math.sqrt(count))
    steps = 100 / max(math.ceil(count / columns) - 1, 1), 100 / max(columns - 1, 1)
    tile = Markup('<b class="sheet {}" title="{}" style="background-position:{:.2f}% {:.2f}%"></b>')
    return [
        tile.format(css, name, m % columns * steps[1], m // columns * steps[0])
        for m, name in enumerate(names)
    ]


def _data_uri(kind: str, buffer: io.BytesIO) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
