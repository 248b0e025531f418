"""How encoded images are read: their size, their place in memory, what happens to broken ones."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from falcon_ssl.config.run import ReadingConfig
from falcon_ssl.core.errors import InputError
from falcon_ssl.data.decode import Head, Shape, read_head
from falcon_ssl.data.encoded import EncodedSource, EncodedSplit, Records, blocks_of, decode_all
from falcon_ssl.data.memory import RESIDENT_FRACTION, available_memory, bytes_text, source_bytes
from falcon_ssl.data.skipped import Skipped
from falcon_ssl.data.source import Source

logger = logging.getLogger(__name__)

_NUM_HEADS = 64  # images whose heads decide size and channels of all


@dataclass(frozen=True)
class Opened:
    """A source, what its files are ("JPEG q75"), and which of them cannot be read."""

    source: Source
    encoding: str
    skipped: Skipped


def open_records(
    split: EncodedSplit,
    reading: ReadingConfig,
    *,
    channels: int | None = None,
    skipped_path: Path | None = None,
    like: Source | None = None,
) -> Opened:
    """Make a source of encoded images: decoded once when memory allows, else on demand.

    Args:
        split: The encoded images.
        reading: How to read them.
        channels: 1 reads grayscale, 3 color; None decides by the files.
        skipped_path: File that lists the unreadable images; None writes none.
        like: Another part of the same data, whose image shape this one has to share.

    Returns:
        The source, what its files are, and which of them cannot be read.

    Raises:
        InputError: No images, images of several sizes without ``image_size``, or too many
            unreadable ones.
    """
    name, records = split.name, split.records
    if len(records) == 0:
        raise InputError(f"{name} is empty", received="0 images", expected="at least 1")
    skipped = Skipped(name, len(records), max_unreadable=reading.max_unreadable, path=skipped_path)
    heads = _heads(records, skipped)
    if like is None:
        channels = channels or max(head.shape.channels for head in heads)
        shape = Shape(channels, *_common_size(heads, name=name, image_size=reading.image_size))
    else:
        shape = Shape(*like.image_shape)
    source = EncodedSource(split, shape=shape, skipped=skipped)
    needed, available = source_bytes(source), available_memory()
    in_memory = reading.in_memory
    if in_memory is None:
        in_memory = needed <= RESIDENT_FRACTION * available and not reading.stream
    logger.info(
        "%s: %s of %s free memory, %s",
        source.name,
        bytes_text(needed),
        bytes_text(available),
        "decoded once and kept" if in_memory else "decoded on demand",
    )
    encoding = _most_common(head.encoding for head in heads)
    return Opened(decode_all(source) if in_memory else source, encoding, skipped)


def _heads(records: Records, skipped: Skipped) -> list[Head]:
    """Heads of images that are spread evenly over the records, or over their first block."""
    blocks = blocks_of(records)
    count = len(records) if blocks is None else next(rows for rows in blocks if rows)
    found = []
    for index in np.unique(np.linspace(0, count - 1, _NUM_HEADS).astype(int)).tolist():
        try:
            found.append(read_head(records.read(index)))
        except Exception as error:  # a broken file can make Pillow raise anything
            skipped.add(index, place=records.place(index), reason=error)
    if not found:
        raise InputError(
            "none of the images that were tried can be read",
            received=f"{len(skipped.indices)} broken files",
            expected="image files",
            fix="check what the files hold",
        )
    return found


def _common_size(heads: list[Head], *, name: str, image_size: int | None) -> tuple[int, int]:
    """Height and width that all images are brought to."""
    if image_size is not None:
        return image_size, image_size
    sizes = {(head.shape.height, head.shape.width) for head in heads}
    if len(sizes) > 1:
        heights, widths = zip(*sizes, strict=True)
        raise InputError(
            f"images of {name} differ in size",
            received=f"heights {min(heights)} to {max(heights)}, widths {min(widths)} to {max(widths)} pixels",
            expected="one size for all",
            fix="bring them to one with --reading.image_size 224 (ReadingConfig(image_size=224) in Python)",
        )
    return sizes.pop()


def _most_common(encodings: Iterable[str]) -> str:
    """The encoding of nearly all files; without the quality when that varies."""
    counts = Counter(encodings)
    encoding, count = counts.most_common(1)[0]
    if count >= 0.9 * counts.total():
        return encoding
    formats = Counter(one.split()[0] for one in counts.elements())
    return " and ".join(sorted(formats))
