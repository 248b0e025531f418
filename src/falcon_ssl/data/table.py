"""Images in a table of Hugging Face `datasets`: a column of encoded images, a column of labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from falcon_ssl.checks import InputError

_IMAGE_COLUMNS = ("image", "img", "jpg", "png", "webp")
_LABEL_COLUMNS = ("label", "fine_label", "labels", "cls")


class TableRecords:
    """The image column of a `datasets.Dataset`, read without its decoding.

    Args:
        dataset: A `datasets.Dataset`; its table is memory-mapped.
        rows: int64 [N], which rows to keep, in this order; None keeps all.
        name: For people.

    Raises:
        InputError: The table has no column of images.
    """

    def __init__(self, dataset: Any, *, rows: Tensor | None = None, name: str) -> None:
        import pyarrow as pa  # type: ignore[import-untyped]
        import pyarrow.compute as pc  # type: ignore[import-untyped]

        column = _find(dataset.column_names, _IMAGE_COLUMNS)
        kind = None if column is None else dataset.data.schema.field(column).type
        if kind is None or not (pa.types.is_struct(kind) or pa.types.is_binary(kind)):
            raise InputError(
                f"{name} has no column of images",
                received=f"columns {', '.join(dataset.column_names)}",
                expected=f"encoded images in a column named {' or '.join(_IMAGE_COLUMNS[:2])}",
                fix="rename the column",
            )
        table = dataset.with_format(None).data
        cells = table.column(column)
        self._bytes, self._paths = cells, None
        if pa.types.is_struct(kind):
            self._bytes = pc.struct_field(cells, "bytes")
            self._paths = pc.struct_field(cells, "path")
        self._rows = np.arange(len(dataset)) if rows is None else rows.numpy()
        self._name = name

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, index: int) -> bytes:
        """Content of one image file, out of the table or from the path that the table gives."""
        row = int(self._rows[index])
        data = self._bytes[row].as_py()
        if data is None:
            path = None if self._paths is None else self._paths[row].as_py()
            if path is None:
                raise OSError("neither bytes nor a path")
            data = Path(path).read_bytes()
        content: bytes = data
        return content

    def place(self, index: int) -> str:
        """Row of one image, and its file name where the table has one."""
        row = int(self._rows[index])
        path = None if self._paths is None else self._paths[row].as_py()
        return f"{self._name}, row {row}" + (f" ({path})" if path else "")


def table_labels(dataset: Any) -> tuple[Tensor | None, list[str] | None]:
    """Labels and class names of a `datasets.Dataset`; None when it has none, or hides them as -1."""
    column = _find(dataset.column_names, _LABEL_COLUMNS)
    if column is None:
        return None, None
    labels = torch.from_numpy(np.array(dataset.data.column(column).to_numpy(), dtype=np.int64))
    if len(labels) == 0 or int(labels.min()) < 0:
        return None, None
    return labels, getattr(dataset.features[column], "names", None)


def _find(columns: list[str], wanted: tuple[str, ...]) -> str | None:
    return next((name for name in wanted if name in columns), None)
