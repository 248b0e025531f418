"""Quality and geometry against the size of the dictionary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev

from falcon_ssl.commands.studies.runner import _train_all, _write_record
from falcon_ssl.config.run import RunConfig
from falcon_ssl.engine import RunFolder
from falcon_ssl.records.folder import EVALUATION
from falcon_ssl.report import build_sweep


def sweep(
    config: RunConfig,
    *,
    out: str | Path,
    num_codes: Sequence[int],
    seeds: Sequence[int] = (0,),
    complete: bool = True,
) -> Path:
    """Train and judge one run for every dictionary size and seed; draw the paper's figures.

    Runs that are finished are skipped, runs that were stopped go on.

    Args:
        config: What all runs share.
        out: Folder of the runs, of ``sweep.html`` and of its numbers, ``sweep.json``.
        num_codes: Sizes C of the dictionary.
        seeds: Seeds of the runs.
        complete: Whether the complete dictionary of all 2^F codes is the last point.

    Returns:
        The page.

    Raises:
        InputError: As `commands.pretrain`, or ``out`` holds runs with other options.
    """
    sizes = {
        f"{config.falcon.dictionary}-{size}": replace(config.falcon, num_codes=size)
        for size in num_codes
    }
    if complete:
        sizes["complete"] = replace(config.falcon, dictionary="complete")
    runs = _train_all(config, sizes, seeds, Path(out))
    dictionaries = {name: _spreads(runs[name]) for name in sizes}
    _write_record(Path(out) / "sweep.json", config, seeds, {"dictionaries": dictionaries})
    return build_sweep([run for runs_ in runs.values() for run in runs_], Path(out) / "sweep.html")


def _spreads(runs: Sequence[Path]) -> dict[str, dict[str, float]]:
    """Mean and sample standard deviation of every metric that all runs have; no deviation of a single run."""
    evaluations = [RunFolder(run).read_json(EVALUATION) for run in runs]
    spreads = {}
    for name in evaluations[0]:
        values = [one[name] for one in evaluations if isinstance(one.get(name), float)]
        if len(values) == len(evaluations):
            spreads[name] = {"mean": mean(values)}
            if len(values) > 1:
                spreads[name]["deviation"] = stdev(values)
    return spreads
