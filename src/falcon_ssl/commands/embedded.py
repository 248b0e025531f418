"""The images behind a table of embeddings, found again to be looked at."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from falcon_ssl.commands.files import write_picture
from falcon_ssl.config.mapping import build
from falcon_ssl.config.run import ReadingConfig
from falcon_ssl.core.errors import InputError
from falcon_ssl.data import Source, data_paths, data_rows, load_splits
from falcon_ssl.records.embeddings import EmbeddingFile
from falcon_ssl.views import captioned_sheet

logger = logging.getLogger(__name__)

_WORD = 12  # letters that fit below a picture; the end of a name sets it apart


class EmbeddedImages:
    """Words and pixels of the rows of a table.

    Args:
        file: A table that `embed` wrote; one of another tool has paths or row numbers alone, and no pixels.
    """

    def __init__(self, file: EmbeddingFile) -> None:
        self._file = file
        names = [name for name in ("path", "row", "split", "class_name") if name in file.names]
        self._columns: Mapping[str, Any] = file.read(*names) if names else {}

    def place(self, index: int) -> str:
        """Where an image is: its path, or its split and row."""
        if "path" in self._columns and (path := self._columns["path"][index]):
            return str(path)
        row = self._columns["row"][index] if "row" in self._columns else index
        return (
            f"{self._columns['split'][index]} {row}" if "split" in self._columns else f"row {row}"
        )

    def row(self, index: int) -> dict[str, Any]:
        """Everything that says which image it is, for a table of rows."""
        return {name: values[index] for name, values in self._columns.items()}

    def caption(self, index: int, cosine: float) -> str:
        """A few words below a picture."""
        label = self._columns.get("class_name")
        word = (label and label[index]) or Path(self.place(index)).stem
        return f"{cosine:.2f}, {word[-_WORD:]}"

    def draw(self, sheet: Path, rows: Sequence[Sequence[tuple[Tensor | int, str]]]) -> None:
        """Renew a contact sheet: pixels, or images of the table by their row in it, with words below.

        Where images cannot be found again there is a warning, and no sheet; without rows there is none either.
        """
        try:
            pictures = [
                [(self._pixels(one) if isinstance(one, int) else one, words) for one, words in row]
                for row in rows
            ]
        except (InputError, OSError) as error:
            logger.warning("no pictures, the images are not found again: %s", error)
            pictures = []
        if pictures:
            write_picture(sheet, captioned_sheet(pictures))
        else:
            sheet.unlink(missing_ok=True)  # an older one shows something else

    def _pixels(self, index: int) -> Tensor:
        """Pixels [C, H, W] of an image of the table. InputError: it is not where it was."""
        sources = self._sources
        split, row = self._columns["split"][index], self._columns["row"][index]
        path = self._columns["path"][index] if "path" in self._columns else None
        source, rows = sources.get(split, (None, np.empty(0)))
        at = torch.tensor([np.searchsorted(rows, row)])
        found = at < len(rows) and rows[at] == row
        if source is None or not found or not _is_same(path, data_paths(source, at)[0]):
            raise InputError(
                "the images have changed since",
                received=f"{split}, row {row}",
                expected=self.place(index),
                fix="embed them again",
            )
        return source.images(at)[0]

    @cached_property
    def _sources(self) -> dict[str, tuple[Source, np.ndarray[Any, Any]]]:
        """Sources and the rows of the data that they hold, by split."""
        about = self._file.about
        if not about or not {"row", "split"} <= self._columns.keys():
            raise InputError(
                "the table does not say where its images are",
                received=self._file.path,
                expected="a file of falcon-ssl embed",
            )
        reading = replace(build(ReadingConfig, about["reading"]), channels=about["image_shape"][0])
        splits = load_splits(about["data"], reading)
        sources = {"train": splits.train, "test": splits.test}
        return {
            name: (source, data_rows(source, torch.arange(len(source))).numpy())
            for name, source in sources.items()
            if source is not None
        }


def _is_same(path: str | None, now: str | None) -> bool:
    """Whether two paths end alike: the folder around them may have moved."""
    return path is None or now is None or Path(path).name == Path(now).name
