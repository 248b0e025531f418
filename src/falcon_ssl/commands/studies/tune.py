"""Beta and temperature chosen without labels, from one run for every pair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from statistics import mean
from typing import NamedTuple

from falcon_ssl.commands.studies.settings import run_settings, write_record
from falcon_ssl.config import FalconConfig, RunConfig
from falcon_ssl.core.consent import trusting_code
from falcon_ssl.core.errors import CollapseError, InputError
from falcon_ssl.engine import RunFolder
from falcon_ssl.evaluation.rules import worst
from falcon_ssl.evaluation.selection import Candidate, choose, score_choice
from falcon_ssl.records.folder import DIAGNOSIS, EVALUATION

BETAS = (0.5, 1.0, 2.0)
TEMPERATURES = (0.2, 0.4, 0.8)
RULE = (
    "largest effective rank of z (RankMe) among settings that neither collapsed nor raised an alarm"
)


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
    processes: int | None = None,
    trust_code: bool = False,
) -> Tuning:
    """Choose beta and the effective temperature F / logit_scale^2 without labels.

    Trains every pair of the two and takes the one of largest RankMe that is not broken, see
    `falcon_ssl.evaluation.selection`. Where there are labels, they only measure how good that choice was.

    Args:
        config: What all runs share.
        out: Folder of the runs and of the record ``tune.json``.
        betas: Weights of the invariance term.
        temperatures: Effective temperatures.
        seeds: Seeds of the runs; measures are averaged over them.
        processes: See `run_jobs`; so is what happens to runs that are finished, stopped or failed.
        trust_code: Whether code that files name may be run, see `falcon_ssl.trusting_code`.

    Returns:
        The choice and all settings.

    Raises:
        InputError: As `sweep`, or ``falcon.epsilon`` is set, which states a temperature.
        FailedRunsError: Some runs failed.
        CollapseError: Every setting has collapsed or raised an alarm.
    """
    if config.falcon.epsilon is not None:
        raise InputError(
            "tune chooses the temperature, which epsilon states too",
            received=f"falcon.epsilon={config.falcon.epsilon}",
            expected="no epsilon",
            fix="add --falcon.epsilon null",
        )
    grid = {
        f"beta{beta:g}-temperature{temperature:g}": replace(
            config.falcon, beta=beta, temperature=temperature
        )
        for beta, temperature in product(betas, temperatures)
    }
    with trusting_code(trust_code):
        runs = run_settings(config, grid, seeds, Path(out), processes=processes)
    candidates = [_candidate(grid[name], runs[name]) for name in grid]
    chosen = choose(candidates)
    if chosen is None:
        raise CollapseError(f"every one of {len(candidates)} settings; see falcon-ssl diagnose")
    by_labels = score_choice(candidates, chosen)
    found = {
        "rule": RULE,
        "chosen": dict(chosen.options),
        "by_labels": by_labels,
        "candidates": [asdict(candidate) for candidate in candidates],
    }
    write_record(Path(out) / "tune.json", config, seeds, found)
    return Tuning(chosen, candidates, by_labels)


def _candidate(falcon: FalconConfig, runs: Sequence[Path]) -> Candidate:
    """Measures of one setting, averaged over its runs."""
    assert falcon.temperature is not None
    evaluations = [RunFolder(run).read_json(EVALUATION) for run in runs]
    diagnoses = [RunFolder(run).read_json(DIAGNOSIS) for run in runs]
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
