"""The options of a grid's rows: tried in equal numbers on a held-out part of train, as a grid of their own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from falcon_ssl.commands.studies.grid import Grid, GridRow, Selection, check_name
from falcon_ssl.commands.studies.table import Cell
from falcon_ssl.config.mapping import merged
from falcon_ssl.core.errors import InputError

RATES = ("optim.lr", "optim.lr_rest")  # of the optimizer, and of AdamW beside Muon


@dataclass(frozen=True)
class Best:
    """The try that a row should take: its own one, unless another is better by more than the margin of the tuning."""

    row: str  # of the grid
    name: str  # of the try
    options: Mapping[str, Any]  # that it tries
    value: float  # of the first column
    tries: int  # how many of the row are finished
    is_chosen: bool  # whether the row has these options
    at_edge: bool  # whether no smaller or no larger learning rate was tried, of those that differ


def tuning_grid(grid: Grid) -> Grid:
    """A grid whose rows are the tries of a grid's rows, ``ROW/TRY``.

    Raises:
        InputError: The grid has none.
    """
    if grid.tuning is None:
        raise InputError(
            "nothing to tune",
            received=f"the grid {grid.name}",
            expected="a grid with tuning, and tries in its rows",
        )
    rows = {
        f"{name}/{try_name(tried)}": GridRow(
            f"{row.label}: {try_name(tried)}",
            options=merged(merged(row.options, tried), grid.tuning.options),
        )
        for name, row in grid.rows.items()
        for tried in row.tries
    }
    for name in rows:
        check_name(name.partition("/")[2])
    return replace(
        grid,
        title=f"{grid.title}: tries on a held-out part of train",
        seeds=grid.tuning.seeds,
        datasets={name: grid.datasets[name] for name in grid.tuning.datasets},
        rows=rows,
        tuning=None,
        paper=None,
    )


def with_tries(selection: Selection, tuned: Grid) -> Selection:
    """A selection of rows as one of all their tries."""
    if selection.rows is None:
        return selection
    rows = [
        name
        for row in selection.rows
        for name in ([one for one in tuned.rows if one.startswith(f"{row}/")] or [row])
    ]
    return replace(selection, rows=rows)


def best_tries(grid: Grid, cells: Iterable[Cell]) -> list[Best]:
    """The try that every row should take, by the mean over seeds and data sets of the grid's first column.

    Args:
        grid: With tuning.
        cells: Finished ones of `tuning_grid`; rows without any are left out.
    """
    assert grid.tuning is not None
    key, margin = grid.columns[0], grid.tuning.margin
    values: dict[str, list[float]] = {}
    for cell in cells:
        values.setdefault(cell["row"], []).append(cell["metrics"][key])
    found = []
    for name, row in grid.rows.items():
        tried = {try_name(one): one for one in row.tries}
        means = {
            one: sum(known) / len(known)
            for one in tried
            if (known := values.get(f"{name}/{one}")) is not None
        }
        if not means:
            continue
        best = max(means, key=means.__getitem__)
        own = [one for one in means if merged(row.options, tried[one]) == row.options]
        is_chosen = any(means[one] >= means[best] - margin for one in own)
        if is_chosen:
            best = own[0]
        options = {one: _flat(merged(row.options, tried[one])) for one in tried}
        at_edge = any(
            len({of.get(rate) for of in options.values()}) > 1
            and options[best][rate] in (min(rates), max(rates))
            for rate in RATES
            if (rates := [options[one][rate] for one in means if rate in options[one]])
        )
        found.append(Best(name, best, tried[best], means[best], len(means), is_chosen, at_edge))
    return found


def try_name(tried: Mapping[str, Any]) -> str:
    """What is tried, short enough for a folder.

    Example:
        >>> try_name({"optim": {"lr": 2e-3}, "swav": {"temperature": 0.2}})
        'lr0.002-temperature0.2'
    """
    return "-".join(f"{path.rpartition('.')[2]}{value}" for path, value in _flat(tried).items())


def _flat(options: Mapping[str, Any]) -> dict[str, Any]:
    """Values by their path: {"optim": {"lr": 1}} is {"optim.lr": 1}."""

    def walk(values: Mapping[str, Any], path: str) -> Iterator[tuple[str, Any]]:
        for key, value in values.items():
            if isinstance(value, Mapping):
                yield from walk(value, f"{path}{key}.")
            else:
                yield path + key, value

    return dict(walk(options, ""))
