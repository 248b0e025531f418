"""Embeddings as a table on disk: written part by part, resumed, put together; read with bounded memory.

    F.parquet.parts/about.json             what is being embedded; other options are another table
    F.parquet.parts/part-000007.parquet    rows that are done, written whole or not at all
    F.parquet                              all parts, one row group each

Columns, where they exist, one row an image:

    path, row    where the image is: its file or name in a table, and its place in the data
    split        train or test
    label, class_name
    code, probability    the most probable code and its entry of p_i
    z, u         representation and embedding: lists of one length, float32
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from falcon_ssl.core.errors import InputError
from falcon_ssl.core.extras import train_extra
from falcon_ssl.records.files import read_json, unreadable, write_json
from falcon_ssl.records.lock import Lock
from falcon_ssl.records.schema import EMBEDDINGS_FORM, check_form

Columns: TypeAlias = Mapping[str, "NDArray[Any] | Sequence[str | None]"]

COLUMNS = ("path", "row", "split", "label", "class_name", "code", "probability", "z", "u")
PARQUET, ARRAY_SUFFIXES = ".parquet", (".npz", ".safetensors")
_WORDS, _VECTORS = ("path", "split", "class_name"), ("z", "u")
# Of every column: kinds of dtypes, number of dimensions, and both in words.
_KINDS: Mapping[str, tuple[str, int, str]] = {
    **dict.fromkeys(_WORDS, ("U", 1, "text")),
    **dict.fromkeys(_VECTORS, ("iuf", 2, "finite numbers, as many in every row")),
    "row": ("iu", 1, "a whole number in every row"),
    # A label that is missing is NaN.
    **dict.fromkeys(("label", "code", "probability"), ("iuf", 1, "a number in every row")),
}
_ABOUT = "about.json"
_KEY = b"falcon_ssl"  # of the metadata


class PartsFolder:
    """Parts of a table that is not complete yet, in a folder beside it.

    Args:
        out: The table that is to be.
        about: What it is a table of, plain JSON.
    """

    def __init__(self, out: Path, about: Mapping[str, Any]) -> None:
        self._out, self._about = out, dict(about)
        self.path = out.with_name(out.name + ".parts")
        self._lock: Lock | None = None

    def begin(self, *, overwrite: bool) -> None:
        """Start the folder, or continue one of the same table.

        Raises:
            InputError: Another process writes to it; or parts of another table are there, and ``overwrite`` is False.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = Lock(self.path)
        if (self.path / _ABOUT).is_file():
            wanted = json.loads(json.dumps(self._about))
            begun: dict[str, Any] = {}
            with suppress(InputError) if overwrite else nullcontext():
                begun = read_json(self.path / _ABOUT)
            if begun == wanted:
                return
            if not overwrite:
                changed = [k for k in {**begun, **wanted} if begun.get(k) != wanted.get(k)]
                raise InputError(
                    "an unfinished file of other embeddings is there",
                    received=f"{self.path}, with other values of {', '.join(changed)}",
                    expected="the command that it was started with, which continues it",
                    fix="repeat that, choose another --out, or start again with --overwrite",
                )
        for old in (*self.path.glob("part-*"), *self.path.glob("whole.*")):
            old.unlink()  # and not the lock, which would no longer keep others out
        write_json(self.path / _ABOUT, self._about)

    def has(self, number: int) -> bool:
        """Whether a part is done."""
        return self._part(number).is_file()

    def write(self, number: int, columns: Columns) -> None:
        """Write a part; without rows it has no columns."""
        pq = _parquet()
        unfinished = self._part(number).with_suffix(".tmp")
        pq.write_table(_table(columns), unfinished, **_WRITING)
        unfinished.replace(self._part(number))

    def finish(self, num_parts: int) -> int:
        """Put the parts together in their order and delete the folder; returns how many rows they have.

        Memory: a part, for a .parquet.

        Raises:
            InputError: No part has a row, or one is damaged.
        """
        import pyarrow as pa  # type: ignore[import-untyped]

        pq = _parquet()
        parts = [self._part(number) for number in range(num_parts)]
        full = [part for part in parts if _read(part, pq.read_metadata).num_rows]
        if not full:
            raise InputError("no image could be read", received="0 rows", expected="at least 1")
        schemas = [_read(part, pq.read_schema) for part in full]
        try:
            schema = pa.unify_schemas(schemas)
        except pa.ArrowException as error:
            fix = "start again with --overwrite"
            raise unreadable(self.path, error, "parts of one table", fix) from error
        schema = pa.schema([schema.field(name) for name in COLUMNS if name in schema.names])
        empty = schema.with_metadata({_KEY: json.dumps(self._about)}).empty_table()
        whole = self.path / f"whole{PARQUET}"
        with pq.ParquetWriter(whole, empty.schema, **_WRITING) as writer:
            for part in full:  # a column that it lacks is null
                rows = _read(part, pq.read_table)
                one = pa.concat_tables([empty, rows], promote_options="default")
                writer.write_table(one)
        file = EmbeddingFile(whole)
        unfinished = whole
        if self._out.suffix != PARQUET:
            unfinished = self.path / f"whole{self._out.suffix}"
            _write_arrays(file, unfinished)
        unfinished.replace(self._out)
        self._lock = None
        shutil.rmtree(self.path)
        return len(file)

    def _part(self, number: int) -> Path:
        return self.path / f"part-{number:06d}{PARQUET}"


