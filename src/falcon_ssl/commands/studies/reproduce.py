"""A whole table of runs with one command: trained, evaluated, and set beside the paper's numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from falcon_ssl.commands.studies.estimate import Estimate, estimate
from falcon_ssl.commands.studies.grid import EVERYTHING, GridRun, Selection, make_runs, read_grid
from falcon_ssl.commands.studies.runner import (
    Status,
    check_jobs,
    read_status,
    run_jobs,
    worker_environments,
)
from falcon_ssl.commands.studies.table import table_record
from falcon_ssl.report.table import write_tables


def reproduce(
    name: str | Path,
    *,
    out: str | Path,
    selection: Selection = EVERYTHING,
    processes: int | None = None,
) -> Path:
    """Run what is not done of a grid, and write its table after each run.

    Args:
        name: A grid of this library (`falcon_ssl.config.recipes.grid_names`), or a YAML file.
        out: Folder of the runs (``DATASET/ROW-seedK``) and of ``table.json``, ``table.md`` and ``table.html``. These
            show all finished runs of the grid that have the same options, also those that are not selected now.
        selection: Which runs, and with what in place of the grid's own options.
        processes: See `run_jobs`.

    Returns:
        ``table.md``.

    Raises:
        InputError: As `make_runs` and `run_jobs`.
        FailedRunsError: Some runs failed; all others are done and in the table.
    """
    out, grid = Path(out), read_grid(name)
    runs = make_runs(grid, selection)
    shown = make_runs(grid, replace(selection, rows=None, datasets=None))
    run_jobs(
        runs,
        out,
        processes=processes,
        device=selection.device,
        after_each=lambda: write_tables(table_record(grid, shown, out), out),
    )
    return out / "table.md"


def plan(
    name: str | Path,
    *,
    out: str | Path,
    selection: Selection = EVERYTHING,
    processes: int | None = None,
) -> tuple[list[tuple[GridRun, Status]], Estimate]:
    """What `reproduce` would do, and how long its training would take.

    Returns:
        Every selected run with its status, and the time that all of them need.

    Raises:
        InputError: As `reproduce`.
    """
    out, grid = Path(out), read_grid(name)
    runs = make_runs(grid, selection)
    check_jobs(runs, out)
    found = [(run, read_status(out / run.name)) for run in runs]
    workers = worker_environments(processes, selection.device)
    return found, estimate(grid, found, len(workers))
