"""A picture of what the network sees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from falcon_ssl.core.extras import train_extra
from falcon_ssl.core.pixels import displayed
from falcon_ssl.views.pipeline import Normalization, Views

if TYPE_CHECKING:
    from PIL.Image import Image

_MARGIN = 4
_CAPTION = 16


def contact_sheet(images: Tensor, views: Views, *, seed: int = 0, cell: int = 96) -> Image:
    """Lay out images and their views: one row an image, the image first, then its views.

    Args:
        images: uint8 or uint16 [N, C, H, W]; three channels are shown as color, of one or two the first as gray.
        views: What to draw.
        seed: Seed of the views.
        cell: Longer side of a picture on the sheet, in pixels; small images are enlarged without
            smoothing, so that every pixel can be seen.

    Returns:
        An RGB picture.

    Example:
        >>> from falcon_ssl.views import build_views
        >>> images = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
        >>> contact_sheet(images, build_views("cifar"), cell=64).size
        (208, 156)
    """
    with train_extra("a contact sheet"):
        from PIL import Image as pil
        from PIL import ImageDraw

    drawn = views(images, generator=torch.Generator().manual_seed(seed))
    columns = [("image", images)]
    for index, view in enumerate(drawn, start=1):
        columns.append((f"view {index}", _as_pixels(view, views.normalization)))
    pitch = cell + _MARGIN
    size = (len(columns) * pitch + _MARGIN, len(images) * pitch + _MARGIN + _CAPTION)
    sheet = pil.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    for column, (caption, pictures) in enumerate(columns):
        left = _MARGIN + column * pitch
        draw.text((left, _MARGIN // 2), caption, fill="black")
        for row, picture in enumerate(pictures.cpu()):
            _paste(sheet, picture, (left, _CAPTION + _MARGIN + row * pitch), cell)
    return sheet


def captioned_sheet(rows: Sequence[Sequence[tuple[Tensor, str]]], *, cell: int = 96) -> Image:
    """Lay out rows of images, each with a few words below it.

    Args:
        rows: Images [C, H, W] of any size, and their captions.
        cell: Longer side of a picture on the sheet, as in `contact_sheet`.

    Example:
        >>> black = torch.zeros(3, 32, 32, dtype=torch.uint8)
        >>> captioned_sheet([[(black, "one"), (black, "two")], [(black, "three")]], cell=64).size
        (140, 172)
    """
    with train_extra("a contact sheet"):
        from PIL import Image as pil
        from PIL import ImageDraw

    wide, high = cell + _MARGIN, cell + _MARGIN + _CAPTION
    columns = max(len(row) for row in rows)
    sheet = pil.new("RGB", (columns * wide + _MARGIN, len(rows) * high + _MARGIN), "white")
    draw = ImageDraw.Draw(sheet)
    for row, pictures in enumerate(rows):
        for column, (picture, caption) in enumerate(pictures):
            left, top = _MARGIN + column * wide, _MARGIN + row * high
            _paste(sheet, picture, (left, top), cell)
            while draw.textlength(caption) > cell:
                caption = caption[:-1]
            draw.text((left, top + cell + 1), caption, fill="black")
    return sheet


def _paste(sheet: Image, picture: Tensor, place: tuple[int, int], cell: int) -> None:
    """Put [C, H, W] into the middle of a cell, whose side it gets; small ones are enlarged without smoothing."""
    from PIL import Image as pil

    shown = displayed(picture).expand(3, -1, -1)
    image = pil.fromarray(shown.permute(1, 2, 0).contiguous().numpy())
    smooth = pil.Resampling.NEAREST if max(image.size) <= cell else pil.Resampling.BILINEAR
    width, height = (max(1, round(cell * side / max(image.size))) for side in image.size)
    left, top = place
    corner = (left + (cell - width) // 2, top + (cell - height) // 2)
    sheet.paste(image.resize((width, height), smooth), corner)


def _as_pixels(view: Tensor, normalization: Normalization) -> Tensor:
    mean = view.new_tensor(normalization.mean)[:, None, None]
    std = view.new_tensor(normalization.std)[:, None, None]
    return ((view * std + mean).clamp(0, 1) * 255).round().to(torch.uint8)
