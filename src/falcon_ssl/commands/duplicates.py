"""Groups of images that are nearly the same, by a table of embeddings."""

from __future__ import annotations

import csv
import logging
from pathlib import Path
from typing import NamedTuple

import numpy as np

from falcon_ssl.commands.embedded import EmbeddedImages
from falcon_ssl.commands.files import new_file
from falcon_ssl.core.checks import check_fraction
from falcon_ssl.core.consent import trusting_code
from falcon_ssl.evaluation.components import ROWS
from falcon_ssl.evaluation.neighbors import Space, near_duplicates
from falcon_ssl.records.embeddings import EmbeddingFile
from falcon_ssl.records.files import replacing

logger = logging.getLogger(__name__)

GROUPS_SHOWN, IMAGES_SHOWN = 20, 8


class Duplicates(NamedTuple):
    """Images that are nearly the same.

    Args:
        places: Where they are: path, or split and row.
        indices: Their rows in the table, from 0.
        cosines: With the first of them.
    """

    places: list[str]
    indices: list[int]
    cosines: list[float]


def duplicates(
    file: str | Path,
    *,
    similarity: float = 0.9,
    out: str | Path | None = None,
    overwrite: bool = False,
    trust_code: bool = False,
) -> list[Duplicates]:
    """Groups of near-duplicates, as a list of their images and a contact sheet of the first groups.

    Args:
        file: A .parquet that `embed` wrote.
        similarity: Least cosine of the whitened representations of two images that count as the same, see
            `falcon_ssl.evaluation.neighbors`.
        out: The list, .csv, and beside it the sheet, .png; None is FILE.duplicates.csv, which is renewed.
        overwrite: Replace ``out`` if there is one.
        trust_code: Whether code that files name may be run, see `falcon_ssl.trusting_code`.

    Returns:
        The groups, the largest first.

    Raises:
        InputError: No such table, or a similarity that is none.

    Memory:
        128 numbers an image.
    """
    table = EmbeddingFile(file)
    target = (
        table.path.with_suffix(".duplicates.csv")
        if out is None
        else new_file(
            out,
            suffixes=(".csv",),
            overwrite=overwrite,
            fix=f"--out is the list, {Path(out).with_suffix('.csv').name}; its picture is written beside it, .png",
        )
    )
    check_fraction("similarity", similarity)
    space = Space.whitened(table.sample("z", ROWS))
    y_NK = np.concatenate([space(group["z"]) for group in table.groups("z")])

    def progress(rows: int) -> None:
        if len(y_NK) > 20_000:
            logger.info("%d of %d images compared", rows, len(y_NK))

    found = near_duplicates(y_NK, similarity=similarity, progress=progress)
    known = EmbeddedImages(table)
    groups = [
        Duplicates(
            [known.place(i) for i in group.tolist()],
            group.tolist(),
            (y_NK[group] @ y_NK[group[0]]).tolist(),
        )
        for group in found
    ]
    rows = [
        [(i, known.caption(i, c)) for i, c in zip(group.indices, group.cosines, strict=True)]
        for group in groups[:GROUPS_SHOWN]
    ]
    with replacing(target) as unfinished, trusting_code(trust_code):  # of the images
        _write(unfinished, groups, known)
        known.draw(target.with_suffix(".png"), [row[:IMAGES_SHOWN] for row in rows])
    return groups


def _write(target: Path, groups: list[Duplicates], known: EmbeddedImages) -> None:
    """A line an image: its group, and what finds it again."""
    rows = [
        {"group": number, "cosine": round(cosine, 4), "index": index, **known.row(index)}
        for number, group in enumerate(groups)
        for index, cosine in zip(group.indices, group.cosines, strict=True)
    ]
    names = list(rows[0]) if rows else ["group", "cosine", "index"]
    with target.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)
