"""Commands of many runs, and of the one against the clock; as those in commands.py."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from falcon_ssl.config.mapping import merged, read_yaml
from falcon_ssl.config.recipes import recipe_path
from falcon_ssl.config.run import RunConfig, from_mapping
from falcon_ssl.records.folder import SPEEDRUN


def sweep(
    config: RunConfig,
    *,
    out: str,
    num_codes: tuple[int, ...] = (64, 256, 1024, 4096),
    seeds: tuple[int, ...] = (0,),
    complete: bool = True,
    processes: int | None = None,
) -> None:
    """Measure quality and geometry against the size of the dictionary; skips finished runs.

    Args:
        config: Options of the run.
        out: Folder of the runs and of sweep.html.
        num_codes: Sizes of the dictionary.
        seeds: Seeds of every size.
        complete: Add the complete dictionary as the last point.
        processes: Runs at a time; null is one per GPU, or one.
    """
    from falcon_ssl.commands import studies

    page = studies.sweep(
        config, out=out, num_codes=num_codes, seeds=seeds, complete=complete, processes=processes
    )
    print(f"report: {page}")


def tune(
    config: RunConfig,
    *,
    out: str,
    betas: tuple[float, ...] = (0.5, 1.0, 2.0),
    temperatures: tuple[float, ...] = (0.2, 0.4, 0.8),
    seeds: tuple[int, ...] = (0,),
    processes: int | None = None,
) -> None:
    """Choose beta and temperature without labels, by training every pair; skips finished runs.

    Args:
        config: Options of the run.
        out: Folder of the runs and of tune.json.
        betas: Weights of the invariance term.
        temperatures: Effective temperatures.
        seeds: Seeds of every pair.
        processes: Runs at a time; null is one per GPU, or one.
    """
    from falcon_ssl.cli import printing
    from falcon_ssl.commands import studies

    tuning = studies.tune(
        config, out=out, betas=betas, temperatures=temperatures, seeds=seeds, processes=processes
    )
    printing.print_tuning(tuning)
    print(f"all numbers: {Path(out) / 'tune.json'}")


def reproduce(
    grid: str,
    *,
    out: str,
    rows: tuple[str, ...] | None = None,
    datasets: tuple[str, ...] | None = None,
    seeds: tuple[int, ...] | None = None,
    data: Mapping[str, str] | None = None,
    epochs: int | None = None,
    device: Literal["auto", "cpu", "cuda", "mps"] | None = None,
    table: str | None = None,
    tuning: bool = False,
    processes: int | None = None,
    minutes: float | None = None,
    dry_run: bool = False,
) -> None:
    """Run a whole table of methods, data sets and seeds beside the paper's numbers; skips finished runs.

    Args:
        grid: medium, small, table1, table2, or a YAML file of the same form.
        out: Folder of the runs, of table.html, and of table.json and table.md where --table names no other.
        rows: Rows of the table; null is all.
        datasets: Data sets; null is all.
        seeds: Seeds; null is the grid's own.
        data: Where images are, cifar10=parquet:PATH ...; null is the grid's own.
        epochs: Epochs of every run, the warm-up in proportion; null is the grid's own.
        device: Device of every run; null is the grid's own.
        table: Folder of table.json and table.md; runs that stand there with the same options are done.
        tuning: Run the tries of every row, from which its options are chosen, in place of the rows.
        processes: Runs at a time; null is one per GPU, or one.
        minutes: Time limit: begins no run that is not expected to end in it; null is none.
        dry_run: Only list the runs, and how long they would train by a few timed steps.
    """
    from falcon_ssl.cli import printing
    from falcon_ssl.commands import studies

    selection = studies.Selection(
        rows=rows, datasets=datasets, seeds=seeds, data=data or {}, epochs=epochs, device=device
    )
    if dry_run:
        plan = studies.plan(
            grid, out=out, table=table, selection=selection, tuning=tuning, processes=processes
        )
        printing.print_plan(*plan)
    else:
        written = studies.reproduce(
            grid,
            out=out,
            table=table,
            selection=selection,
            tuning=tuning,
            processes=processes,
            minutes=minutes,
        )
        print(f"table: {written}")


def speedrun(
    data: str,
    *,
    out: str,
    recipe: str = "cifar10-speedrun",
    seed: int = 0,
    epochs: int | None = None,
    held_out: bool = False,
    overwrite: bool = False,
) -> None:
    """Learn CIFAR without labels against the clock: ten minutes of two cores, linear probe and kNN included.

    Args:
        data: Where CIFAR-10 or CIFAR-100 is: parquet:PATH, hf:cifar10 or hf:cifar100.
        out: Run folder to write, and speedrun.json in it.
        recipe: What is trained: a recipe, or a YAML file.
        seed: Seed of the run.
        epochs: Passes over the images; null is the recipe's own.
        held_out: Train on four fifths of train and evaluate on the rest, to choose options.
        overwrite: Replace the run folder, if there is one.
    """
    from falcon_ssl import commands
    from falcon_ssl.cli import printing

    own = {"data": data, "seed": seed} | ({} if epochs is None else {"epochs": epochs})
    config = from_mapping(merged(read_yaml(recipe_path(recipe)), own))
    record = commands.speedrun(config, out=out, held_out=held_out, overwrite=overwrite)
    printing.print_speedrun(record)
    print(f"record: {Path(out) / SPEEDRUN}")
