"""Parquet files read piece by piece, from disk or from the hub; nothing is stored.

A parquet file is a sequence of row groups, and a row group is read as a whole. An order that jumps
over all rows would read a group for every image, so these records name their groups as ``blocks``,
and `BatchPlan` shuffles groups first and rows within a window of groups then.
"""

from __future__ import annotations

from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from torch import Tensor

from falcon_ssl.core.errors import InputError
from falcon_ssl.data.encoded import Records
from falcon_ssl.data.files import OPENERS
from falcon_ssl.data.order import blocks_per_window
from falcon_ssl.data.table import Cells, Table


class ShardTable(Table):
    """Parquet files as one table: paths, or addresses of fsspec, "hf://datasets/...".

    Args:
        files: All of them.
        root: The folder whose image files cells may name; None for none.

    Raises:
        InputError: No files, a file that is not parquet, or files with different columns.
    """

    def __init__(self, files: list[str], root: Path | None) -> None:
        self._root = root
        with ThreadPoolExecutor(OPENERS) as pool:
            opened = list(pool.map(_row_groups, files))
        if not opened or any(schema.names != opened[0][0].names for schema, _ in opened):
            raise InputError(
                "the parquet files do not form one table",
                received=f"{len(files)} files",
                expected="at least one, all with the same columns",
            )
        self.schema = opened[0][0]
        self._groups = [group for _, groups in opened for group in groups]

    def column(self, name: str) -> Any:
        """A column as `pyarrow.ChunkedArray`; only this column is read."""
        import pyarrow as pa  # type: ignore[import-untyped]

        with ThreadPoolExecutor(OPENERS) as pool:
            read = pool.map(lambda group: _read_group(group, name), self._groups)
            chunks = [chunk for cells in read for chunk in cells.chunks]
        kind = self.schema.field(name).type
        try:
            return pa.chunked_array([chunk.cast(kind) for chunk in chunks], kind)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise InputError(
                "the parquet files do not form one table",
                received=f"the column {name} as {' and '.join(sorted({str(c.type) for c in chunks}))}",
                expected=f"{kind} in all files, as in the first",
            ) from error

    def records(self, column: str, *, rows: Tensor | None, name: str) -> Records:
        """A column of images, at some rows or at all."""
        return _ShardRecords(self._groups, column, rows=rows, name=name, root=self._root)


class _ShardRecords(Records):
    """Images of some rows, read a row group at a time; the last groups are kept.

    Memory: the row groups of two windows, encoded.
    """

    def __init__(
        self,
        groups: list[Any],
        column: str,
        *,
        rows: Tensor | None,
        name: str,
        root: Path | None,
    ) -> None:
        self._groups, self._root = groups, root
        self._column = column
        self._name = name
        self._starts = np.cumsum([0, *(group.row_groups[0].num_rows for group in groups)])
        self._rows = np.arange(self._starts[-1]) if rows is None else rows.numpy()
        self.blocks = tuple(np.diff(np.searchsorted(self._rows, self._starts)).tolist())
        self._capacity = 2 * blocks_per_window(self.blocks)
        self._cached: OrderedDict[int, Cells] = OrderedDict()
        self._lock = Lock()
        self._group_locks = [Lock() for _ in groups]

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, index: int) -> bytes:
        row = int(self._rows[index])
        group = int(np.searchsorted(self._starts, row, side="right")) - 1
        with self._group_locks[group]:  # threads that want the same group wait for one reader
            cells = self._cached.get(group)
            if cells is None:
                cells = Cells(_read_group(self._groups[group], self._column), self._root)
        with self._lock:
            self._cached[group] = cells
            self._cached.move_to_end(group)
            while len(self._cached) > self._capacity:
                self._cached.popitem(last=False)
        return cells.read(row - int(self._starts[group]))

    def place(self, index: int) -> str:
        return f"{self._name}, row {int(self._rows[index])}"


def _row_groups(file: str) -> tuple[Any, list[Any]]:
    """Schema of a file, and every row group as a `pyarrow.dataset.ParquetFileFragment`."""
    import pyarrow as pa
    import pyarrow.dataset as pads  # type: ignore[import-untyped]
    from fsspec.core import url_to_fs  # type: ignore[import-untyped]

    try:
        filesystem, path = url_to_fs(file)
        (fragment,) = pads.dataset(path, filesystem=filesystem, format="parquet").get_fragments()
        return fragment.physical_schema, fragment.split_by_row_group()
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(
            "cannot open a parquet file",
            received=f"{file} ({error})",
            expected="a readable parquet file",
            fix="check the file and the network",
        ) from error


def _read_group(group: Any, column: str) -> Any:
    return group.to_table(columns=[column]).column(column)