class EmbeddingFile:
    """A table of embeddings that is read row group by row group.

    Attributes:
        path: The .parquet.
        about: What it is a table of: run, checkpoint, data, how images were read; empty for a table of another tool.
        names: Its columns.

    Raises:
        InputError: No such file, another kind of file, no rows, or no column z.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if self.path.suffix != PARQUET:
            raise InputError(
                "not a table of embeddings",
                received=self.path.name,
                expected="a .parquet",
                fix="write one with falcon-ssl embed RUN --out F.parquet",
            )
        if not self.path.is_file():
            raise InputError("no such file", received=path, expected="an existing .parquet")
        pq = _parquet()
        try:
            self._file = pq.ParquetFile(self.path)
        except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
            raise unreadable(self.path, error, "a whole .parquet", _WRITE_AGAIN) from error
        self.names: list[str] = self._file.schema_arrow.names
        if "z" not in self.names:
            raise InputError(
                f"{self.path.name} has no column z",
                received=f"columns {', '.join(self.names)}",
                expected="a file of falcon-ssl embed, or representations as lists in a column z",
            )
        if len(self) == 0:
            raise InputError(f"{self.path.name} is empty", received="0 rows", expected="at least 1")
        stated = (self._file.schema_arrow.metadata or {}).get(_KEY)
        self.about: dict[str, Any] = _about(self.path, stated) if stated else {}

    def __len__(self) -> int:
        return int(self._file.metadata.num_rows)

    def groups(self, *names: str) -> Iterator[dict[str, Any]]:
        """Columns of one row group after the other: arrays, [N, D] for lists of numbers, lists of strings.

        Raises:
            InputError: A damaged row group, or a column of another kind than `embed` writes.
        """
        widths: dict[str, int] = {}
        for group in range(self._file.num_row_groups):
            try:
                table = self._file.read_row_group(group, columns=list(names))
                found = {name: _array(table.column(name)) for name in names}
            except InputError:
                raise
            except Exception as error:  # damaged columns can make pyarrow raise anything
                received = f"row group {group}: {error}"
                raise unreadable(self.path, received, "a whole .parquet", _WRITE_AGAIN) from error
            for name, values in found.items():
                _check_column(self.path, name, values, width=widths.get(name))
            widths = {name: found[name].shape[1] for name in _VECTORS if name in found}
            yield found

    def sample(self, name: str, count: int) -> Any:
        """At most ``count`` rows of a column, evenly spaced, in the memory of these and of a group."""
        step = -(-len(self) // count)
        first, parts = 0, []
        for group in self.groups(name):
            parts.append(group[name][first::step].copy())
            first = (first - len(group[name])) % step
        return _joined(parts)

    def read(self, *names: str) -> dict[str, Any]:
        """Whole columns, as `groups` has them."""
        parts = list(self.groups(*names))
        return {name: _joined([part[name] for part in parts]) for name in names}


_WRITE_AGAIN = "write it again: falcon-ssl embed RUN --out F.parquet"
_WRITING: Mapping[str, Any] = {
    "compression": "zstd",
    "use_dictionary": list(_WORDS),  # a dictionary of floats only costs time
}


def _write_arrays(file: EmbeddingFile, path: Path) -> None:
    """All columns as arrays, the row under the name that `Features` has for it; .safetensors holds numbers alone."""
    columns = file.read(*file.names)
    arrays = {"index" if name == "row" else name: values for name, values in columns.items()}
    about = json.dumps(file.about)
    numbers = {name: values for name, values in arrays.items() if not isinstance(values, list)}
    words = {
        name: np.array([w or "" for w in values])
        for name, values in arrays.items()
        if isinstance(values, list)
    }
    if path.suffix == ".npz":
        np.savez(path, allow_pickle=False, about=np.array(about), **numbers, **words)
    else:
        from safetensors.numpy import save_file

        save_file(numbers, path, metadata={_KEY.decode(): about})


def _table(columns: Columns) -> Any:
    import pyarrow as pa

    arrays: dict[str, Any] = {}
    for name in COLUMNS:
        values = columns.get(name)
        if values is None:
            continue
        if isinstance(values, np.ndarray) and values.ndim == 2:
            flat = pa.array(np.ascontiguousarray(values).reshape(-1))
            arrays[name] = pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
        else:
            arrays[name] = pa.array(values, type=pa.string() if name in _WORDS else None)
    return pa.table(arrays)


def _array(column: Any) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc  # type: ignore[import-untyped]

    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return column.to_pylist()
    array = column.combine_chunks()
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    if not any(is_list(array.type) for is_list in lists):
        return array.to_numpy(zero_copy_only=False)
    flat = array.flatten().to_numpy(zero_copy_only=False)
    if array.null_count or pc.count_distinct(pc.list_value_length(array)).as_py() > 1:
        raise InputError(
            "a column holds lists of different lengths",
            received=f"{len(flat)} numbers in {len(array)} rows, {array.null_count} of them empty",
            expected="as many numbers in every row",
        )
    return flat.reshape(len(array), -1)


def _read(part: Path, read: Callable[[Path], Any]) -> Any:
    """What is read of a part. InputError: it is damaged."""
    try:
        return read(part)
    except Exception as error:  # damaged columns can make pyarrow raise anything
        fix = "delete it: the same command then makes it again"
        raise unreadable(part, error, "a part as it was written", fix) from error


def _about(path: Path, stated: bytes) -> dict[str, Any]:
    """What a table says of itself. InputError: it is damaged."""
    try:
        about: dict[str, Any] = json.loads(stated)
    except (ValueError, RecursionError) as error:
        raise unreadable(path, error, "valid JSON in its metadata", _WRITE_AGAIN) from error
    check_form(path, about, EMBEDDINGS_FORM, fix=_WRITE_AGAIN)
    return about


def _check_column(path: Path, name: str, values: Any, *, width: int | None) -> None:
    """Raise InputError where a column of a row group is of another kind than `embed` writes.

    Args:
        path: The table.
        name: Of the column.
        values: All of it in this row group.
        width: Of its lists in the groups before; None for the first.
    """
    if name not in _KINDS:
        return
    kinds, dimensions, expected = _KINDS[name]
    is_text = isinstance(values, list)
    kind = "U" if is_text else values.dtype.kind
    shape: tuple[int, ...] = (len(values),) if is_text else values.shape
    is_fine = kind in kinds and len(shape) == dimensions
    if name in _VECTORS:
        is_fine = is_fine and width in (None, shape[1]) and bool(np.isfinite(values).all())
    if not is_fine:
        received = "text" if is_text else f"{values.dtype} {list(shape)}"
        what = f"{path.name} has a column {name} of another kind"
        raise InputError(what, received=received, expected=expected, fix=_WRITE_AGAIN)


def _joined(parts: list[Any]) -> Any:
    if isinstance(parts[0], list):
        return [value for part in parts for value in part]
    return np.concatenate(parts)


def _parquet() -> Any:
    with train_extra("tables of embeddings"):
        import pyarrow.parquet as pq  # type: ignore[import-untyped]
    return pq
