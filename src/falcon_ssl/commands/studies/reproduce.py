"""A whole table of runs with one command: trained, evaluated, and set beside the paper's numbers."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from falcon_ssl.commands.studies.estimate import Estimate, estimate, expected_seconds
from falcon_ssl.commands.studies.grid import (
    EVERYTHING,
    Grid,
    GridRun,
    Selection,
    make_runs,
    read_grid,
)
from falcon_ssl.commands.studies.runner import (
    Job,
    Status,
    check_jobs,
    read_status,
    run_jobs,
    worker_environments,
)
from falcon_ssl.commands.studies.table import read_cells, recorded, table_record
from falcon_ssl.commands.studies.tries import best_tries, tuning_grid, with_tries
from falcon_ssl.core.checks import check_positive
from falcon_ssl.core.consent import trusting_code
from falcon_ssl.records.folder import TABLE
from falcon_ssl.report.table import write_tables

logger = logging.getLogger(__name__)


def reproduce(
    name: str | Path,
    *,
    out: str | Path,
    table: str | Path | None = None,
    selection: Selection = EVERYTHING,
    tuning: bool = False,
    processes: int | None = None,
    minutes: float | None = None,
    trust_code: bool = False,
) -> Path:
    """Run what is not done of a grid, and write its table after each run.

    A run is done if its folder says so, or if ``table.json`` has it with the same options: by that file alone a grid
    resumes on another machine.

    Args:
        name: A grid of this library (`falcon_ssl.config.recipes.grid_names`), or a YAML file.
        out: Folder of the runs (``DATASET/ROW-seedK``) and of ``table.html``.
        table: Folder of ``table.json`` and ``table.md``; None is ``out``. These show all finished runs of the grid that
            have the same options, also those that are not selected now.
        selection: Which runs, and with what in place of the grid's own options.
        tuning: Run the tries of the rows in place of the rows.
        processes: See `run_jobs`.
        minutes: Time limit: no run begins that is not expected to end in it. None is none.
        trust_code: Whether code that files name may be run, see `falcon_ssl.trusting_code`.

    Returns:
        ``table.md``.

    Raises:
        InputError: As `make_runs` and `run_jobs`.
        FailedRunsError: Some runs failed; all others are done and in the table.
    """
    started = time.monotonic()
    out, (grid, selection) = Path(out), _chosen(name, selection, tuning)
    table = out if table is None else Path(table)
    if minutes is not None:
        check_positive("minutes", minutes)
    runs = make_runs(grid, selection)
    seeds = sorted({*grid.seeds, *(selection.seeds or ())})
    shown = make_runs(grid, replace(selection, rows=None, datasets=None, seeds=seeds))
    left = _without_recorded(runs, out, table)

    def write() -> Path:
        record = table_record(grid, shown, out, table)
        return write_tables(record, table, page=out / "table.html")

    def may_start(job: Job) -> bool:
        if minutes is None:
            return True
        run = next(run for run in left if run.name == job.name)
        cells = list(read_cells(table).values())
        expected = expected_seconds(grid, run, read_status(out / run.name), cells)
        fits = time.monotonic() - started + expected <= 60 * minutes
        if not fits:
            logger.info("%s: not begun, it would take about %.0f s", run.name, expected)
        return fits

    if not left:
        out.mkdir(parents=True, exist_ok=True)
        return write()
    try:
        with trusting_code(trust_code):
            run_jobs(
                left,
                out,
                processes=processes,
                device=selection.device,
                after_each=write,
                may_start=may_start,
            )
    finally:
        if tuning:
            _log_best(name, table)
    return table / "table.md"


def plan(
    name: str | Path,
    *,
    out: str | Path,
    table: str | Path | None = None,
    selection: Selection = EVERYTHING,
    tuning: bool = False,
    processes: int | None = None,
    trust_code: bool = False,
) -> tuple[list[tuple[GridRun, Status]], Estimate]:
    """What `reproduce` would do, and how long its training would take.

    Returns:
        Every selected run with its status, and the time that all of them need.

    Raises:
        InputError: As `reproduce`.
    """
    out, (grid, selection) = Path(out), _chosen(name, selection, tuning)
    runs = make_runs(grid, selection)
    left = _without_recorded(runs, out, out if table is None else Path(table))
    with trusting_code(trust_code):
        check_jobs(left, out)
    found = [(run, read_status(out / run.name) if run in left else Status("done")) for run in runs]
    workers = worker_environments(processes, selection.device)
    with trusting_code(trust_code):
        return found, estimate(grid, found, len(workers))


def _chosen(name: str | Path, selection: Selection, tuning: bool) -> tuple[Grid, Selection]:
    """The grid to run, and what of it."""
    grid = read_grid(name)
    if not tuning:
        return grid, selection
    tuned = tuning_grid(grid)
    return tuned, with_tries(selection, tuned)


def _log_best(name: str | Path, table: Path) -> None:
    """Which try of every row is the best so far, and what is to be done about it."""
    grid = read_grid(name)
    for best in best_tries(grid, read_cells(table).values()):
        remarks = [f"{best.tries} of {len(grid.rows[best.row].tries)} tries"]
        if best.at_edge:
            remarks.append("its learning rate is at the edge of those tried: try more")
        if not best.is_chosen:
            remarks.append("the grid has other options")
        logger.info("%s: %s, %.4f (%s)", best.row, best.name, best.value, "; ".join(remarks))


def _without_recorded(runs: Sequence[GridRun], out: Path, table: Path) -> list[GridRun]:
    """The runs that the table has not got; says which it has, and from where, where their folders are not here."""
    cells, known = read_cells(table), recorded(runs, table)
    taken: dict[str, list[str]] = {}
    for name, cell in known.items():
        if read_status(out / name).state != "done":
            taken.setdefault(cell["device"], []).append(name)
    for device, names in taken.items():
        logger.info("taken over from %s, run on %s: %s", table / TABLE, device, ", ".join(names))
    changed = [run.name for run in runs if run.name in cells and run.name not in known]
    if changed:
        logger.info("other options than in %s: %s", table / TABLE, ", ".join(changed))
    return [run for run in runs if run.name not in known]
