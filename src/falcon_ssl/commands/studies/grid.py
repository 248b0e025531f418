"""A table of runs as plain data: methods times data sets times seeds, from a YAML file (see config/grids).

title     heading of the table
columns   numbers of evaluation.json, in order
seeds     of every row
shared    options of all runs, as in a recipe; a method's group applies to the rows of that method
datasets  NAME: {num_train, image_shape, options}       what a dry run assumes, and what differs from shared
rows      NAME: {label, paper, options}                 what differs from both; paper names a row of the paper
paper     {source, setting, rows: {NAME: {data set: {number: value}}}}, or the name of the grid that holds them
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from falcon_ssl.config import METHODS
from falcon_ssl.config.mapping import read_yaml
from falcon_ssl.config.recipes import grid_path
from falcon_ssl.config.run import RunConfig, from_mapping
from falcon_ssl.core.errors import InputError
from falcon_ssl.records.metrics import ACCURACY, CODES, METRICS, PLACES

Options = Mapping[str, Any]


@dataclass(frozen=True)
class GridRow:
    """One line of the table.

    Args:
        name: In folders and on the command line.
        label: For people.
        paper: The row of the paper that it stands beside, or None.
        options: Options of its runs.
    """

    name: str
    label: str
    paper: str | None
    options: Options


@dataclass(frozen=True)
class GridData:
    """One data set of the table.

    Args:
        name: In folders and on the command line.
        num_train: Training images, for estimates.
        image_shape: (channels, height, width), for estimates.
        options: Options of its runs.
    """

    name: str
    num_train: int
    image_shape: tuple[int, int, int]
    options: Options


@dataclass(frozen=True)
class Paper:
    """What the paper reports.

    Args:
        source: Where it stands.
        setting: How it was measured.
        rows: Numbers by row, data set and name in evaluation.json.
    """

    source: str
    setting: str
    rows: Mapping[str, Mapping[str, Mapping[str, float]]]


@dataclass(frozen=True)
class Grid:
    """A whole table; the head of this file says what the parts are."""

    name: str
    title: str
    columns: tuple[str, ...]
    seeds: tuple[int, ...]
    shared: Options
    datasets: Mapping[str, GridData]
    rows: Mapping[str, GridRow]
    paper: Paper | None


@dataclass(frozen=True)
class Cell:
    """One run of a grid.

    Args:
        dataset: Name of its data set.
        row: Name of its row.
        config: The whole configuration.
    """

    dataset: str
    row: str
    config: RunConfig

    @property
    def name(self) -> str:
        """Its folder inside the folder of the grid."""
        return f"{self.dataset}/{self.row}-seed{self.config.seed}"


def read_grid(name: str | Path) -> Grid:
    """A grid by name, or from a YAML file.

    Raises:
        InputError: No such grid, or one that is not put together as the head of this file says.
    """
    path = grid_path(str(name))
    values = read_yaml(path)
    found = _parts(
        values, "the grid", ("title", "columns", "seeds", "datasets", "rows"), ("shared", "paper")
    )
    shared = _mapping(found.get("shared") or {}, "shared")
    grid = Grid(
        name=path.stem,
        title=str(found["title"]),
        columns=tuple(str(column) for column in _listed(found["columns"], "columns")),
        seeds=tuple(_listed(found["seeds"], "seeds")),
        shared=shared,
        datasets={
            key: _dataset(key, value)
            for key, value in _mapping(found["datasets"], "datasets").items()
        },
        rows={key: _row(key, value) for key, value in _mapping(found["rows"], "rows").items()},
        paper=_paper(found.get("paper")),
    )
    _check_numbers("column", grid.columns)
    for row in grid.rows.values():
        if row.paper is not None and (grid.paper is None or row.paper not in grid.paper.rows):
            raise InputError(
                f"row {row.name} stands beside a row that the paper does not have",
                received=row.paper,
                expected=_names(grid.paper.rows if grid.paper else ()),
                fix="correct paper, or leave it out",
            )
    trained = {row.options.get("method", "falcon") for row in grid.rows.values()}
    for where, options in [("shared", shared)] + [
        (d.name, d.options) for d in grid.datasets.values()
    ]:
        for group in set(options) & set(METHODS) - trained:
            raise InputError(
                f"{where} has options of a method that no row trains",
                received=group,
                expected=_names(sorted(trained)),
                fix="leave them out",
            )
    make_cells(grid)
    return grid


@dataclass(frozen=True)
class Choice:
    """What of a grid is wanted, and what in place of the grid's own options.

    Args:
        rows: Names of the rows; None for all.
        datasets: Names of the data sets; None for all.
        seeds: Seeds; None for the grid's own.
        data: Where the images of a data set are, such as ``{"cifar10": "parquet:PATH"}``.
        epochs: Passes over the images; the warm-up keeps its share of the run.
        device: auto, cpu or cuda.
    """

    rows: Sequence[str] | None = None
    datasets: Sequence[str] | None = None
    seeds: Sequence[int] | None = None
    data: Mapping[str, str] = field(default_factory=dict)
    epochs: int | None = None
    device: str | None = None


EVERYTHING = Choice()


def make_cells(grid: Grid, choice: Choice = EVERYTHING) -> list[Cell]:
    """The runs of a grid, all of them checked.

    Returns:
        Data set by data set, seed by seed, row by row: what is compared is finished together.

    Raises:
        InputError: Unknown names, or options that do not make a run or do not apply to its method.
    """
    for what, names, known in (
        ("row", choice.rows, grid.rows),
        ("data set", choice.datasets, grid.datasets),
        ("data set of --data", choice.data, grid.datasets),
    ):
        for name in names or ():
            if name not in known:
                raise InputError(
                    f"unknown {what} of the grid {grid.name}",
                    received=name,
                    expected=f"one of {_names(known)}",
                    fix="correct its name",
                )

    given = {} if choice.device is None else {"engine": {"device": choice.device}}

    def cell(one: GridData, row: GridRow, seed: int) -> Cell:
        method = str(row.options.get("method", "falcon"))
        options: Options = {}
        for more in (grid.shared, one.options):
            options = _merged(options, _for_method(more, method))
        own: Options = {"seed": seed}
        if one.name in choice.data:
            own = {**own, "data": choice.data[one.name]}
        try:
            config = from_mapping(_merged(_merged(options, row.options), {**given, **own}))
            config = config if choice.epochs is None else _with_epochs(config, choice.epochs)
            _check_explicit(config)
        except InputError as error:
            raise InputError(
                f"{row.name} on {one.name} is not a run",
                received=str(error).rstrip("."),
                expected="options of falcon-ssl pretrain",
                fix=f"correct them in the grid {grid.name}",
            ) from error
        return Cell(one.name, row.name, config)

    return [
        cell(grid.datasets[dataset], grid.rows[row], seed)
        for dataset in grid.datasets
        if choice.datasets is None or dataset in choice.datasets
        for seed in (grid.seeds if choice.seeds is None else choice.seeds)
        for row in grid.rows
        if choice.rows is None or row in choice.rows
    ]


def _for_method(options: Options, method: str) -> Options:
    """Shared options without the groups of other methods."""
    return {key: value for key, value in options.items() if key not in METHODS or key == method}


def _merged(options: Options, more: Options) -> dict[str, Any]:
    """``options`` with ``more`` over them, group by group."""
    merged = dict(options)
    for key, value in more.items():
        old = merged.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        merged[key] = _merged(old, value) if both else value  # type: ignore[arg-type]
    return merged


def _with_epochs(config: RunConfig, epochs: int) -> RunConfig:
    """Another length of the run; the warm-up keeps its share."""
    warmup = config.optim.warmup_epochs * epochs / config.epochs
    return replace(config, epochs=epochs, optim=replace(config.optim, warmup_epochs=warmup))


def _check_explicit(config: RunConfig) -> None:
    """A table says what its runs are; images must not decide it."""
    for name, value in (
        ("encoder.name", config.encoder.name),
        ("views.preset", config.views.preset),
    ):
        if value == "auto":
            raise InputError(
                f"{name} is left open", received="auto", expected="a choice", fix="state it"
            )


def _dataset(name: str, value: Any) -> GridData:
    found = _parts(value, f"data set {name}", ("num_train", "image_shape"), ("options",))
    shape = _listed(found["image_shape"], f"image_shape of {name}")
    if len(shape) != 3 or not all(type(number) is int for number in [*shape, found["num_train"]]):
        raise InputError(
            f"data set {name} has no size",
            received=f"image_shape={shape}, num_train={found['num_train']}",
            expected="[channels, height, width] and a number of images",
            fix="correct them",
        )
    return GridData(
        name,
        found["num_train"],
        (shape[0], shape[1], shape[2]),
        _mapping(found.get("options") or {}, f"options of {name}"),
    )


def _row(name: str, value: Any) -> GridRow:
    found = _parts(value, f"row {name}", ("label",), ("paper", "options"))
    options = _mapping(found.get("options") or {}, f"options of {name}")
    return GridRow(name, str(found["label"]), found.get("paper"), options)


def _paper(value: Any) -> Paper | None:
    if value is None:
        return None
    if isinstance(value, str):
        return read_grid(value).paper
    found = _parts(value, "paper", ("source", "setting", "rows"), ())
    rows = _mapping(found["rows"], "paper.rows")
    for row, stated in rows.items():
        for numbers in _mapping(stated, f"paper.rows.{row}").values():
            _check_numbers("number of the paper", _mapping(numbers, f"paper.rows.{row}"))
    return Paper(str(found["source"]), str(found["setting"]), rows)


def _check_numbers(what: str, names: Iterable[str]) -> None:
    """Only what an evaluation can hold: another name would show as dashes after days of training."""
    alone = [key for key, metric in METRICS.items() if metric.group in (ACCURACY, CODES)]
    placed = [key + place for key in METRICS if key not in alone for place in PLACES]
    for name in names:
        if name not in alone and name not in placed:
            near = get_close_matches(name, [*alone, *placed], n=1)
            raise InputError(
                f"unknown {what}",
                received=name,
                expected=f"one of {_names(alone + placed)}",
                fix=f"write {near[0]}" if near else "correct its name",
            )


def _parts(
    value: Any, where: str, needed: Sequence[str], optional: Sequence[str]
) -> Mapping[str, Any]:
    """A mapping with just these keys."""
    found = _mapping(value, where)
    if not set(needed) <= set(found) <= {*needed, *optional}:
        raise InputError(
            f"{where} is not put together as a grid is",
            received=_names(found),
            expected=_names(needed) + (f", and perhaps {_names(optional)}" if optional else ""),
            fix="see the grids that come with falcon_ssl",
        )
    return found


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InputError(
            f"{where} has the wrong type",
            received=repr(value),
            expected="a mapping",
            fix="indent its parts below it",
        )
    return value


def _listed(value: Any, where: str) -> Sequence[Any]:
    if not isinstance(value, list) or not value:
        raise InputError(
            f"{where} has the wrong type",
            received=repr(value),
            expected="a list",
            fix="write it as [a, b]",
        )
    return value


def _names(names: Iterable[str]) -> str:
    return ", ".join(map(str, names))
