"""The command `falcon-ssl`: parses, calls, prints; no maths.

Exit codes: 0 done, 1 a run that failed, 2 bad usage or input (one line on stderr), 3 collapsed (an alarm with
--monitor.on_collapse stop, or diagnose --fail_on_collapse), 130 interrupted.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from jsonargparse import Namespace
from safetensors import SafetensorError

from falcon_ssl.cli_parser import build_parser, recipe_path, with_config
from falcon_ssl.config import ReadingConfig, RunConfig
from falcon_ssl.errors import CollapseError, FailedRunsError, InputError

DEMO_RECIPE = "digits"
_Number = TypeVar("_Number", int, float)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("falcon_ssl").setLevel(logging.INFO if _speaks() else logging.WARNING)
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        parser = build_parser()
        chosen = parser.instantiate(parser.parse_args(with_config(arguments)))
        _COMMANDS[chosen.command](chosen[chosen.command])
    except InputError as error:
        sys.stderr.write(f"falcon-ssl: error: {error}\n")
        return 2
    except CollapseError as error:
        sys.stderr.write(f"falcon-ssl: collapsed: {error}\n")
        return 3
    except (OSError, SafetensorError, FailedRunsError) as error:
        sys.stderr.write(f"falcon-ssl: the run failed: {error}\n")
        return 1
    except ArithmeticError as error:
        sys.stderr.write(f"falcon-ssl: the run failed: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write(
            "falcon-ssl: interrupted; pretrain goes on with the same command and --resume,"
            " reproduce, sweep and tune with the same command\n"
        )
        return 130
    return 0


def _speaks() -> bool:
    """Whether this process tells what all of them do: the first of those that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


# The commands import what they need when they run: a report is written without torch.


def _demo(options: Namespace) -> None:
    from falcon_ssl import commands
    from falcon_ssl.config import from_mapping
    from falcon_ssl.engine.records import read_config
    from falcon_ssl.report import build_report

    config = from_mapping(read_config(Path(recipe_path(DEMO_RECIPE))))
    run = commands.pretrain(config, out=options.out, overwrite=options.overwrite)
    _print_evaluation(commands.evaluate(run))
    print(f"report: {build_report(run)}")


def _pretrain(options: Namespace) -> None:
    from falcon_ssl import commands

    run = commands.pretrain(
        _run_config(options), out=options.out, overwrite=options.overwrite, resume=options.resume
    )
    if _speaks():
        print(f"run folder: {run}   (next: falcon-ssl evaluate {run})")


def _evaluate(options: Namespace) -> None:
    from falcon_ssl import commands

    _print_evaluation(commands.evaluate(options.run, **_other_images(options)))
    print(f"all numbers: {Path(options.run) / 'evaluation.json'}")
    print(f"next: falcon-ssl report {options.run}")


def _diagnose(options: Namespace) -> None:
    from falcon_ssl import commands

    other_images = _other_images(options)
    diagnosis = commands.diagnose(
        options.target, weights=options.weights, prototypes=options.prototypes, **other_images
    )
    _print_diagnosis(diagnosis)
    if Path(options.target).is_dir() and options.data is None and options.prototypes is None:
        print(f"all measures: {Path(options.target) / 'diagnosis.json'}")
    if options.fail_on_collapse and diagnosis.verdict == "collapsed":
        raise CollapseError(diagnosis.sentence)


def _report(options: Namespace) -> None:
    from falcon_ssl.report import build_comparison, build_report

    if len(options.runs) == 1:
        page = build_report(Path(options.runs[0]))
    else:
        Path(options.out).parent.mkdir(parents=True, exist_ok=True)
        page = build_comparison([Path(run) for run in options.runs], Path(options.out))
    print(f"report: {page}")


def _embed(options: Namespace) -> None:
    from falcon_ssl import commands

    features = commands.embed(
        options.run,
        out=options.out,
        split=options.split,
        overwrite=options.overwrite,
        **_other_images(options),
    )
    print(f"features of {len(features)} images: {options.out}")


