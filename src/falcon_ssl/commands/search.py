"""The images of a table of embeddings that are nearest to some others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from falcon_ssl.commands.embedded import EmbeddedImages
from falcon_ssl.commands.files import PICTURES, new_file
from falcon_ssl.commands.loading import load_method
from falcon_ssl.config.mapping import build
from falcon_ssl.config.run import ReadingConfig
from falcon_ssl.core.checks import check_at_least
from falcon_ssl.core.consent import trusting_code
from falcon_ssl.core.devices import best_device
from falcon_ssl.core.errors import InputError
from falcon_ssl.data.encoded import decoder
from falcon_ssl.data.skipped import reason_text
from falcon_ssl.evaluation.components import ROWS
from falcon_ssl.evaluation.neighbors import Space, nearest
from falcon_ssl.networks import Readout
from falcon_ssl.records.checkpoints import find_checkpoint
from falcon_ssl.records.embeddings import EmbeddingFile
from falcon_ssl.records.folder import MODEL


class Hit(NamedTuple):
    """An image near to a query.

    Args:
        place: Where it is: its path, or its split and row.
        row: Its number in the table, from 0.
        cosine: Of the centered representations, see `falcon_ssl.evaluation.neighbors`.
    """

    place: str
    row: int
    cosine: float


def search(
    file: str | Path,
    images: Sequence[str | Path | int],
    *,
    k: int = 10,
    out: str | Path | None = None,
    run: str | Path | None = None,
    overwrite: bool = False,
    trust_code: bool = False,
) -> list[list[Hit]]:
    """The images of a table that are nearest to each query, and a contact sheet of them.

    Args:
        file: A .parquet that `embed` wrote.
        images: Image files, which need not be in the table; or rows of the table, counted from 0.
        k: How many for each; a query that is a row of the table is not its own neighbor.
        out: The sheet, a row for each query; None is FILE.search.png, which is renewed.
        run: The run folder, where it is not any more where it was.
        overwrite: Replace ``out`` if there is one.
        trust_code: Whether code that files name may be run, see `falcon_ssl.trusting_code`.

    Raises:
        InputError: No such file or row, an image that cannot be read, or a run that has changed since.

    Memory:
        A row group of the table, whatever its length, and its paths.
    """
    check_at_least("k", k, 1)
    table = EmbeddingFile(file)
    sheet = (
        table.path.with_suffix(".search.png")
        if out is None
        else new_file(out, suffixes=PICTURES, overwrite=overwrite)
    )
    queries = [_row(table, image) for image in images]
    files = [Path(str(image)) for image, row in zip(images, queries, strict=True) if row is None]
    with trusting_code(trust_code):
        pixels, z_QD = _embed(table, files, run=run)
    sample_ND = table.sample("z", ROWS)
    if files and z_QD.shape[1] != sample_ND.shape[1]:
        raise InputError(
            "the table does not hold what its run reads of an image",
            received=f"rows of {sample_ND.shape[1]} numbers in {table.path.name}",
            expected=f"{z_QD.shape[1]}",
            fix="embed the images again, or search by the number of a row",
        )
    z_of_files = iter(z_QD)
    rows = _representations(table, [row for row in queries if row is not None])
    asked = np.stack([next(z_of_files) if row is None else rows[row] for row in queries])

    groups = (group["z"] for group in table.groups("z"))
    found = nearest(asked, groups, space=Space.centered(sample_ND), k=k + 1)
    known = EmbeddedImages(table)
    hits = []
    for query, row_k, cosine_k in zip(queries, found.row, found.cosine, strict=True):
        pairs = zip(row_k.tolist(), cosine_k.tolist(), strict=True)
        others = [Hit(known.place(i), i, cosine) for i, cosine in pairs if i != query]
        hits.append(others[:k])
    from_files = iter(pixels)
    pictures = [
        [
            (next(from_files) if query is None else query, "query"),
            *((hit.row, known.caption(hit.row, hit.cosine)) for hit in found_k),
        ]
        for query, found_k in zip(queries, hits, strict=True)
    ]
    with trusting_code(trust_code):  # of the images
        known.draw(sheet, pictures)
    return hits


def _row(table: EmbeddingFile, image: str | Path | int) -> int | None:
    """The row that a query names; None for a file."""
    if isinstance(image, (str, Path)):
        if Path(image).is_file():
            return None
        if not str(image).isdecimal():
            raise InputError(
                "no such image",
                received=image,
                expected="an image file, or the number of a row of the table",
            )
    row = int(str(image))
    if not 0 <= row < len(table):
        raise InputError("no such row", received=row, expected=f"0 to {len(table) - 1}")
    return row


def _representations(table: EmbeddingFile, rows: Sequence[int]) -> dict[int, Any]:
    """z of some rows."""
    found: dict[int, Any] = {}
    start = 0
    for group in table.groups("z") if rows else ():
        z_ND = group["z"]
        found |= {row: z_ND[row - start] for row in rows if start <= row < start + len(z_ND)}
        start += len(z_ND)
    return found


def _embed(
    table: EmbeddingFile, files: Sequence[Path], *, run: str | Path | None
) -> tuple[list[Tensor], Any]:
    """Pixels and representations of image files, as those of the table were made."""
    if not files:
        return [], np.empty((0, 0))
    about = table.about
    if not about:
        raise InputError(
            "the table does not say what embedded its images",
            received=table.path,
            expected="a file of falcon-ssl embed",
            fix="search by the number of a row",
        )
    channels, height, width = about["image_shape"]
    decode = decoder((channels, height, width), build(ReadingConfig, about["reading"]))
    pixels = [_decoded(file, decode) for file in files]
    run = Path(about["run"] if run is None else run)
    device = best_device()
    if not run.is_dir():
        raise InputError(
            "the run that made the table is not there",
            received=run,
            expected="its run folder",
            fix="say where it is now with --run",
        )
    if find_checkpoint(run, about["checkpoint"]).state["sha256"][MODEL] != about["weights"]:
        raise InputError(
            "the run has changed since",
            received=f"{run}, checkpoint {about['checkpoint']}",
            expected=f"the weights of step {about['step']}, which made the table",
            fix="embed the images again",
        )
    # JSON has lists where the options have tuples.
    known = {k: v for k, v in about["readout"].items() if k in Readout.__dataclass_fields__}
    read = {k: tuple(v) if isinstance(v, list) else v for k, v in known.items()}
    config, method, views = load_method(
        run, device=device, evaluation=read, checkpoint=about["checkpoint"]
    )
    with torch.inference_mode():
        x_BCHW = views.evaluate(torch.stack(pixels).to(device))
        z_BD = Readout.of(config.evaluation)(method.evaluated_encoder, x_BCHW)
    return pixels, z_BD.float().cpu().numpy()


def _decoded(file: Path, decode: Callable[[bytes], Tensor]) -> Tensor:
    try:
        return decode(file.read_bytes())
    except Exception as error:  # a broken file can make Pillow raise anything
        raise InputError(
            f"cannot read the image {file}", received=reason_text(error), expected="an image file"
        ) from error
