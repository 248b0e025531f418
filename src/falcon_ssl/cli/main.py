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

from falcon_ssl.cli.parser import build_parser, with_config
from falcon_ssl.cli.printing import _print_diagnosis, _print_evaluation, _print_plan, _print_tuning
from falcon_ssl.config.recipes import recipe_path
from falcon_ssl.config.run import ReadingConfig, RunConfig
from falcon_ssl.core.errors import CollapseError, FailedRunsError, InputError
from falcon_ssl.records.folder import DIAGNOSIS, EVALUATION

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
    from falcon_ssl.config.mapping import read_yaml
    from falcon_ssl.config.run import from_mapping
    from falcon_ssl.report import build_report

    config = from_mapping(read_yaml(recipe_path(DEMO_RECIPE)))
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
    print(f"all numbers: {Path(options.run) / EVALUATION}")
    print(f"next: falcon-ssl report {options.run}")


def _diagnose(options: Namespace) -> None:
    from falcon_ssl import commands

    other_images = _other_images(options)
    diagnosis = commands.diagnose(
        options.target, weights=options.weights, prototypes=options.prototypes, **other_images
    )
    _print_diagnosis(diagnosis)
    if Path(options.target).is_dir() and options.data is None and options.prototypes is None:
        print(f"all measures: {Path(options.target) / DIAGNOSIS}")
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

    sheet = commands.views(
        _run_config(options),
        out=options.out,
        num_images=options.num_images,
        overwrite=options.overwrite,
    )
    print(f"views: {sheet}")


def _sweep(options: Namespace) -> None:
    from falcon_ssl.commands import studies

    page = studies.sweep(
        _run_config(options),
        out=options.out,
        num_codes=_numbers(int, "num_codes", options.num_codes),
        seeds=_numbers(int, "seeds", options.seeds),
        complete=options.complete,
    )
    print(f"report: {page}")


def _tune(options: Namespace) -> None:
    from falcon_ssl.commands import studies

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
    from falcon_ssl.commands import studies
    from falcon_ssl.commands.studies.grid import Choice

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
        _print_plan(*studies.plan(options.grid, **wanted))
    else:
        print(f"table: {studies.reproduce(options.grid, **wanted)}")


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


if __name__ == "__main__":
    sys.exit(main())
