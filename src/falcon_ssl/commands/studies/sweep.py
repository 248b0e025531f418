"""Quality and geometry against the size of the dictionary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from falcon_ssl.commands.studies.settings import run_settings, write_record
from falcon_ssl.config.methods import FalconConfig
from falcon_ssl.config.run import RunConfig
from falcon_ssl.core.consent import trusting_code
from falcon_ssl.core.errors import InputError
from falcon_ssl.core.theory import effective_temperature, logit_scale
from falcon_ssl.engine import RunFolder
from falcon_ssl.records.folder import EVALUATION
from falcon_ssl.report import build_sweep
from falcon_ssl.report.families import spread


def sweep(
    config: RunConfig,
    *,
    out: str | Path,
    num_codes: Sequence[int],
    seeds: Sequence[int] = (0,),
    complete: bool = True,
    processes: int | None = None,
    trust_code: bool = False,
) -> Path:
    """Train and evaluate one run for every dictionary size and seed; draw the paper's figures.

    Args:
        config: What all runs share.
        out: Folder of the runs, of ``sweep.html`` and of its numbers, ``sweep.json``.
        num_codes: Sizes C of the dictionary, Rademacher codes where ``config`` takes all codes.
        seeds: Seeds of the runs.
        complete: Whether the complete dictionary of all 2^F codes is the last point.
        processes: See `run_jobs`; so is what happens to runs that are finished, stopped or failed.
        trust_code: Whether code that files name may be run, see `falcon_ssl.trusting_code`.

    Returns:
        The page.

    Raises:
        InputError: As `commands.pretrain` and `run_jobs`.
        FailedRunsError: Some runs failed.
    """
    finite = config.falcon
    if finite.dictionary == "complete":  # it has one size
        finite = replace(finite, dictionary="rademacher")
    sizes = {f"{finite.dictionary}-{size}": replace(finite, num_codes=size) for size in num_codes}
    if complete:
        sizes["complete"] = _all_codes(finite, least=min([finite.num_codes, *num_codes]))
    if len(sizes) * len(seeds) < 2:
        raise InputError(
            "a sweep compares runs",
            received=f"num_codes={list(num_codes)}, seeds={list(seeds)}",
            expected="two runs or more",
            fix="name more sizes or seeds",
        )
    with trusting_code(trust_code):
        runs = run_settings(config, sizes, seeds, Path(out), processes=processes)
    dictionaries = {name: _spreads(runs[name]) for name in sizes}
    write_record(Path(out) / "sweep.json", config, seeds, {"dictionaries": dictionaries})
    return build_sweep([run for runs_ in runs.values() for run in runs_], Path(out) / "sweep.html")


def _all_codes(finite: FalconConfig, *, least: int) -> FalconConfig:
    """The complete dictionary at the temperature of the others.

    An epsilon is the probability that is left for every other code, and below 1/C: of 2^F codes it would mean another
    temperature, or none. Of ``least`` codes and more it means nearly the same one.
    """
    every = replace(finite, dictionary="complete", num_codes=FalconConfig().num_codes)
    if finite.epsilon is None:
        return every
    temperature = effective_temperature(finite.embed_dim, logit_scale(least, finite.epsilon))
    return replace(every, epsilon=None, temperature=temperature)


def _spreads(runs: Sequence[Path]) -> dict[str, dict[str, float]]:
    """Mean and sample standard deviation of every metric that all runs have; no deviation of a single run."""
    evaluations = [RunFolder(run).read_json(EVALUATION) for run in runs]
    spreads = {}
    for name in evaluations[0]:
        values = [one[name] for one in evaluations if isinstance(one.get(name), float)]
        found = spread(values)
        if found is not None and found.count == len(evaluations):
            spreads[name] = {"mean": found.mean}
            if found.deviation is not None:
                spreads[name]["deviation"] = found.deviation
    return spreads
