"""The command `falcon-ssl`: parses, calls, prints; no maths.

Exit codes: 0 done, 2 bad usage or input (one line on stderr), 1 a run that failed, 130 interrupted.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import fields
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

from jsonargparse import (  # type: ignore[attr-defined]
    ActionConfigFile,
    ArgumentParser,
    Namespace,
)

from falcon_ssl._version import __version__
from falcon_ssl.config import RunConfig
from falcon_ssl.errors import InputError

DEMO_RECIPE = "digits"


class _Parser(ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        first = next(line.strip() for line in message.splitlines() if line.strip())
        sys.stderr.write(f"falcon-ssl: error: {first} (falcon-ssl --help)\n")
        sys.exit(2)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("falcon_ssl").setLevel(logging.INFO)
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        parser = build_parser()
        chosen = parser.instantiate(parser.parse_args(_with_config(arguments)))
        _COMMANDS[chosen.command](chosen[chosen.command])
    except InputError as error:
        sys.stderr.write(f"falcon-ssl: error: {error}\n")
        return 2
    except ArithmeticError as error:
        sys.stderr.write(f"falcon-ssl: the run failed: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("falcon-ssl: interrupted; go on with the same command and --resume\n")
        return 130
    return 0


def build_parser() -> ArgumentParser:
    """All commands with all options."""
    parser = _Parser(
        prog="falcon-ssl",
        description="Collapse-proof self-supervised pretraining of image encoders (FALCON, arXiv 2410.04959).",
        version=__version__,
    )
    commands = parser.add_subcommands(required=True, dest="command")

    demo = _Parser(
        description="Pretrain on 1797 real handwritten digits, evaluate, diagnose, report."
    )
    demo.add_argument("--out", type=str, default="runs/demo", help="Run folder.")
    _add_overwrite(demo)
    commands.add_subcommand("demo", demo, help="the whole job on real digits, in about a minute")

    pretrain = _Parser(description="Pretrain an encoder on images without labels.")
    pretrain.add_argument(
        "--config",
        action=ActionConfigFile,
        help=f"YAML file, or a recipe: {', '.join(recipe_names())}.",
    )
    pretrain.add_class_arguments(RunConfig, as_group=False)
    pretrain.add_argument("--out", type=str, required=True, help="Run folder to write.")
    _add_overwrite(pretrain)
    pretrain.add_argument(
        "--resume", action="store_true", help="Go on with the run in --out, with its options."
    )
    commands.add_subcommand("pretrain", pretrain, help="train an encoder without labels")

    for name, text in (
        (
            "evaluate",
            "Judge the encoder of a run: linear probe, kNN, clustering, collapse measures.",
        ),
        ("report", "Write a self-contained HTML page about a run."),
    ):
        command = _Parser(description=text)
        command.add_argument("run", type=str, help="Run folder.")
        commands.add_subcommand(name, command, help=text[0].lower() + text[1:-1])
    return parser


def recipe_names() -> list[str]:
    """Names that --config takes besides files."""
    folder = resources.files("falcon_ssl") / "recipes"
    return sorted(f.name[: -len(".yaml")] for f in folder.iterdir() if f.name.endswith(".yaml"))


def recipe_path(name: str) -> str:
    """A file's path as it is, or the path of a recipe of that name.

    Raises:
        InputError: Neither.
    """
    if Path(name).is_file():
        return name
    if name in recipe_names():
        return str(resources.files("falcon_ssl") / "recipes" / f"{name}.yaml")
    raise InputError(
        "no such configuration",
        received=name,
        expected=f"a YAML file or one of {', '.join(recipe_names())}",
        fix="check the path or name",
    )


def _add_overwrite(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--overwrite", action="store_true", help="Delete the run folder first, if there is one."
    )


def _with_config(arguments: list[str]) -> list[str]:
    """Let --config name a recipe, and let --resume start from the options of the run."""
    if arguments[:1] == ["demo"]:
        return arguments
    done = list(arguments)
    for i, argument in enumerate(done):
        if argument == "--config" and i + 1 < len(done):
            done[i + 1] = recipe_path(done[i + 1])
        elif argument.startswith("--config="):
            done[i] = "--config=" + recipe_path(argument.removeprefix("--config="))
    if done[:1] == ["pretrain"] and "--resume" in done:
        out = next((b for a, b in pairwise(done) if a == "--out"), None)
        if out is not None and (Path(out) / "config.yaml").is_file():
            done[1:1] = ["--config", str(Path(out) / "config.yaml")]
    return done


def _run_config(options: Namespace) -> RunConfig:
    return RunConfig(**{field.name: options[field.name] for field in fields(RunConfig)})


def _demo(options: Namespace) -> None:
    from falcon_ssl import commands
    from falcon_ssl.config import from_mapping
    from falcon_ssl.engine.records import read_config

    config = from_mapping(read_config(Path(recipe_path(DEMO_RECIPE))))
    run = commands.pretrain(config, out=options.out, overwrite=options.overwrite)
    _print_evaluation(commands.evaluate(run))
    _say(f"report: {commands.report(run)}")


def _pretrain(options: Namespace) -> None:
    from falcon_ssl import commands

    run = commands.pretrain(
        _run_config(options), out=options.out, overwrite=options.overwrite, resume=options.resume
    )
    _say(f"run folder: {run}   (next: falcon-ssl evaluate {run})")


def _evaluate(options: Namespace) -> None:
    from falcon_ssl import commands

    _print_evaluation(commands.evaluate(options.run))
    _say(
        f"all numbers: {Path(options.run) / 'evaluation.json'}   (next: falcon-ssl report {options.run})"
    )


def _report(options: Namespace) -> None:
    from falcon_ssl.report import build_report

    _say(f"report: {build_report(Path(options.run))}")


_COMMANDS = {"demo": _demo, "pretrain": _pretrain, "evaluate": _evaluate, "report": _report}

_SUMMARY = {
    "top1_linear": "linear probe, top-1",
    "top1_knn": "kNN (k=20), top-1",
    "ami_kmeans_z": "k-means on z, AMI",
    "ami_kmeans_u": "k-means on u, AMI",
    "nmi_codes": "codes, NMI",
    "ami_codes": "codes, AMI",
    "codes_used": "codes used",
    "effective_rank_z": "effective rank of z",
    "effective_rank_u": "effective rank of u",
}


def _print_evaluation(evaluation: dict[str, Any]) -> None:
    """The numbers that matter, beside an untrained encoder and chance."""
    from rich.console import Console
    from rich.table import Table

    about = evaluation["about"]
    table = Table(title=f"{about['data']}, {about['split']} split ({about['num_test']} images)")
    for column in ("", "this run", "random encoder", "chance"):
        table.add_column(column, justify="left" if not column else "right")
    chance = {
        "top1_linear": evaluation["chance"].get("top1"),
        "ami_codes": 0.0,
        "ami_kmeans_z": 0.0,
    }
    chance |= {"top1_knn": chance["top1_linear"], "ami_kmeans_u": 0.0}
    chance |= {"nmi_codes": evaluation.get("chance_nmi_codes")}
    for name, label in _SUMMARY.items():
        if name in evaluation:
            cells = (evaluation[name], evaluation["random_encoder"].get(name), chance.get(name))
            table.add_row(label, *(_number(name, value) for value in cells))
    Console().print(table)


def _number(name: str, value: float | None) -> str:
    if value is None:
        return ""
    return (
        f"{value:.0f}"
        if name == "codes_used"
        else f"{value:.1f}"
        if "rank" in name
        else f"{value:.3f}"
    )


def _say(text: str) -> None:
    print(text)


if __name__ == "__main__":
    sys.exit(main())
