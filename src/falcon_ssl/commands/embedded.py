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

from falcon_ssl.config.mapping import build
from falcon_ssl.config.run import ReadingConfig
from falcon_ssl.core.errors import InputError
from falcon_ssl.data import Source, Splits, data_rows, load_splits
from falcon_ssl.records.embeddings import EmbeddingFile

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
        word = label[index] if label is not None else Path(self.place(index)).stem
        return f"{cosine:.2f} {word[-_WORD:]}"

    def pixels(self, indices: Sequence[int]) -> list[Tensor] | None:
        """Images uint8 [C, H, W]; None, with a warning, where they cannot be found again."""
        if self._splits is None:
            return None
        return [self._one(index) for index in indices]

    def _one(self, index: int) -> Tensor:
        source, rows = self._sources[self._columns["split"][index]]
        at = int(np.searchsorted(rows, self._columns["row"][index]))
        return source.images(torch.tensor([at]))[0]

    @cached_property
    def _splits(self) -> Splits | None:
        about = self._file.about
        try:
            if not about:
                raise InputError(
                    "no data is named", received=self._file.path, expected="a file of embed"
                )
            reading: ReadingConfig = build(ReadingConfig, about["reading"])
            channels = about["image_shape"][0]
            return load_splits(about["data"], replace(reading, channels=channels))
        except (InputError, OSError) as error:
            logger.warning("no pictures, the images are not found again: %s", error)
            return None

    @cached_property
    def _sources(self) -> dict[str, tuple[Source, np.ndarray[Any, Any]]]:
        """Sources and the rows of the data that they hold, by split."""
        assert self._splits is not None
        sources = {"train": self._splits.train, "test": self._splits.test}
        return {
            name: (source, data_rows(source, torch.arange(len(source))).numpy())
            for name, source in sources.items()
            if source is not None
        }
