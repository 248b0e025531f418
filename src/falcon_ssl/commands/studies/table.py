"""The record behind a table, from the records of its runs."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from falcon_ssl.commands.studies.grid import Grid, GridRun
from falcon_ssl.commands.studies.runner import read_status
from falcon_ssl.config import EngineConfig, OptimConfig, RunConfig, from_mapping, to_mapping
from falcon_ssl.config.mapping import read_yaml
from falcon_ssl.core.devices import best_device, hardware
from falcon_ssl.core.errors import InputError
from falcon_ssl.engine import RunFolder
from falcon_ssl.records.files import read_json
from falcon_ssl.records.folder import (
    BASELINE,
    CONFIG,
    DIAGNOSIS,
    ENVIRONMENT,
    EVALUATION,
    RECORD_FORMS,
    TABLE,
)
from falcon_ssl.records.provenance import environment
from falcon_ssl.records.schema import DONE_CELL, check_form
from falcon_ssl.report.families import spread
from falcon_ssl.report.formatting import format_precision

logger = logging.getLogger(__name__)

Cell = Mapping[str, Any]  # the record of one run in table.json

_EXECUTION = ("data", "engine")  # options that do not change what a run is
COST = ("seconds", "images_per_s")  # of the training
_PATCHES = {"options": {"num_centers": int}, "seconds": {"fit": float}, "about": {"device": str}}


def read_cells(table: Path) -> dict[str, Cell]:
    """The finished cells of a folder's ``table.json`` by run, with their options; none without that file."""
    path = table / TABLE
    cells = read_json(path, RECORD_FORMS[TABLE]).get("cells", []) if path.is_file() else []
    found = {cell["run"]: cell for cell in cells if cell["state"] == "done" and "options" in cell}
    for name, cell in found.items():
        check_form(path, cell, DONE_CELL, path=name)
    return found


def recorded(runs: Sequence[GridRun], table: Path) -> dict[str, Cell]:
    """The cells of a folder's ``table.json`` that are the runs, by run: they need no run folder any more.

    A cell is the run if it was made with the same options, whatever its name; its data may have lain elsewhere.
    """
    cells = read_cells(table)
    return {
        run.name: cells[run.name]
        for run in runs
        if run.name in cells and _is_of(cells[run.name]["options"], run.config)
    }


def table_record(grid: Grid, runs: Sequence[GridRun], out: Path, table: Path) -> dict[str, Any]:
    """All that the table shows: cells from the run folders in ``out``, and of runs not finished there, from ``table``.

    Unfinished ones have no numbers.
    """
    known = recorded(runs, table)
    found = [_cell(run, out / run.name, known.get(run.name)) for run in runs]
    rows = [
        {"name": name, "label": row.label, "paper": row.paper} for name, row in grid.rows.items()
    ]
    datasets = {}
    for dataset in dict.fromkeys(run.dataset for run in runs):
        own = [one for one in found if one["dataset"] == dataset]
        done = [one for one in own if one["state"] == "done"]
        configs = [run.config for run in runs if run.dataset == dataset]
        datasets[dataset] = {
            "notes": sorted({one["note"] for one in done}),
            "setting": setting(configs, done),
            "rows": {
                row: _spreads([one for one in done if one["row"] == row], grid.columns)
                for row in grid.rows
            },
            "random_encoder": _random_spreads(done, grid.columns),
            "baseline": _baseline(table / dataset / BASELINE, grid.columns),
        }
    return {
        "grid": grid.name,
        "title": grid.title,
        "columns": list(grid.columns),
        "seeds": sorted({run.config.seed for run in runs}),
        "rows": rows,
        "datasets": datasets,
        "paper": None if grid.paper is None else asdict(grid.paper),
        "cells": found,
        "about": environment(hardware(best_device())),
    }


