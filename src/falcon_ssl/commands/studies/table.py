"""The record behind a table, from the records of its runs."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from falcon_ssl.commands.studies.grid import Grid, GridRun
from falcon_ssl.commands.studies.runner import read_status
from falcon_ssl.config import OptimConfig, RunConfig, from_mapping
from falcon_ssl.config.mapping import read_yaml
from falcon_ssl.core.devices import best_device, hardware
from falcon_ssl.engine import RunFolder
from falcon_ssl.records.folder import CONFIG, DIAGNOSIS, ENVIRONMENT, EVALUATION
from falcon_ssl.records.provenance import environment
from falcon_ssl.report.families import spread

logger = logging.getLogger(__name__)

COST = ("seconds", "images_per_s")  # of the training


def table_record(grid: Grid, runs: Sequence[GridRun], out: Path) -> dict[str, Any]:
    """All that the table shows, from the records of the runs; unfinished ones have no numbers."""
    found = [_run_record(run, out / run.name) for run in runs]
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


def _run_record(run: GridRun, path: Path) -> dict[str, Any]:
    """One run: its status, and its numbers when it is done."""
    now = read_status(path)
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
    if not _same_options(path, run.config):
        logger.warning("%s has other options than the table and is left out", path)
        return {**record, "state": "other options"}
    folder = RunFolder(path)
    evaluation, trained = (folder.read_json(name) for name in (EVALUATION, ENVIRONMENT))
    about = evaluation["about"]
    return {
        **record,
        **{key: about[key] for key in ("note", "num_train", "num_test")},
        **{key: trained[key] for key in ("device", "precision", "torch", *COST)},
        "seconds_to_judge": about["seconds"],
        "verdict": folder.read_json(DIAGNOSIS)["verdict"],
        "alarms": folder.alarms(),
        "metrics": {key: value for key, value in evaluation.items() if type(value) in (int, float)},
        "random_encoder": evaluation["random_encoder"],
    }


def _same_options(run: Path, config: RunConfig) -> bool:
    """Whether a run belongs in the table; where its images lay does not matter."""
    begun = from_mapping(read_yaml(run / CONFIG))
    return replace(config, data=begun.data, engine=begun.engine) == begun


def setting(
    configs: Sequence[RunConfig], done: Sequence[Mapping[str, Any]]
) -> dict[str, list[Any]]:
    """What the runs of a data set share, and where rows differ, all their values; the last ones only where they differ.

    The precision is the one that the finished runs chose: the grid may leave it to their machine.
    """
    optims = [config.optim for config in configs]
    values: dict[str, list[Any]] = {
        "encoder": [_encoder(config) for config in configs],
        "epochs": [config.epochs for config in configs],
        "batch size": [config.batch_size for config in configs],
        "precision": [one["precision"] for one in done]
        or [config.engine.precision for config in configs],
        "small views": [config.views.small_views for config in configs],
        "rate at the end": [f"{optim.lr * optim.final_lr:g}" for optim in optims],
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
    """Mean and sample standard deviation over the seeds, of the columns and the cost."""
    values = {key: [one["metrics"].get(key) for one in done] for key in columns}
    return _known(values | {key: [one[key] for one in done] for key in COST})


def _random_spreads(done: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> dict[str, Any]:
    """The same of the encoder before training; equal for all rows, so of the first finished one of each seed.

    Codes belong to the rows and not to the encoder.
    """
    firsts = {one["seed"]: one["random_encoder"] for one in reversed(done)}.values()
    return _known({key: [one.get(key) for one in firsts] for key in columns if "codes" not in key})


def _known(values: Mapping[str, Sequence[float | None]]) -> dict[str, Any]:
    spreads = {key: spread(found) for key, found in values.items()}
    return {key: asdict(found) for key, found in spreads.items() if found is not None}
