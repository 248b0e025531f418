"""Opening a data set by its name."""

from __future__ import annotations

import logging
from pathlib import Path

from falcon_ssl.config.run import ReadingConfig
from falcon_ssl.config.sources import KINDS, source_names
from falcon_ssl.core.errors import InputError, did_you_mean
from falcon_ssl.core.parts import is_part
from falcon_ssl.data.dataset import dataset_splits
from falcon_ssl.data.digits import DigitsSource
from falcon_ssl.data.encoded import EncodedSplit
from falcon_ssl.data.folder import folder_splits
from falcon_ssl.data.hub import hub_splits, parquet_splits
from falcon_ssl.data.joined import joined_splits
from falcon_ssl.data.reading import Opened, open_records
from falcon_ssl.data.source import Splits
from falcon_ssl.data.subset import hold_out
from falcon_ssl.data.tars import tar_splits

logger = logging.getLogger(__name__)

_ENCODED = ("folder", "parquet", "tar", "hf")  # kinds that can be joined
_STREAMED = ("parquet", "tar", "hf")


def load_splits(
    data: str,
    reading: ReadingConfig | None = None,
    *,
    skipped_path: Path | None = None,
) -> Splits:
    """Open a data set by name.

    Args:
        data: "digits"; "folder:PATH", any nested folder of images, with folders ``train`` and
            ``test`` (or ``val``) in it or without; "parquet:DIR", files ``train*.parquet`` and
            ``test*.parquet``; "tar:PATH", a tar file in the WebDataset format or a folder of such; "hf:NAME", a set of
            the Hugging Face hub; "python:MODULE:FUNCTION", what a function of yours returns: a data set, or
            (train, test). Several, joined by " + ", are one set; digits and python: stay alone.
        reading: How to read it, see `ReadingConfig`; None for its defaults.
        skipped_path: File that lists the unreadable images; None writes none.

    Returns:
        Training and test parts.

    Raises:
        InputError: An unknown name, no images, too many unreadable ones, or an option that does not fit.

    Example:
        >>> len(load_splits("digits").train)
        1437
    """
    reading = ReadingConfig() if reading is None else reading
    names = source_names(data)
    _check(data, names, reading)
    if data == "digits":
        logger.info("scikit-learn's 1797 handwritten digits; --data names other images")
        note = "scikit-learn digits, fixed stratified split: 80 % train, 20 % test"
        digits = Splits(train=DigitsSource("train"), test=DigitsSource("test"), note=note)
        return hold_out(digits, reading.holdout) if reading.holdout else digits
    if is_part(data):
        own = dataset_splits(data, reading)
        return hold_out(own, reading.holdout) if reading.holdout else own
    found = [_encoded_parts(name, reading) for name in names]
    trains = [parts[0] for parts, _ in found]
    tests = [part for parts, _ in found for part in parts[1:]]
    # Options are chosen on what is held out: the test part stays unseen.
    parts = [trains] if reading.holdout or not tests else [trains, tests]
    opened: list[Opened] = []
    for split in joined_splits(parts):
        like = opened[0].source if opened else None
        opened.append(open_records(split, reading, skipped_path=skipped_path, like=like))
    splits = Splits(
        train=opened[0].source,
        test=opened[1].source if len(opened) > 1 else None,
        note=f"{' + '.join(note for _, note in found)}; {opened[0].encoding} files",
        skipped=tuple(one.skipped for one in opened),
        resized_to=opened[0].resized_to,
        sources={
            name: sum(len(part.records) for part in parts)
            for name, (parts, _) in zip(names, found, strict=True)
        },
    )
    return hold_out(splits, reading.holdout) if reading.holdout else splits


def _encoded_parts(name: str, reading: ReadingConfig) -> tuple[list[EncodedSplit], str]:
    """The training part of one source and, if there is one, its test part; and a note for reports."""
    kind, _, where = name.partition(":")
    if kind == "folder":
        return folder_splits(Path(where), labeled=reading.folder_labels)
    if kind == "parquet":
        return parquet_splits(Path(where), stream=reading.stream)
    if kind == "tar":
        return tar_splits(Path(where), stream=reading.stream)
    return hub_splits(where, stream=reading.stream)


def _meant(name: str) -> str:
    """What a name that is no source may stand for: a folder's path, or a source whose kind is mistyped."""
    if Path(name).is_dir():
        return f"did you mean folder:{name}?"
    kind, _, where = name.partition(":")
    if not where:
        return did_you_mean(name, KINDS)
    return did_you_mean(kind, [one.partition(":")[0] for one in KINDS])


def _check(data: str, names: list[str], reading: ReadingConfig) -> None:
    kinds = [name.partition(":")[0] for name in names]
    for name in names:
        kind, _, where = name.partition(":")
        if name != "digits" and (kind not in (*_ENCODED, "python") or not where):
            raise InputError(
                "unknown data",
                received=repr(name),
                expected=f"one of {', '.join(KINDS)}",
                fix=_meant(name),
            )
    if len(names) > 1 and (alone := [k for k in kinds if k not in _ENCODED]):
        raise InputError(
            f"{alone[0]} cannot be joined with other images",
            received=data,
            expected=f"several of {', '.join(kind for kind in KINDS if kind.partition(':')[0] in _ENCODED)}",
            fix="join them in a function of yours: torch.utils.data.ConcatDataset",
        )
    if len(set(names)) < len(names):
        raise InputError("a source is named twice", received=data, expected="each once")
    if data == "digits" and (reading.channels not in (None, 1) or reading.keep_16bit):
        raise InputError(
            "the digits are 8 bits of gray",
            received=f"channels={reading.channels}, keep_16bit={reading.keep_16bit}",
            expected="channels=1, or neither",
        )
    if data == "digits" and reading.image_size not in (None, 8):
        raise InputError(
            "the digits have one size",
            received=f"image_size={reading.image_size}",
            expected="8",
        )
    if reading.folder_labels and "folder" not in kinds:
        raise InputError(
            "folder_labels does not fit the data",
            received=data,
            expected="folder:PATH",
        )
    streamed = all(kind in _STREAMED for kind in kinds)
    if reading.stream and (not streamed or reading.holdout or reading.in_memory):
        raise InputError(
            "stream does not fit the other options",
            received=f"{data}, holdout={reading.holdout}, in_memory={reading.in_memory}",
            expected="parquet:DIR, tar:PATH or hf:NAME, nothing held out or kept in memory",
        )
