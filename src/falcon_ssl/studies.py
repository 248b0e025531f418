"""Several runs that answer one question, resumable run by run."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from falcon_ssl import commands
from falcon_ssl.config import RunConfig
from falcon_ssl.report import build_sweep

logger = logging.getLogger(__name__)


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
        out: Folder of the runs and of ``sweep.html``.
        num_codes: Sizes C of the dictionary.
        seeds: Seeds of the runs.
        complete: Whether the complete dictionary of all 2^F codes is the last point.

    Returns:
        The page.

    Raises:
        InputError: As `commands.pretrain`.
    """
    sizes = {
        f"{config.falcon.dictionary}-{size}": replace(config.falcon, num_codes=size)
        for size in num_codes
    }
    if complete:
        sizes["complete"] = replace(config.falcon, dictionary="complete")
    runs = []
    for name, falcon in sizes.items():
        for seed in seeds:
            run = Path(out) / f"{name}-seed{seed}"
            runs.append(run)
            if (run / "evaluation.json").is_file():
                logger.info("%s: done before", run)
                continue
            logger.info("%s", run)
            commands.pretrain(
                replace(config, falcon=falcon, seed=seed), out=run, resume=_can_resume(run)
            )
            commands.evaluate(run)
    return build_sweep(runs, Path(out) / "sweep.html")


def _can_resume(run: Path) -> bool:
    return (run / "checkpoint" / "state.json").is_file()
