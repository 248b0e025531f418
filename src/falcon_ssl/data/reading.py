"""How encoded images are read: their size, their place in memory, what happens to broken ones."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np

from falcon_ssl.config.run import ReadingConfig
from falcon_ssl.core.errors import InputError
from falcon_ssl.core.extras import MissingExtraError
from falcon_ssl.data.bands import is_tiff, tiff_shape
from falcon_ssl.data.decode import Head, read_head
from falcon_ssl.data.encoded import EncodedSource, EncodedSplit, Records, decode_all
from falcon_ssl.data.skipped import Skipped
from falcon_ssl.data.source import Source, fits

logger = logging.getLogger(__name__)

_NUM_HEADS = 64  # images whose heads decide size and channels of all
_MOST_CLASSES = 10**6  # larger labels are identifiers, and not numbers of classes
# Side of images of several sizes where nobody chooses one; smaller ones in steps.
_USUAL_SIZE, _STEP = 128, 8


class Opened(NamedTuple):
    """A source, and how its files are read.

    Args:
        source: Its images.
        encoding: What the files are: "JPEG q75".
        skipped: Which of them cannot be read.
        resized_to: Side that images of several sizes are brought to, where nobody chose one.
    """

    source: Source
    encoding: str
    skipped: Skipped
    resized_to: int | None = None


def open_records(
    split: EncodedSplit,
    reading: ReadingConfig,
    *,
    skipped_path: Path | None = None,
    like: Source | None = None,
) -> Opened:
    """Make a source of encoded images: decoded once when memory allows, else on demand.

    ``like`` is another part of the same data, whose image shape this one has to share; the other options are those of
    `load_splits`.

    Raises:
        InputError: No images, too many unreadable ones, or labels that are no numbers of classes.
    """
    name, records = split.name, split.records
    if len(records) == 0:
        raise InputError(f"{name} is empty", received="0 images", expected="at least 1")
    if split.labels is not None and (largest := int(split.labels.max())) >= _MOST_CLASSES:
        raise InputError(
            f"the labels of {name} are no numbers of classes",
            received=f"{largest} among them",
            expected=f"0, 1, 2, ..., below {_MOST_CLASSES}",
            fix="number the classes one after the other",
        )
    skipped = Skipped(name, len(records), max_unreadable=reading.max_unreadable, path=skipped_path)
    heads = _heads(records, skipped)
    resized_to = None
    if like is None:
        channels = reading.channels or max(head.shape[0] for head in heads)
        sizes = {head.shape[1:] for head in heads}
        if reading.image_size is None and len(sizes) > 1:
            resized_to = _usual_size(heads, name=name)
        side = reading.image_size or resized_to
        shape = (channels, *((side, side) if side else sizes.pop()))
    else:
        shape = like.image_shape
    source = EncodedSource(split, shape=shape, skipped=skipped, reading=reading)
    enough, words = fits(source)
    in_memory = enough and not reading.stream if reading.in_memory is None else reading.in_memory
    logger.info("%s, %s", words, "decoded once and kept" if in_memory else "decoded on demand")
    encoding = _most_common([head.encoding for head in heads])
    return Opened(decode_all(source) if in_memory else source, encoding, skipped, resized_to)


def _heads(records: Records, skipped: Skipped) -> list[Head]:
    """Heads of images that are spread evenly over the records, or over their first block."""
    count = next(rows for rows in records.blocks or [len(records)] if rows)
    found = []
    for index in np.unique(np.linspace(0, count - 1, _NUM_HEADS).astype(int)).tolist():
        try:
            found.append(_head(records.read(index)))
        except MissingExtraError:
            raise
        except Exception as error:  # a broken file can make Pillow raise anything
            skipped.add(index, place=records.place(index), reason=error)
    if not found:
        raise InputError(
            "none of the images that were tried can be read",
            received=f"{len(skipped.indices)} broken files",
            expected="image files",
        )
    return found


def _head(data: bytes) -> Head:
    """The head of a file; of TIFF files that Pillow does not know, as tifffile reads it."""
    try:
        return read_head(data)
    except Exception:
        if not is_tiff(data):
            raise
        return Head(tiff_shape(data), "TIFF")


def _usual_size(heads: list[Head], *, name: str) -> int:
    """A side for images of several sizes: half of them at least are larger."""
    heights, widths = zip(*(head.shape[1:] for head in heads), strict=True)
    middle = int(median(min(sides) for sides in zip(heights, widths, strict=True)))
    side = min(_USUAL_SIZE, middle // _STEP * _STEP or middle)
    logger.info(
        "%s: heights %d to %d, widths %d to %d pixels: all are brought to %d x %d, or to another --reading.image_size",
        name,
        *(min(heights), max(heights), min(widths), max(widths), side, side),
    )
    return side


def _most_common(encodings: list[str]) -> str:
    """The encoding of nearly all files; without the quality when that varies."""
    encoding, count = Counter(encodings).most_common(1)[0]
    if count >= 0.9 * len(encodings):
        return encoding
    return " and ".join(sorted({one.split()[0] for one in encodings}))
