"""Tables with a column of encoded images and a column of labels, as the Hugging Face hub has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from falcon_ssl.core.errors import InputError
from falcon_ssl.data.classes import class_names, class_numbers
from falcon_ssl.data.encoded import Records
from falcon_ssl.data.files import read_inside

# How Arrow calls the types; several tools write the large ones.
_BINARY = ("binary", "large_binary", "binary_view")
_TEXT = ("string", "large_string", "string_view")
_IMAGE_COLUMNS = ("image", "img", "jpg", "png", "webp")
_LABEL_COLUMNS = ("label", "fine_label", "labels", "cls")


class Table(Protocol):
    """One split of a data set as a table.

    Attributes:
        schema: The `pyarrow.Schema` of its columns.
    """

    schema: Any

    def column(self, name: str) -> Any:
        """A column as `pyarrow.ChunkedArray`; nothing else is read."""

    def records(self, column: str, *, rows: Tensor | None, name: str) -> Records:
        """A column of images, at some rows or at all."""


class Cells:
    """A piece of an image column: a `pyarrow.ChunkedArray` of binary, or of structs with fields bytes, path or both.

    Args:
        column: The piece.
        root: The folder of the table: paths to files elsewhere are refused. None refuses all.
    """

    def __init__(self, column: Any, root: Path | None) -> None:
        import pyarrow as pa  # type: ignore[import-untyped]
        import pyarrow.compute as pc  # type: ignore[import-untyped]

        self._bytes, self._paths, self._root = column, None, root
        if pa.types.is_struct(column.type):
            fields = {field.name: pc.struct_field(column, field.name) for field in column.type}
            self._bytes, self._paths = fields.get("bytes"), fields.get("path")

    def read(self, row: int) -> bytes:
        """Content of one image file."""
        data: bytes | None = None if self._bytes is None else self._bytes[row].as_py()
        if data is not None:
            return data
        path = self.path(row)
        if path is None:
            raise OSError("neither bytes nor a path")
        return read_inside(path, self._root)

    def path(self, row: int) -> str | None:
        """Path or name of one image file, where the table has it."""
        return None if self._paths is None else self._paths[row].as_py()


class ArrowTable(Table):
    """A `datasets.Dataset` as it was loaded, without selected or shuffled rows: on this machine, memory-mapped."""

    def __init__(self, dataset: Any, root: Path | None) -> None:
        self._table, self._root = dataset.data, root
        self.schema = self._table.schema

    def column(self, name: str) -> Any:
        """A column as `pyarrow.ChunkedArray`."""
        return self._table.column(name)

    def records(self, column: str, *, rows: Tensor | None, name: str) -> Records:
        """A column of images, at some rows or at all."""
        kept = np.arange(len(self._table)) if rows is None else rows.numpy()
        return _ArrowRecords(Cells(self._table.column(column), self._root), kept, name)


class _ArrowRecords(Records):
    def __init__(self, cells: Cells, rows: np.ndarray[Any, Any], name: str) -> None:
        self._cells = cells
        self._rows = rows
        self._name = name

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, index: int) -> bytes:
        return self._cells.read(int(self._rows[index]))

    def place(self, index: int) -> str:
        row = int(self._rows[index])
        path = self._cells.path(row)
        return f"{self._name}, row {row}" + (f" ({path})" if path else "")

    def path(self, index: int) -> str | None:
        return self._cells.path(int(self._rows[index]))


def image_records(table: Table, *, rows: Tensor | None, name: str) -> Records:
    """The images of a table, at some ``rows`` (int64 [N], ascending) or all; InputError where it has none."""
    column = next((name for name in _IMAGE_COLUMNS if name in table.schema.names), None)
    kind = None if column is None else table.schema.field(column).type
    if column is None or not _holds_images(kind):
        columns = ", ".join(f"{field.name}: {field.type}" for field in table.schema)
        raise InputError(
            f"{name} has no column of images",
            received=f"columns {columns}",
            expected=f"encoded images in a column named {' or '.join(_IMAGE_COLUMNS[:2])}",
        )
    return table.records(column, rows=rows, name=name)


def _holds_images(kind: Any) -> bool:
    """Whether cells of this type are encoded images, or structs of one (bytes) or of where it is (path)."""
    import pyarrow as pa

    if not pa.types.is_struct(kind):
        return str(kind) in _BINARY
    fields = {field.name: str(field.type) for field in kind}
    if not fields.keys() & {"bytes", "path"}:
        return False
    return fields.get("bytes", "null") in (*_BINARY, "null") and fields.get("path", "null") in (
        *_TEXT,
        "null",
    )


class Labels(NamedTuple):
    """The labels of a table, int64 [N] or None; names of the classes, where there are any; whether cells are words."""

    numbers: Tensor | None = None
    class_names: list[str] | None = None
    in_words: bool = False


def table_labels(table: Table, names: list[str] | None = None) -> Labels:
    """The labels of a table; none where it has no column for them, or hides them as -1 or empty cells.

    Args:
        table: The table.
        names: The classes of the training part, for labels that are words; None numbers them in their order.

    Raises:
        InputError: A column of labels that holds something else, has gaps, or words that are no names of classes.
    """
    import datasets
    import pyarrow as pa

    column = next((name for name in _LABEL_COLUMNS if name in table.schema.names), None)
    cells = None if column is None else table.column(column)
    if cells is None or cells.null_count == len(cells):
        return Labels()
    if cells.null_count or not (pa.types.is_integer(cells.type) or _is_text(cells.type)):
        gaps = f" with {cells.null_count} empty cells" if cells.null_count else ""
        raise InputError(
            f"the column {column} holds no labels",
            received=f"{cells.type}{gaps}",
            expected="a class in every row, as integer or word",
            fix="number the classes 0, 1, 2, ..., or give the column another name",
        )
    if _is_text(cells.type):
        coded = cells.cast(pa.large_string()).combine_chunks().dictionary_encode()
        words = coded.dictionary.to_pylist()
        if names is None:
            names = class_names(words, num_images=len(cells), where=f"the column {column}")
        number_K = class_numbers(words, names)
        return Labels(number_K[torch.from_numpy(np.array(coded.indices))], names, in_words=True)
    numbers = torch.from_numpy(np.array(cells.to_numpy(), dtype=np.int64))
    if int(numbers.min()) < 0:
        return Labels()
    features = datasets.Features.from_arrow_schema(table.schema)
    return Labels(numbers, getattr(features[column], "names", None))


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    return str(kind.value_type if pa.types.is_dictionary(kind) else kind) in _TEXT
