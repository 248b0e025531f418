"""A table of runs as plain data: methods times data sets times seeds, from a YAML file (see config/grids)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from falcon_ssl.commands.studies.runner import Job
from falcon_ssl.config import METHODS, from_mapping
from falcon_ssl.config.mapping import Values, build, merged, read_yaml
from falcon_ssl.config.recipes import grid_path
from falcon_ssl.core.checks import check_at_least
from falcon_ssl.core.errors import InputError, did_you_mean
from falcon_ssl.records.metrics import ACCURACY, CODES, METRICS, PLACES


@dataclass(frozen=True)
class GridRow:
    """One line of the table."""

    label: str  # in tables
    paper: str | None = None  # the row of the paper that it stands beside, or None
    # options of its runs, which win over those of the data set
    options: Mapping[str, Any] = field(default_factory=dict)
    tries: tuple[Mapping[str, Any], ...] = ()  # options over these, to choose from


@dataclass(frozen=True)
class GridTuning:
    """How the tries of the rows are run: with options that win over all others, held-out images among them."""

    datasets: tuple[str, ...]
    seeds: tuple[int, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    margin: float = (
        0.0  # how much better than a row's own options a try has to be, in the first column
    )


@dataclass(frozen=True)
class GridData:
    """One data set of the table."""

    num_train: int  # training images, for estimates
    image_shape: tuple[int, int, int]  # (channels, height, width), for estimates
    # options of its runs, which win over the shared ones
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Paper:
    """What the paper reports."""

    source: str  # where it stands
    setting: str  # how it was measured
    # numbers by row, data set and name in evaluation.json
    rows: Mapping[str, Mapping[str, Mapping[str, float]]]


@dataclass(frozen=True)
class Grid:
    """A whole table, as its file has it."""

    name: str  # of the file
    title: str  # heading of the table
    columns: tuple[str, ...]  # numbers of evaluation.json, in order
    seeds: tuple[int, ...]  # of every row
    # data sets and rows, by their names in folders and on the command line
    datasets: Mapping[str, GridData]
    rows: Mapping[str, GridRow]
    # options of all runs, as in a recipe; a method's group applies to the rows of that method
    shared: Mapping[str, Any] = field(default_factory=dict)
    # how its rows' options are chosen, see `falcon_ssl.commands.studies.tries`; None: stated without tries
    tuning: GridTuning | None = None
    # numbers to compare with; in a file also the name of the grid that holds them
    paper: Paper | None = None


@dataclass(frozen=True)
class GridRun(Job):
    """One run of a grid: its row on its data set with its seed."""

    dataset: str  # name of its data set
    row: str  # name of its row


def read_grid(name: str | Path) -> Grid:
    """A grid by name, or from a YAML file. InputError: no such grid, or one that is not valid."""
    path = grid_path(str(name))
    values = {"name": path.stem, **read_yaml(path)}
    if isinstance(values.get("paper"), str):
        values["paper"] = read_yaml(grid_path(values["paper"])).get("paper")
    try:
        grid: Grid = build(Grid, values)
        _check(grid)
        make_runs(grid)
    except InputError as error:
        raise InputError(
            f"{path} is not a valid grid",
            received=str(error).rstrip("."),
            expected="the form in docs/reproduce.md",
        ) from error
    return grid


def _check(grid: Grid) -> None:
    """Raise InputError for parts that do not fit each other."""
    for part in ("columns", "seeds", "datasets", "rows"):
        if not getattr(grid, part):
            raise InputError(f"{part} is empty", received="nothing", expected="at least one")
    _check_numbers("column", grid.columns)
    for name in (*grid.datasets, *grid.rows):
        check_name(name)
    papers = grid.paper.rows if grid.paper else {}
    for numbers in (one for row in papers.values() for one in row.values()):
        _check_numbers("number of the paper", numbers)
    for name, row in grid.rows.items():
        if row.paper is not None and row.paper not in papers:
            raise InputError(
                f"row {name} stands beside a row that the paper does not have",
                received=row.paper,
                expected=f"one of {_names(papers)}",
                fix=did_you_mean(row.paper, papers),
            )
    tried = [name for name, row in grid.rows.items() if row.tries]
    if tried and grid.tuning is None:
        raise InputError(
            "there are tries and no tuning that says how they are run",
            received=f"tries of {_names(tried)}",
            expected="tuning: {datasets, seeds, options, margin}",
        )
    if grid.tuning:
        check_at_least("margin", grid.tuning.margin, 0)
    for name in grid.tuning.datasets if grid.tuning else ():
        if name not in grid.datasets:
            raise InputError(
                "unknown data set of tuning",
                received=name,
                expected=f"one of {_names(grid.datasets)}",
                fix=did_you_mean(name, grid.datasets),
            )
    trained = sorted({_method(row) for row in grid.rows.values()})
    options = {name: data.options for name, data in grid.datasets.items()}
    for where, own in {"shared": grid.shared, **options}.items():
        for group in set(own) & set(METHODS) - set(trained):
            raise InputError(
                f"{where} has options of a method that no row trains",
                received=group,
                expected=_names(trained),
            )


@dataclass(frozen=True)
class Selection:
    """Which runs of a grid, and what in place of the grid's own options.

    Args:
        rows: Names of the rows; None for all.
        datasets: Names of the data sets; None for all.
        seeds: Seeds; None for the grid's own.
        data: Where the images of a data set are, such as ``{"cifar10": "parquet:PATH"}``.
        epochs: Passes over the images; the warm-up keeps its fraction of the run.
        device: auto, cpu or cuda.
    """

    rows: Sequence[str] | None = None
    datasets: Sequence[str] | None = None
    seeds: Sequence[int] | None = None
    data: Mapping[str, str] = field(default_factory=dict)
    epochs: int | None = None
    device: str | None = None


EVERYTHING = Selection()


def make_runs(grid: Grid, selection: Selection = EVERYTHING) -> list[GridRun]:
    """The runs of a grid, all of them checked.

    Returns:
        Data set by data set, seed by seed, row by row: what is compared is finished together.

    Raises:
        InputError: Unknown names, or options that do not make a run or do not apply to its method.
    """
    for what, names, known in (
        ("row", selection.rows, grid.rows),
        ("data set", selection.datasets, grid.datasets),
        ("data set of --data", selection.data, grid.datasets),
    ):
        for name in names or ():
            if name not in known:
                raise InputError(
                    f"unknown {what} of the grid {grid.name}",
                    received=name,
                    expected=f"one of {_names(known)}",
                    fix=did_you_mean(name, known),
                )
    return [
        _make_run(grid, dataset, row, seed, selection)
        for dataset in grid.datasets
        if selection.datasets is None or dataset in selection.datasets
        for seed in (grid.seeds if selection.seeds is None else selection.seeds)
        for row in grid.rows
        if selection.rows is None or row in selection.rows
    ]


def _make_run(grid: Grid, dataset: str, row: str, seed: int, selection: Selection) -> GridRun:
    """One run; options of its row win over those of its data set, and these over the shared ones."""
    data, own = grid.datasets[dataset], grid.rows[row]
    options: Values = {}
    for more in (grid.shared, data.options):
        # Shared options hold groups of other methods too.
        fitting = {k: v for k, v in more.items() if k not in METHODS or k == _method(own)}
        options = merged(options, fitting)
    given: dict[str, Any] = {"seed": seed}
    if selection.device is not None:
        given["engine"] = {"device": selection.device}
    if dataset in selection.data:
        given["data"] = selection.data[dataset]
    try:
        config = from_mapping(merged(merged(options, own.options), given))
        if selection.epochs is not None:  # the warm-up keeps its fraction of the run
            warmup = config.optim.warmup_epochs * selection.epochs / config.epochs
            optim = replace(config.optim, warmup_epochs=warmup)
            config = replace(config, epochs=selection.epochs, optim=optim)
        # A table states what its runs are; images must not decide it.
        chosen = {"encoder.name": config.encoder.name, "views.preset": config.views.preset}
        for name in (name for name, value in chosen.items() if value == "auto"):
            raise InputError(f"{name} is left open", received="auto", expected="a choice")
    except InputError as error:
        raise InputError(
            f"{row} on {dataset} is not a run",
            received=str(error).rstrip("."),
            expected="options of falcon-ssl pretrain",
        ) from error
    return GridRun(f"{dataset}/{row}-seed{seed}", config, data.image_shape, dataset, row)


def check_name(name: str) -> None:
    """Raise InputError unless a name can be one of a folder, inside the folder of all runs."""
    if not re.fullmatch(r"[\w+=,@ -][\w+=,@ .-]{0,99}", name) or name != name.strip():
        raise InputError(
            "a name of a grid names a folder",
            received=repr(name[:120]),
            expected="at most 100 letters, digits, spaces and _ . + = , @ -, the first of them no dot",
        )


def _method(row: GridRow) -> str:
    return str(row.options.get("method", "falcon"))


def _check_numbers(what: str, names: Iterable[str]) -> None:
    """Only what an evaluation can hold: another name would show as dashes after days of training."""
    alone = [key for key, metric in METRICS.items() if metric.group in (ACCURACY, CODES)]
    placed = [key + place for key in METRICS if key not in alone for place in PLACES]
    for name in names:
        if name not in alone and name not in placed:
            raise InputError(
                f"unknown {what}",
                received=name,
                expected=f"one of {_names(alone + placed)}",
                fix=did_you_mean(name, [*alone, *placed]),
            )


def _names(names: Iterable[str]) -> str:
    return ", ".join(names)
