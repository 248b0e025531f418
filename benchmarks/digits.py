"""Which dictionary is best on the digits, and does a running marginal help? Three seeds each.

make bench-digits
"""

from __future__ import annotations

import statistics
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from falcon_ssl import commands
from falcon_ssl.config import FalconConfig, RunConfig, from_mapping
from falcon_ssl.config.mapping import read_yaml
from falcon_ssl.config.recipes import recipe_path
from record import arguments, machine, markdown, write_record

METRICS = ("top1_linear", "top1_knn", "ami_kmeans_z", "ami_kmeans_u", "effective_rank_z")
SEEDS = (0, 1, 2)


def variants() -> dict[str, tuple[FalconConfig, int | None]]:
    """Name -> (options of the method, batch size or None for the recipe's)."""
    falcon = from_mapping(read_yaml(recipe_path("paper"))).falcon
    found: dict[str, tuple[FalconConfig, int | None]] = {}
    for size in (64, 1024, 4096, 16384):
        found[f"rademacher, C = {size}"] = (replace(falcon, num_codes=size), None)
    for size in (1024, 4096):
        found[f"hadamard, C = {size}"] = (
            replace(falcon, dictionary="hadamard", num_codes=size),
            None,
        )
    for temperature in (0.38, 0.69):
        found[f"complete, 2^128, temperature {temperature}"] = (
            replace(falcon, dictionary="complete", epsilon=None, temperature=temperature),
            None,
        )
    for matching in ("reverse", "forward"):
        for momentum in (0.0, 0.9):
            found[f"rademacher, C = 4096, batch 64, {matching}, marginal momentum {momentum}"] = (
                replace(falcon, prior_matching=matching, marginal_momentum=momentum),
                64,
            )
    return found


def main() -> None:
    """Run every variant, print and write the table."""
    options = arguments(__doc__, "digits/dictionaries").parse_args()
    recipe: RunConfig = from_mapping(read_yaml(recipe_path("digits")))
    rows = []
    for name, (falcon, batch_size) in variants().items():
        results = []
        for seed in SEEDS:
            config = replace(
                recipe,
                falcon=falcon,
                seed=seed,
                batch_size=batch_size or recipe.batch_size,
                monitor=replace(recipe.monitor, every_epochs=0),
            )
            with tempfile.TemporaryDirectory() as folder:
                run = commands.pretrain(config, out=Path(folder) / "run")
                evaluation = commands.evaluate(run)
            results.append({metric: evaluation[metric] for metric in METRICS})
        rows.append({"variant": name, "seeds": list(SEEDS), "results": results})
        print(*cells(rows[-1]), sep=" | ", flush=True)
    record = {"rows": rows, "threads": torch.get_num_threads(), "environment": machine()}
    table = [
        "scikit-learn digits, 30 epochs, recipe `digits`; mean ± standard deviation over seeds 0, 1, 2.",
        f"Command: `make bench-digits`; torch {torch.__version__}.",
        "",
        *markdown(["variant", *METRICS], map(cells, rows)),
    ]
    write_record(options.out, record, "\n".join(table) + "\n")


def cells(row: dict[str, Any]) -> list[str]:
    """One row of the table: mean and standard deviation."""
    found = [row["variant"]]
    for metric in METRICS:
        values = [result[metric] for result in row["results"]]
        digits = 1 if "rank" in metric else 3
        mean, deviation = statistics.mean(values), statistics.stdev(values)
        found.append(f"{mean:.{digits}f} ± {deviation:.{digits}f}")
    return found


if __name__ == "__main__":
    main()
