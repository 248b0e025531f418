"""A whole table of runs with one command, cell by cell: trained, judged, and set beside the paper's numbers."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from falcon_ssl.calibration import Estimate, estimate
from falcon_ssl.cells import Standing, interrupted_by_sigterm, run_all, standing
from falcon_ssl.config import OptimConfig, RunConfig, from_mapping
from falcon_ssl.devices import best_device
from falcon_ssl.engine import RunFolder
from falcon_ssl.engine.lock import Lock
from falcon_ssl.engine.records import CONFIG, environment, read_config
from falcon_ssl.errors import FailedRunsError, InputError
from falcon_ssl.grid import EVERYTHING, Cell, Choice, Grid, make_cells, read_grid
from falcon_ssl.methods import build_method
from falcon_ssl.report.families import spread
from falcon_ssl.report.reproduction import write_tables
from falcon_ssl.runs import check_same_run, make_views, seen_shape

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
        name: A grid of this library (`falcon_ssl.grid.grid_names`), or a YAML file.
        out: Folder of the runs (``DATASET/ROW-seedK``) and of ``table.json``, ``table.md`` and ``table.html``. These
            show all finished cells of the grid that have the same options, also those that are not wanted now.
        choice: Which cells, and with what in place of the grid's own options.
        processes: Cells at a time, each in a process of its own with its share of the cores; None is one for every GPU,
            and one without any.

    Returns:
        ``table.md``.

    Raises:
        InputError: As `falcon_ssl.grid.make_cells`; ``out`` holds runs with other options, or another process is at
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
            shape = seen_shape(grid.datasets[cell.dataset].image_shape, make_views(cell.config))
            build_method(cell.config, image_shape=shape)
        except InputError as error:
            raise InputError(
                f"{cell.row} on {cell.dataset} cannot be built",
                received=str(error).rstrip("."),
                expected="options that fit each other",
                fix=f"correct them in the grid {grid.name}",
            ) from error


def table_record(grid: Grid, cells: Sequence[Cell], out: Path) -> dict[str, Any]:
    """All that the table says, from the records of the cells; unfinished ones have no numbers."""
    found = [_cell_record(cell, out / cell.name) for cell in cells]
    rows = [
        {"name": row.name, "label": row.label, "paper": row.paper} for row in grid.rows.values()
    ]
    datasets = {}
    for dataset in dict.fromkeys(cell.dataset for cell in cells):
        own = [one for one in found if one["dataset"] == dataset]
        done = [one for one in own if one["state"] == "done"]
        configs = [cell.config for cell in cells if cell.dataset == dataset]
        datasets[dataset] = {
            "notes": sorted({one["note"] for one in done}),
            "setting": _setting(configs, done),
            "rows": {
                row: _spreads([one for one in done if one["row"] == row], grid.columns)
                for row in grid.rows
            },
            "random_encoder": _random_spreads(done, grid.columns),
        }
    return {
        "grid": grid.name,
        "title": grid.title,
        "columns": list(grid.columns),
        "seeds": sorted({cell.config.seed for cell in cells}),
        "rows": rows,
        "datasets": datasets,
        "paper": None if grid.paper is None else asdict(grid.paper),
        "cells": found,
        "about": environment(best_device()),
    }


def _cell_record(cell: Cell, run: Path) -> dict[str, Any]:
    """One cell: where it stands, and its numbers when it is done."""
    now = standing(run)
    record: dict[str, Any] = {
        "run": cell.name,
        "dataset": cell.dataset,
        "row": cell.row,
        "seed": cell.config.seed,
        "state": now.state,
    }
    if now.failure:
        record["failure"] = now.failure
    if now.state != "done":
        return record
    if not _same_options(run, cell.config):
        logger.warning("%s has other options than the table and is left out", run)
        return {**record, "state": "other options"}
    folder = RunFolder(run)
    evaluation, trained = (
        folder.read_json(name) for name in ("evaluation.json", "environment.json")
    )
    about = evaluation["about"]
    return {
        **record,
        "note": about["note"],
        "num_train": about["num_train"],
        "num_test": about["num_test"],
        "device": trained["device"],
        "precision": trained["precision"],
        "torch": trained["torch"],
        "seconds": trained["seconds"],
        "images_per_s": trained["images_per_s"],
        "seconds_to_judge": about["seconds"],
        "verdict": folder.read_json("diagnosis.json")["verdict"],
        "alarms": folder.alarms(),
        "metrics": {key: value for key, value in evaluation.items() if _is_number(value)},
        "random_encoder": evaluation["random_encoder"],
    }


def _same_options(run: Path, config: RunConfig) -> bool:
    """Whether a run belongs in the table; where its images lay does not matter."""
    begun = from_mapping(read_config(run / CONFIG))
    return replace(config, data=begun.data, engine=begun.engine) == begun


def _setting(
    configs: Sequence[RunConfig], done: Sequence[Mapping[str, Any]]
) -> dict[str, list[Any]]:
    """What the runs of a data set share, and where rows differ all their values; the last ones only where they differ.

    The precision is the one that the finished runs chose: the grid may leave it to their machine.
    """
    names: dict[str, list[Any]] = {
        "encoder": [_encoder(config) for config in configs],
        "epochs": [config.epochs for config in configs],
        "batch size": [config.batch_size for config in configs],
        "precision": [one["precision"] for one in done]
        or [config.engine.precision for config in configs],
    }
    told = {name: list(dict.fromkeys(values)) for name, values in names.items()}
    optims = [config.optim for config in configs]
    may_differ: dict[str, list[Any]] = {
        "small views": [config.views.small_views for config in configs],
        "rate at the end": [f"{optim.lr * optim.final_lr:g}" for optim in optims],
        "weight decay": [_decay(optim) for optim in optims],
    }
    differing = {name: list(dict.fromkeys(values)) for name, values in may_differ.items()}
    return told | {name: values for name, values in differing.items() if len(values) > 1}


def _decay(optim: OptimConfig) -> str:
    """A weight decay in words: "0.04", or "0.04 rising to 0.4"."""
    end = optim.weight_decay_end
    return f"{optim.weight_decay:g}" + ("" if end is None else f" rising to {end:g}")


def _encoder(config: RunConfig) -> str:
    """An encoder in words: "resnet18, width 16, stem half"."""
    options = {key: value for key, value in asdict(config.encoder).items() if key != "name"}
    words = [
        f"{key.replace('_', ' ')} {value}" for key, value in options.items() if value is not None
    ]
    return ", ".join([config.encoder.name, *words])


def _spreads(done: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> dict[str, Any]:
    """Mean and sample standard deviation over the seeds, of the columns and the cost."""
    values = {key: [one["metrics"].get(key) for one in done] for key in columns}
    values |= {key: [one[key] for one in done] for key in ("seconds", "images_per_s")}
    spreads = {key: spread(found) for key, found in values.items()}
    return {key: asdict(found) for key, found in spreads.items() if found is not None}


def _random_spreads(done: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> dict[str, Any]:
    """The same of the encoder before training; equal for all rows, so of the first finished one of each seed.

    Codes belong to the rows and not to the encoder.
    """
    firsts = {one["seed"]: one["random_encoder"] for one in reversed(done)}.values()
    spreads = {
        key: spread([first.get(key) for first in firsts]) for key in columns if "codes" not in key
    }
    return {key: asdict(found) for key, found in spreads.items() if found is not None}


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


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
