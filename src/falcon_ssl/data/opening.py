"""Opening a data set by its name."""

from __future__ import annotations

from pathlib import Path

from falcon_ssl.core.errors import InputError
from falcon_ssl.data.digits import digits_splits
from falcon_ssl.data.folder import folder_splits
from falcon_ssl.data.hub import hub_splits, parquet_splits
from falcon_ssl.data.reading import ReadOptions
from falcon_ssl.data.source import Splits
from falcon_ssl.data.subset import hold_out

KINDS = ("digits", "folder:PATH", "parquet:DIR", "hf:NAME")


def load_splits(
    data: str,
    *,
    image_size: int | None = None,
    channels: int | None = None,
    in_memory: bool | None = None,
    stream: bool = False,
    folder_labels: bool = False,
    holdout: float = 0.0,
    max_unreadable: float = 0.01,
    skipped_path: str | Path | None = None,
) -> Splits:
    """Open a data set by name.

    Args:
        data: "digits"; "folder:PATH", any nested folder of images, with folders ``train`` and
            ``test`` (or ``val``) in it or without; "parquet:DIR", files ``train*.parquet`` and
            ``test*.parquet``; "hf:NAME", a set of the Hugging Face hub.
        image_size: Side of the square that images are resized and center-cropped to when they are
            read, in pixels; None keeps their own size, which must then be the same for all.
        channels: 1 reads grays, 3 colors, whatever the files hold; None decides by the files. The
            digits are gray.
        in_memory: Whether to decode everything now; None decides by the available memory.
        stream: Whether to read parquet:DIR or hf:NAME piece by piece where it lies, storing
            nothing: for sets larger than the disk.
        folder_labels: Whether the folders of folder:PATH name classes.
        holdout: Share of the training images to hold out when there is no test part; 0 for none.
        max_unreadable: Largest share of unreadable images that is tolerated.
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
    kind, _, where = data.partition(":")
    if data != "digits" and (kind not in ("folder", "parquet", "hf") or not where):
        raise InputError(
            "unknown data",
            received=repr(data),
            expected=f"one of {', '.join(KINDS)}",
            fix="choose one",
        )
    if folder_labels and kind != "folder":
        raise InputError(
            "folder_labels does not fit the data",
            received=data,
            expected="folder:PATH",
            fix="leave it out",
        )
    if stream and (kind not in ("parquet", "hf") or holdout):
        raise InputError(
            "stream does not fit the data",
            received=f"{data}, holdout={holdout}",
            expected="parquet:DIR or hf:NAME, nothing held out",
            fix="leave it out",
        )
    options = ReadOptions(
        image_size=image_size,
        channels=channels,
        in_memory=in_memory,
        stream=stream,
        max_unreadable=max_unreadable,
        skipped_path=None if skipped_path is None else Path(skipped_path),
    )
    if kind == "digits":
        if image_size not in (None, 8):
            raise InputError(
                "the digits have one size", received=image_size, expected="8", fix="leave it out"
            )
        splits = digits_splits()
    elif kind == "folder":
        splits = folder_splits(Path(where), labeled=folder_labels, options=options)
    elif kind == "parquet":
        splits = parquet_splits(Path(where), options=options)
    else:
        splits = hub_splits(where, options=options)
    return hold_out(splits, holdout) if holdout and splits.test is None else splits