def _export(options: Namespace) -> None:
    from falcon_ssl import commands

    print(f"encoder: {commands.export(options.run, out=options.out, overwrite=options.overwrite)}")


def _views(options: Namespace) -> None:
    from falcon_ssl import commands

    sheet = commands.views_sheet(
        _run_config(options),
        out=options.out,
        num_images=options.num_images,
        overwrite=options.overwrite,
    )
    print(f"views: {sheet}")


def _sweep(options: Namespace) -> None:
    from falcon_ssl import studies

    page = studies.sweep(
        _run_config(options),
        out=options.out,
        num_codes=_numbers(int, "num_codes", options.num_codes),
        seeds=_numbers(int, "seeds", options.seeds),
        complete=options.complete,
    )
    print(f"report: {page}")


def _tune(options: Namespace) -> None:
    from falcon_ssl import studies

    tuning = studies.tune(
        _run_config(options),
        out=options.out,
        betas=_numbers(float, "betas", options.betas),
        temperatures=_numbers(float, "temperatures", options.temperatures),
        seeds=_numbers(int, "seeds", options.seeds),
    )
    _print_tuning(tuning)
    print(f"all numbers: {Path(options.out) / 'tune.json'}")


def _reproduce(options: Namespace) -> None:
    from falcon_ssl import reproduce
    from falcon_ssl.grid import Choice

    choice = Choice(
        rows=options.rows,
        datasets=options.datasets,
        seeds=options.seeds,
        data=_named(options.data),
        epochs=options.epochs,
        device=options.device,
    )
    wanted = {"out": options.out, "choice": choice, "processes": options.processes}
    if options.dry_run:
        _print_plan(*reproduce.plan(options.grid, **wanted))
    else:
        print(f"table: {reproduce.reproduce(options.grid, **wanted)}")


_COMMANDS: dict[str, Callable[[Namespace], None]] = {
    "demo": _demo,
    "pretrain": _pretrain,
    "evaluate": _evaluate,
    "diagnose": _diagnose,
    "report": _report,
    "embed": _embed,
    "export": _export,
    "views": _views,
    "sweep": _sweep,
    "tune": _tune,
    "reproduce": _reproduce,
}


def _other_images(options: Namespace) -> dict[str, Any]:
    """Images to use instead of the run's own, and how to read them."""
    reading = None if options.reading == ReadingConfig() else options.reading
    return {"data": options.data, "reading": reading}


def _run_config(options: Namespace) -> RunConfig:
    return RunConfig(**{field.name: options[field.name] for field in fields(RunConfig)})


def _named(pairs: Sequence[str] | None) -> dict[str, str]:
    """NAME=VALUE words as a mapping."""
    for pair in pairs or ():
        if "=" not in pair:
            raise InputError(
                "--data does not say what it is for",
                received=pair,
                expected="NAME=WHERE, such as cifar10=parquet:PATH",
                fix="name the data set",
            )
    return dict(pair.split("=", 1) for pair in pairs or ())


def _numbers(kind: Callable[[str], _Number], name: str, text: str) -> list[_Number]:
    try:
        return [kind(word) for word in text.split(",")]
    except ValueError as error:
        whole = "whole " if kind is int else ""
        raise InputError(
            f"--{name} is not a list of {whole}numbers",
            received=repr(text),
            expected=f"{whole}numbers with commas between them",
            fix=f"write them as in --{name} 1,2",
        ) from error


_SUMMARY = {
    "top1_linear": "linear probe, top-1",
    "top1_knn": "kNN, top-1",
    "ami_kmeans_z": "k-means on z, AMI",
    "ami_kmeans_u": "k-means on u, AMI",
    "nmi_codes": "codes, NMI",
    "ami_codes": "codes, AMI",
    "codes_used": "codes used",
    "effective_rank_z": "effective rank of z",
    "effective_rank_u": "effective rank of u",
}
_FORMATS = {"codes_used": ".0f", "effective_rank_z": ".1f", "effective_rank_u": ".1f"}


