"""Several runs that answer one question, resumable run by run."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

from falcon_ssl import commands
from falcon_ssl.checks import InputError
from falcon_ssl.config import FalconConfig, RunConfig
from falcon_ssl.devices import best_device
from falcon_ssl.engine import RunFolder
from falcon_ssl.engine.records import environment, write_text
from falcon_ssl.errors import CollapseError
from falcon_ssl.evaluation.rules import worst
from falcon_ssl.evaluation.selection import Candidate, choose, judge_choice
from falcon_ssl.report import build_sweep
from falcon_ssl.runs import check_same_run, open_data, resolve

logger = logging.getLogger(__name__)

BETAS = (0.5, 1.0, 2.0)
TEMPERATURES = (0.2, 0.4, 0.8)
RULE = (
    "largest effective rank of z (RankMe) among settings that neither collapsed nor rang an alarm"
)


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


class Tuning(NamedTuple):
    """What `tune` found.

    Args:
        chosen: The setting to use; its options are ``beta`` and ``temperature``.
        candidates: All settings.
        by_labels: How near the choice comes to the best by labels; empty without labels.
    """

    chosen: Candidate
    candidates: list[Candidate]
    by_labels: dict[str, dict[str, float]]


def tune(
    config: RunConfig,
    *,
    out: str | Path,
    betas: Sequence[float] = BETAS,
    temperatures: Sequence[float] = TEMPERATURES,
    seeds: Sequence[int] = (0,),
) -> Tuning:
    """Choose beta and the effective temperature F / logit_scale^2 without labels.

    Trains every pair of the two and takes the one of largest RankMe that is not broken, see
    `falcon_ssl.evaluation.selection`. Where there are labels, they only tell how good that choice was.
    Runs that are finished are skipped, runs that were stopped go on.

    Args:
        config: What all runs share.
        out: Folder of the runs and of the record ``tune.json``.
        betas: Weights of the invariance term.
        temperatures: Effective temperatures.
        seeds: Seeds of the runs; measures are averaged over them.

    Returns:
        The choice and all settings.

    Raises:
        InputError: As `sweep`, or ``falcon.epsilon`` is set, which states a temperature.
        CollapseError: Every setting has collapsed or rung an alarm.
    """
    if config.falcon.epsilon is not None:
        raise InputError(
            "tune chooses the temperature, which epsilon states too",
            received=f"falcon.epsilon={config.falcon.epsilon}",
            expected="no epsilon",
            fix="leave it out",
        )
    grid = {
        f"beta{beta:g}-temperature{temperature:g}": replace(
            config.falcon, beta=beta, temperature=temperature
        )
        for beta, temperature in product(betas, temperatures)
    }
    runs = _train_all(config, grid, seeds, Path(out))
    candidates = [_candidate(grid[name], runs[name]) for name in grid]
    chosen = choose(candidates)
    if chosen is None:
        raise CollapseError(f"every one of {len(candidates)} settings; see falcon-ssl diagnose")
    by_labels = judge_choice(candidates, chosen)
    found = {
        "rule": RULE,
        "chosen": dict(chosen.options),
        "by_labels": by_labels,
        "candidates": [asdict(candidate) for candidate in candidates],
    }
    _write_record(Path(out) / "tune.json", config, seeds, found)
    return Tuning(chosen, candidates, by_labels)


def _train_all(
    config: RunConfig, settings: Mapping[str, FalconConfig], seeds: Sequence[int], out: Path
) -> dict[str, list[Path]]:
    """Train and judge every setting with every seed, unless that is done; the run folders by name of the setting."""
    if config.method != "falcon":
        raise InputError(
            "this study varies options of falcon",
            received=f"method={config.method}",
            expected="method=falcon",
            fix="compare other methods with falcon-ssl report RUN RUN",
        )
    runs: dict[str, list[Path]] = {name: [] for name in settings}
    resolved = resolve(config, open_data(config).train)
    for (name, falcon), seed in product(settings.items(), seeds):
        run = out / f"{name}-seed{seed}"
        runs[name].append(run)
        own = replace(resolved, falcon=falcon, seed=seed)
        if (run / "evaluation.json").is_file():
            check_same_run(RunFolder.open(run), own)
            logger.info("%s: done before", run)
            continue
        logger.info("%s", run)
        try:
            commands.pretrain(own, out=run, resume=_can_resume(run))
        except CollapseError as error:  # a finding of the study, not its end
            logger.warning("%s: collapsed: %s", run, error)
        commands.evaluate(run)
    return runs


def _can_resume(run: Path) -> bool:
    return (run / "checkpoint" / "state.json").is_file()


def _candidate(falcon: FalconConfig, runs: Sequence[Path]) -> Candidate:
    """Measures of one setting, averaged over its runs."""
    assert falcon.temperature is not None
    evaluations = [RunFolder(run).read_json("evaluation.json") for run in runs]
    diagnoses = [RunFolder(run).read_json("diagnosis.json") for run in runs]
    bits = [evaluation["certificate"]["shared_bits"] for evaluation in evaluations]
    return Candidate(
        options={"beta": falcon.beta, "temperature": falcon.temperature},
        rankme=mean(evaluation["effective_rank_z"] for evaluation in evaluations),
        shared_bits=None if None in bits else mean(bits),
        alarms=tuple(sorted({name for run in runs for name in RunFolder(run).alarms()})),
        verdict=worst(diagnosis["verdict"] for diagnosis in diagnoses),
        by_labels={
            name: mean(evaluation[name] for evaluation in evaluations)
            for name in ("top1_linear", "top1_knn")
            if all(name in evaluation for evaluation in evaluations)
        },
    )


def _spreads(runs: Sequence[Path]) -> dict[str, dict[str, float]]:
    """Mean and sample standard deviation of every metric that all runs have; no deviation of a single run."""
    evaluations = [RunFolder(run).read_json("evaluation.json") for run in runs]
    spreads = {}
    for name in evaluations[0]:
        values = [evaluation.get(name) for evaluation in evaluations]
        if all(isinstance(value, float) for value in values):
            spreads[name] = {"mean": mean(values)}
            if len(values) > 1:
                spreads[name]["deviation"] = stdev(values)
    return spreads


def _write_record(
    path: Path, config: RunConfig, seeds: Sequence[int], found: Mapping[str, Any]
) -> None:
    """What a study found, and what it takes to repeat it."""
    about = {"data": config.data, "epochs": config.epochs, "seeds": list(seeds)}
    record = {**found, "about": about | environment(best_device())}
    write_text(path, json.dumps(record, indent=1) + "\n")
