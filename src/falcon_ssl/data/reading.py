"""How encoded images are read: their size, their place in memory, what happens to broken ones."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from falcon_ssl.core.errors import InputError
from falcon_ssl.data.decode import Look, Shape, look
from falcon_ssl.data.encoded import EncodedSource, Records, blocks_of, decode_all
from falcon_ssl.data.memory import available_memory, bytes_text
from falcon_ssl.data.skipped import Skipped
from falcon_ssl.data.source import Source

logger = logging.getLogger(__name__)

_LOOKS = 64  # images whose heads tell size and channels of the whole
_RESIDENT_SHARE = 0.4  # of the available memory that decoded images may take


@dataclass(frozen=True)
class ReadOptions:
    """How encoded images are read.

    Args:
        image_size: Side of the square that images are resized and center-cropped to, in pixels;
            None keeps their own size, which must then be the same for all.
        channels: 1 reads grays, 3 colors; None decides by the files.
        in_memory: Whether to decode everything at once; None decides by the available memory.
        stream: Whether to read tables piece by piece where they lie, storing nothing: for sets
            larger than the disk.
        max_unreadable: Largest share of unreadable images that is tolerated.
        skipped_path: File that lists the unreadable images; None writes none.

    Raises:
        InputError: A size below 1, channels other than 1 and 3, a share outside [0, 1], or streaming into memory.
    """

    image_size: int | None = None
    channels: int | None = None
    in_memory: bool | None = None
    stream: bool = False
    max_unreadable: float = 0.01
    skipped_path: Path | None = None

    def __post_init__(self) -> None:
        if self.image_size is not None and self.image_size < 1:
            raise InputError(
                "image_size is too small",
                received=self.image_size,
                expected=">= 1 pixel",
                fix="choose one, for example 64 or 224",
            )
        if self.channels not in (None, 1, 3):
            raise InputError(
                "images have no such number of channels",
                received=self.channels,
                expected="1 (gray) or 3 (color)",
                fix="choose one",
            )
        if self.stream and self.in_memory:
            raise InputError(
                "streamed images are not kept",
                received="stream and in_memory",
                expected="one of them",
                fix="leave one out",
            )
        if not 0 <= self.max_unreadable <= 1:
            raise InputError(
                "max_unreadable is no share",
                received=self.max_unreadable,
                expected="0 to 1",
                fix="choose one, for example 0.01",
            )


@dataclass(frozen=True)
class Opened:
    """A source, what its files are ("JPEG q75"), and which of them cannot be read."""

    source: Source
    encoding: str
    skipped: Skipped


def open_records(
    records: Records,
    *,
    name: str,
    options: ReadOptions,
    labels: Tensor | None = None,
    class_names: list[str] | None = None,
    like: Source | None = None,
) -> Opened:
    """Make a source of encoded images: decoded once when memory allows, else on demand.

    Args:
        records: The encoded images.
        name: For people; number and size of the images are added.
        options: How to read them.
        labels: int64 [N], or None.
        class_names: Name of every label, or None.
        like: Another part of the same data, whose image shape this one has to share.

    Returns:
        The source, what its files are, and which of them cannot be read.

    Raises:
        InputError: No images, images of several sizes without ``image_size``, or too many
            unreadable ones.
    """
    if len(records) == 0:
        raise InputError(
            f"{name} is empty", received="0 images", expected="at least 1", fix="check the path"
        )
    skipped = Skipped(
        name, len(records), max_unreadable=options.max_unreadable, path=options.skipped_path
    )
    looks = _looks(records, skipped)
    if like is None:
        shape = _common_shape(looks, name=name, options=options)
    else:
        shape = Shape(*like.image_shape)
    source = EncodedSource(
        records,
        shape=shape,
        name=f"{name} ({len(records)} images of {shape.height}x{shape.width})",
        labels=labels,
        class_names=class_names,
        skipped=skipped,
        told=True,  # a few lines below
    )
    needed = len(records) * shape.channels * shape.height * shape.width
    available = available_memory()
    fits = needed <= _RESIDENT_SHARE * available and not options.stream
    in_memory = fits if options.in_memory is None else options.in_memory
    logger.info(
        "%s: %s of %s free memory, %s",
        source.name,
        bytes_text(needed),
        bytes_text(available),
        "decoded once and kept" if in_memory else "decoded on demand",
    )
    encoding = _most_common(one.encoding for one in looks)
    return Opened(decode_all(source) if in_memory else source, encoding, skipped)


def _looks(records: Records, skipped: Skipped) -> list[Look]:
    """Heads of images that are spread evenly over the records, or over their first block."""
    blocks = blocks_of(records)
    count = len(records) if blocks is None else next(rows for rows in blocks if rows)
    found = []
    for index in np.unique(np.linspace(0, count - 1, _LOOKS).astype(int)).tolist():
        try:
            found.append(look(records.read(index)))
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


def _common_shape(looks: list[Look], *, name: str, options: ReadOptions) -> Shape:
    channels = options.channels or max(one.shape.channels for one in looks)
    if options.image_size is not None:
        return Shape(channels, options.image_size, options.image_size)
    sizes = {(one.shape.height, one.shape.width) for one in looks}
    if len(sizes) > 1:
        heights, widths = zip(*sizes, strict=True)
        raise InputError(
            f"images of {name} differ in size",
            received=f"heights {min(heights)} to {max(heights)}, widths {min(widths)} to {max(widths)} pixels",
            expected="one size for all",
            fix="bring them to one with --reading.image_size 224 (image_size=224 in Python)",
        )
    height, width = sizes.pop()
    return Shape(channels, height, width)


def _most_common(encodings: Iterable[str]) -> str:
    """The encoding of nearly all files; without the quality when that varies."""
    counts = Counter(encodings)
    encoding, count = counts.most_common(1)[0]
    if count >= 0.9 * counts.total():
        return encoding
    formats = Counter(one.split()[0] for one in counts.elements())
    return " and ".join(sorted(formats))
