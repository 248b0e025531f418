"""Opening a data set by its name."""

from __future__ import annotations

from pathlib import Path

from falcon_ssl.config.run import ReadingConfig
from falcon_ssl.core.errors import InputError
from falcon_ssl.core.parts import PREFIX, is_part
from falcon_ssl.data.dataset import dataset_splits
from falcon_ssl.data.digits import DigitsSource
from falcon_ssl.data.folder import folder_splits
from falcon_ssl.data.hub import hub_splits, parquet_splits
from falcon_ssl.data.reading import Opened, open_records
from falcon_ssl.data.source import Splits
from falcon_ssl.data.subset import hold_out

KINDS = ("digits", "folder:PATH", "parquet:DIR", "hf:NAME", f"{PREFIX}MODULE:FUNCTION")


def load_splits(
    data: str,
    reading: ReadingConfig | None = None,
    *,
    channels: int | None = None,
    skipped_path: Path | None = None,
) -> Splits:
    """Open a data set by name.

    Args:
        data: "digits"; "folder:PATH", any nested folder of images, with folders ``train`` and
            ``test`` (or ``val``) in it or without; "parquet:DIR", files ``train*.parquet`` and
            ``test*.parquet``; "hf:NAME", a set of the Hugging Face hub;
            "python:MODULE:FUNCTION", what a function of yours returns: a data set, or (train, test).
        reading: How to read it, see `ReadingConfig`; None for its defaults.
        channels: 1 reads grayscale, 3 color, whatever the files hold; None decides by the files.
            The digits are grayscale.
        skipped_path: File that lists the unreadable images; None writes none.

    Returns:
        Training and test parts.

    Raises:
        InputError: An unknown name, no images, too many unreadable ones, images of several sizes
            without ``image_size``, or an option that does not fit.

    Example:
        >>> len(load_splits("digits").train)
        1437
    """
    reading = ReadingConfig() if reading is None else reading
    kind, _, where = data.partition(":")
    _check(data, kind, where, reading, channels)
    if kind == "digits":
        note = "scikit-learn digits, fixed stratified split: 80 % train, 20 % test"
        digits = Splits(train=DigitsSource("train"), test=DigitsSource("test"), note=note)
        return hold_out(digits, reading.holdout) if reading.holdout else digits
    if is_part(data):
        own = dataset_splits(data, reading, channels=channels)
        return hold_out(own, reading.holdout) if reading.holdout else own
    if kind == "folder":
        parts, note = folder_splits(Path(where), labeled=reading.folder_labels)
    elif kind == "parquet":
        parts, note = parquet_splits(Path(where), stream=reading.stream)
    else:
        parts, note = hub_splits(where, stream=reading.stream)
    if reading.holdout:  # options are chosen on it: the test part stays unseen
        parts = parts[:1]
    opened: list[Opened] = []
    for part in parts:
        like = opened[0].source if opened else None
        opened.append(
            open_records(part, reading, channels=channels, skipped_path=skipped_path, like=like)
        )
    splits = Splits(
        train=opened[0].source,
        test=opened[1].source if len(opened) > 1 else None,
        note=f"{note}; {opened[0].encoding} files",
        skipped=tuple(one.skipped for one in opened),
    )
    return hold_out(splits, reading.holdout) if reading.holdout else splits


def _check(data: str, kind: str, where: str, reading: ReadingConfig, channels: int | None) -> None:
    if data != "digits" and (kind not in ("folder", "parquet", "hf", "python") or not where):
        raise InputError(
            "unknown data",
            received=repr(data),
            expected=f"one of {', '.join(KINDS)}",
        )
    if channels not in (None, 1, 3):
        raise InputError(
            "unknown number of channels",
            received=channels,
            expected="1 (grayscale) or 3 (color)",
        )
    if data == "digits" and reading.image_size not in (None, 8):
        raise InputError(
            "the digits have one size",
            received=f"image_size={reading.image_size}",
            expected="8",
        )
    if reading.folder_labels and kind != "folder":
        raise InputError(
            "folder_labels does not fit the data",
            received=data,
            expected="folder:PATH",
        )
    if reading.stream and (kind not in ("parquet", "hf") or reading.holdout or reading.in_memory):
        raise InputError(
            "stream does not fit the other options",
            received=f"{data}, holdout={reading.holdout}, in_memory={reading.in_memory}",
            expected="parquet:DIR or hf:NAME, nothing held out or kept in memory",
        )