def _cell(run: GridRun, path: Path, known: Cell | None) -> Cell:
    """One run: its status, and its numbers when it is done, here or in an earlier table."""
    now = read_status(path)
    if now.state != "done" and known is not None:
        return known
    record: dict[str, Any] = {
        "run": run.name,
        "dataset": run.dataset,
        "row": run.row,
        "seed": run.config.seed,
        "state": now.state,
    }
    if now.failure:
        record["failure"] = now.failure
    if now.state != "done":
        return record
    if not _is_of(read_yaml(path / CONFIG), run.config):
        logger.warning("%s has other options than the table and is left out", path)
        return known or {**record, "state": "other options"}
    folder = RunFolder(path)
    evaluation, trained = (folder.read_json(name) for name in (EVALUATION, ENVIRONMENT))
    about = evaluation["about"]
    return {
        **record,
        "options": _options(run.config),
        **{key: about.get(key) for key in ("note", "num_train", "num_test", "numbers_read")},
        **{key: trained.get(key) for key in ("device", "precision", "torch", "commit", *COST)},
        "seconds_to_evaluate": about["seconds"],
        "verdict": folder.read_json(DIAGNOSIS)["verdict"],
        "alarms": list(folder.alarms()),
        "metrics": {key: value for key, value in evaluation.items() if type(value) in (int, float)},
        "random_encoder": evaluation.get("random_encoder", {}),
    }


def _options(config: RunConfig) -> dict[str, Any]:
    """What identifies a run, as plain values: all options except where its images lie and how it is executed."""
    return {key: value for key, value in to_mapping(config).items() if key not in _EXECUTION}


def _is_of(options: Mapping[str, Any], config: RunConfig) -> bool:
    """Whether a run with such options is one of ``config``; an option that is newer than its record had its default."""
    try:
        begun = from_mapping(options)
    except InputError:  # an option or a value that there is no more
        return False
    return replace(config, data=begun.data, engine=EngineConfig()) == replace(
        begun, engine=EngineConfig()
    )


def setting(
    configs: Sequence[RunConfig], done: Sequence[Mapping[str, Any]]
) -> dict[str, list[Any]]:
    """What the runs of a data set share, and where rows differ, all their values; the last ones only where they differ.

    The precision is the one that the finished runs chose: the grid may leave it to their machine.
    """
    optims = [config.optim for config in configs]
    precisions = [one["precision"] for one in done] or [c.engine.precision for c in configs]
    values: dict[str, list[Any]] = {
        "encoder": [_encoder(config) for config in configs],
        "epochs": [config.epochs for config in configs],
        "batch size": [config.batch_size for config in configs],
        "precision": [format_precision(one) for one in precisions],
        "small views": [config.views.small_views for config in configs],
        "rate at the end": [f"{optim.peak_lr * optim.final_lr:g}" for optim in optims],
        "weight decay": [_decay(optim) for optim in optims],
    }
    different = {name: list(dict.fromkeys(found)) for name, found in values.items()}
    always = list(values)[:4]
    return {name: v for name, v in different.items() if name in always or len(v) > 1}


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
    """Mean and sample standard deviation over the seeds, of the columns, the width of what was read and the cost."""
    values = {key: [one["metrics"].get(key) for one in done] for key in columns}
    return _known(values | {key: [one.get(key) for one in done] for key in ("numbers_read", *COST)})


def _random_spreads(done: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> dict[str, Any]:
    """The same of the encoder before training; equal for all rows, so of the first of each seed that has evaluated it.

    Codes belong to the rows and not to the encoder.
    """
    measured = [one for one in reversed(done) if one["random_encoder"]]
    firsts = {one["seed"]: one["random_encoder"] for one in measured}.values()
    return _known({key: [one.get(key) for one in firsts] for key in columns if "codes" not in key})


def _baseline(path: Path, columns: Sequence[str]) -> dict[str, Any] | None:
    """The row of what `falcon-ssl baseline` has written into a folder of the data set's name, beside the table."""
    if not path.is_file():
        return None
    found = read_json(path, _PATCHES)
    values = {key: [found.get(key)] for key in ("numbers_read", *columns)}
    return {
        "label": f"patch k-means, {found['options']['num_centers']} centers, nothing trained",
        "numbers": _known(values | {"seconds": [found["seconds"]["fit"]]}),
        "device": found["about"]["device"],
    }


def _known(values: Mapping[str, Sequence[float | None]]) -> dict[str, Any]:
    spreads = {key: spread(found) for key, found in values.items()}
    return {key: asdict(found) for key, found in spreads.items() if found is not None}