def _print_evaluation(evaluation: dict[str, Any]) -> None:
    """The numbers that matter, beside an untrained encoder and chance."""
    from rich.console import Console
    from rich.table import Table

    about, random = evaluation["about"], evaluation["random_encoder"]
    chance: dict[str, float | None] = dict.fromkeys(
        ("ami_kmeans_z", "ami_kmeans_u", "ami_codes"), 0.0
    )
    chance |= dict.fromkeys(("top1_linear", "top1_knn"), evaluation["chance"].get("top1"))
    chance["nmi_codes"] = evaluation.get("chance_nmi_codes")
    table = Table(title=f"{about['data']}, {about['split']} split ({about['num_test']} images)")
    for column in ("", "this run", "random encoder", "chance"):
        table.add_column(column, justify="right" if column else "left")
    for name, label in _SUMMARY.items():
        if name in evaluation:
            values = (evaluation[name], random.get(name), chance.get(name))
            form = _FORMATS.get(name, ".3f")
            table.add_row(label, *("" if value is None else f"{value:{form}}" for value in values))
    Console().print(table)
    print(f"{about['note']}.")
    if about["num_classes"] is None:
        print("No labels were read: only measures that need none.")
    if evaluation["certificate"]:
        print(evaluation["certificate"]["sentence"])


def _print_tuning(tuning: Any) -> None:
    """All settings, the chosen one marked, and what to do with it."""
    from rich.console import Console
    from rich.table import Table

    labelled = list(tuning.by_labels)
    table = Table(title="chosen: the largest RankMe without collapse or alarm")
    for column in ("", *tuning.chosen.options, "RankMe", "shared bits", "verdict", *labelled):
        table.add_column(column, justify="right" if column else "left")
    for one in tuning.candidates:
        bits = "" if one.shared_bits is None else f"{one.shared_bits:.2f}"
        table.add_row(
            "→" if one is tuning.chosen else "",
            *(f"{value:g}" for value in one.options.values()),
            f"{one.rankme:.1f}",
            bits,
            ", ".join([one.verdict, *one.alarms]),
            *(f"{one.by_labels[name]:.4f}" for name in labelled),
        )
    Console().print(table)
    for name, found in tuning.by_labels.items():
        print(
            f"{name}, which the choice did not see: {found['chosen']:.4f}; best of all {found['best']:.4f}"
        )
    options = " ".join(
        f"--falcon.{name} {value:g}" for name, value in tuning.chosen.options.items()
    )
    print(f"use: {options}")


def _print_plan(cells: Sequence[Any], estimate: Any) -> None:
    """Every cell, where it stands and how long it would train; then the sum."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    from falcon_ssl.report.formatting import format_duration

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("cell", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("training left", justify="right", no_wrap=True)
    for (cell, now), seconds in zip(cells, estimate.seconds, strict=True):
        state = f"stopped at step {now.step}" if now.state == "stopped" else now.state
        table.add_row(cell.name, state, format_duration(seconds) if seconds else "")
    Console().print(table)
    total, elapsed = format_duration(estimate.total), format_duration(estimate.elapsed)
    print(
        f"training: {total} in all, {elapsed} with {estimate.processes} at a time; reading images and judging come on"
        " top. Timed on a few steps on random images."
    )


def _print_diagnosis(diagnosis: Any) -> None:
    """Verdicts and the measures that they rest on."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    colour = {"healthy": "green", "warning": "yellow", "collapsed": "red"}
    table = Table(title=diagnosis.sentence, box=SIMPLE_HEAD, pad_edge=False)
    for column in ("collapse", "measure"):
        table.add_column(column, no_wrap=True)
    for column in ("value", "random", "ideal"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for collapse in diagnosis.collapses:
        judged = [measure for measure in collapse.measures if measure.verdict != "unknown"]
        if not judged:
            table.add_row(collapse.name, "", "", "", "", "[dim]could not be measured")
        for measure in judged:
            numbers = (measure.value, measure.random, measure.ideal)
            table.add_row(
                collapse.name if measure is judged[0] else "",
                measure.name,
                *("" if number is None else f"{number:.3f}" for number in numbers),
                f"[{colour[measure.verdict]}]{measure.verdict}",
            )
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
