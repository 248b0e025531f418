"""Every setting of FALCON with every seed: what `sweep` and `tune` share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from falcon_ssl.commands.loading import open_data
from falcon_ssl.commands.resolve import resolve
from falcon_ssl.commands.studies.runner import Job, run_jobs
from falcon_ssl.config import FalconConfig, RunConfig
from falcon_ssl.core.devices import best_device, hardware
from falcon_ssl.core.errors import InputError
from falcon_ssl.records.files import write_json
from falcon_ssl.records.provenance import environment


def run_settings(
    config: RunConfig,
    settings: Mapping[str, FalconConfig],
    seeds: Sequence[int],
    out: Path,
    *,
    processes: int | None,
) -> dict[str, list[Path]]:
    """Train and evaluate every setting with every seed, see `run_jobs`; the run folders by name of the setting."""
    if config.method != "falcon":
        raise InputError(
            "this study varies options of falcon",
            received=f"method={config.method}",
            expected="method=falcon",
            fix="compare other methods with falcon-ssl report RUN RUN",
        )
    source = open_data(config).train
    resolved = resolve(config, source)
    jobs = {
        (name, seed): Job(
            f"{name}-seed{seed}", replace(resolved, falcon=falcon, seed=seed), source.image_shape
        )
        for name, falcon in settings.items()
        for seed in seeds
    }
    run_jobs(list(jobs.values()), out, processes=processes, device=config.engine.device)
    return {name: [out / jobs[name, seed].name for seed in seeds] for name in settings}


def write_record(
    path: Path, config: RunConfig, seeds: Sequence[int], found: Mapping[str, Any]
) -> None:
    """What a study found, and what it takes to repeat it."""
    about = {"data": config.data, "epochs": config.epochs, "seeds": list(seeds)}
    write_json(path, {**found, "about": about | environment(hardware(best_device()))})
