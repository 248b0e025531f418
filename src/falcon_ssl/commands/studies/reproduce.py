"""A whole table of runs with one command, cell by cell: trained, judged, and set beside the paper's numbers."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import torch

from falcon_ssl.commands.loading import build, check_same_run
from falcon_ssl.commands.studies.estimate import Estimate, estimate
from falcon_ssl.commands.studies.grid import EVERYTHING, Cell, Choice, Grid, make_cells, read_grid
from falcon_ssl.commands.studies.runner import Standing, interrupted_by_sigterm, run_all, standing
from falcon_ssl.commands.studies.table import table_record
from falcon_ssl.core.errors import FailedRunsError, InputError
from falcon_ssl.engine import RunFolder
from falcon_ssl.records.folder import CONFIG
from falcon_ssl.records.lock import Lock
from falcon_ssl.report.table import write_tables

logger = logging.getLogger(__name__)


def reproduce(
    name: str | Path,
    *,
    out: str | Path,
    choice: Choice = EVERYTHING,
    processes: int | None = None,
) -> Path:
    """Run the cells of a grid that are not done, and write its table after each.

    Finished cells are skipped, stopped ones go on from their checkpoint, failed ones are tried again. A cell that fails
    leaves ``failure.txt`` in its folder and a line under the table, and does not stop the others.

    Args:
        name: A grid of this library (`falcon_ssl.config.recipes.grid_names`), or a YAML file.
        out: Folder of the runs (``DATASET/ROW-seedK``) and of ``table.json``, ``table.md`` and ``table.html``. These
            show all finished cells of the grid that have the same options, also those that are not wanted now.
        choice: Which cells, and with what in place of the grid's own options.
        processes: Cells at a time, each in a process of its own with its share of the cores; None is one for every GPU,
            and one without any.

    Returns:
        ``table.md``.

    Raises:
        InputError: As `make_cells`; ``out`` holds runs with other options, or another process is at
            work there.
        FailedRunsError: Some cells failed; all others are done and in the table.
    """
    out = Path(out)
    grid = read_grid(name)
    cells = make_cells(grid, choice)
    places = _places(processes, choice.device)
    check_cells(grid, cells, out)
    shown = make_cells(grid, replace(choice, rows=None, datasets=None))
    out.mkdir(parents=True, exist_ok=True)
    with Lock(out), interrupted_by_sigterm():
        waiting = [cell for cell in cells if standing(out / cell.name).state != "done"]
        logger.info("%s: %d of %d cells to do", grid.name, len(waiting), len(cells))
        page = write_tables(table_record(grid, shown, out), out)
        ended = run_all(
            [(cell.config, out / cell.name) for cell in waiting],
            places,
            logs=out / "logs" if len(places) > 1 else None,
        )
        with closing(ended):
            for number, run in enumerate(ended, start=1):
                now = standing(run)
                logger.info("%d/%d %s: %s %s", number, len(waiting), run, now.state, now.failure)
                page = write_tables(table_record(grid, shown, out), out)
    failed = [cell.name for cell in cells if standing(out / cell.name).state != "done"]
    if failed:
        raise FailedRunsError(
            f"{len(failed)} of {len(cells)} cells ({', '.join(failed)}); failure.txt in their folders says why,"
            f" {page} shows the others; the same command tries them again"
        )
    return page


def plan(
    name: str | Path,
    *,
    out: str | Path,
    choice: Choice = EVERYTHING,
    processes: int | None = None,
) -> tuple[list[tuple[Cell, Standing]], Estimate]:
    """What `reproduce` would do, and how long its training would take.

    Returns:
        Every wanted cell with where it stands, and the time that all of them need.

    Raises:
        InputError: As `reproduce`.
    """
    out = Path(out)
    grid = read_grid(name)
    cells = make_cells(grid, choice)
    check_cells(grid, cells, out)
    found = [(cell, standing(out / cell.name)) for cell in cells]
    return found, estimate(grid, found, len(_places(processes, choice.device)))


def check_cells(grid: Grid, cells: Sequence[Cell], out: Path) -> None:
    """Find out what would fail for its options before any cell is run.

    Raises:
        InputError: Options that do not fit each other, or a folder with a run of other options.
    """
    for cell in cells:
        if (out / cell.name / CONFIG).is_file():
            check_same_run(RunFolder.open(out / cell.name), cell.config)
    kinds = {(cell.dataset, cell.row): cell for cell in cells}
    for cell in kinds.values():
        if standing(out / cell.name).state == "done":
            continue
        try:
            build(cell.config, grid.datasets[cell.dataset].image_shape)
        except InputError as error:
            raise InputError(
                f"{cell.row} on {cell.dataset} cannot be built",
                received=str(error).rstrip("."),
                expected="options that fit each other",
                fix=f"correct them in the grid {grid.name}",
            ) from error


def _places(processes: int | None, device: str | None) -> list[dict[str, str]]:
    """Variables of every process: its share of the cores, and its GPU where there are any."""
    if processes is not None and processes < 1:
        raise InputError(
            "no process to run anything", received=processes, expected=">= 1", fix="raise it"
        )
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    numbers = [str(k) for k in range(0 if device == "cpu" else torch.cuda.device_count())]
    gpus = visible.split(",") if numbers and visible else numbers
    count = processes or max(1, len(gpus))
    places: list[dict[str, str]] = [{} for _ in range(count)]
    for number, place in enumerate(places):
        if count > 1:
            place["OMP_NUM_THREADS"] = str(max(1, torch.get_num_threads() // count))
        if gpus:
            place["CUDA_VISIBLE_DEVICES"] = gpus[number % len(gpus)]
    return places
