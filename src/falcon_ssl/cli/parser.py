"""What the command line understands: every command with its options, recipes by name, complaints in one line."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from jsonargparse import ActionConfigFile  # type: ignore[attr-defined]

from falcon_ssl.cli.help import Formatter, Parser
from falcon_ssl.config.recipes import grid_names, recipe_names, recipe_path
from falcon_ssl.config.run import ReadingConfig, RunConfig
from falcon_ssl.core.version import __version__
from falcon_ssl.records.folder import CONFIG

CONFIGURED = ("pretrain", "sweep", "tune", "views")  # commands that take the options of a run


def build_parser() -> Parser:
    """All commands with all options."""
    parser = Parser(
        prog="falcon-ssl",
        description="Collapse-proof self-supervised pretraining of image encoders (FALCON, arXiv 2410.04959).",
        version=__version__,
        formatter_class=Formatter,
    )
    commands = parser.add_subcommands(required=True, dest="command")

    def add(name: str, text: str) -> Parser:
        command = Parser(description=text, formatter_class=Formatter)
        if name in CONFIGURED:
            _add_run_options(command)
        commands.add_subcommand(name, command, help=text[0].lower() + text[1:].rstrip("."))
        return command

    demo = add(
        "demo", "Pretrain on 1797 real digits, evaluate, diagnose, report: about half a minute."
    )
    demo.add_argument("--out", type=str, default="runs/demo", help="Run folder.")
    _add_overwrite(demo)

    pretrain = add("pretrain", "Pretrain an encoder on images without labels.")
    pretrain.add_argument("--out", type=str, required=True, help="Run folder to write.")
    _add_overwrite(pretrain)
    pretrain.add_argument(
        "--resume", action="store_true", help="Go on with the run in --out, with its options."
    )

    evaluate = add(
        "evaluate",
        "Judge a run: linear probe, kNN, clustering with chance levels, collapse measures.",
    )
    evaluate.add_argument("run", type=str, help="Run folder.")
    _add_other_images(evaluate)

    diagnose = add("diagnose", "Say in plain words whether a network has collapsed, and how.")
    diagnose.add_argument(
        "target",
        type=str,
        help="Run folder; features z (and u, code, label) in .npz or .safetensors; or, with --data, an encoder.",
    )
    diagnose.add_argument(
        "--weights",
        type=str | None,
        default=None,
        help="Of an encoder: a .safetensors file, or pretrained (timm downloads them).",
    )
    diagnose.add_argument(
        "--prototypes",
        type=str | None,
        default=None,
        help="File with an array prototypes [C, F]: codes of SwAV, DINO or another method.",
    )
    diagnose.add_argument(
        "--fail_on_collapse", action="store_true", help="Exit with code 3 if something collapsed."
    )
    _add_other_images(diagnose)

    report = add("report", "Write a self-contained HTML page about a run, or comparing several.")
    report.add_argument("runs", type=str, nargs="+", help="Run folders.")
    report.add_argument(
        "--out",
        type=str,
        default="comparison.html",
        help="Page to write when there are several runs.",
    )

    embed = add("embed", "Write the features of a run's images.")
    embed.add_argument("run", type=str, help="Run folder.")
    embed.add_argument(
        "--out", type=str, required=True, help="File to write: .npz or .safetensors."
    )
    embed.add_argument(
        "--split",
        choices=["auto", "train", "test"],
        default="auto",
        help="Which part; auto is the test part, or all images where there is none.",
    )
    _add_overwrite(embed, "file")
    _add_other_images(embed)

    export = add("export", "Write the encoder's weights as .safetensors, for any other tool.")
    export.add_argument("run", type=str, help="Run folder.")
    export.add_argument("--out", type=str, required=True, help="File to write: .safetensors.")
    _add_overwrite(export, "file")

    views = add("views", "Draw what the network sees: images beside their augmented views.")
    views.add_argument("--out", type=str, required=True, help="Picture to write (.png).")
    views.add_argument("--num_images", type=int, default=8, help="Rows of the sheet.")
    _add_overwrite(views, "file")

    sweep = add(
        "sweep", "Quality and geometry against the size of the dictionary; skips what is done."
    )
    sweep.add_argument(
        "--out", type=str, required=True, help="Folder of the runs and of sweep.html."
    )
    sweep.add_argument(
        "--num_codes", type=str, default="64,256,1024,4096", help="Sizes, with commas."
    )
    sweep.add_argument("--seeds", type=str, default="0", help="Seeds, with commas.")
    sweep.add_argument(
        "--complete", type=bool, default=True, help="Add the complete dictionary as the last point."
    )

    tune = add(
        "tune", "Choose beta and temperature without labels, by trying pairs; skips what is done."
    )
    tune.add_argument("--out", type=str, required=True, help="Folder of the runs and of tune.json.")
    tune.add_argument("--betas", type=str, default="0.5,1,2", help="Weights, with commas.")
    tune.add_argument(
        "--temperatures",
        type=str,
        default="0.2,0.4,0.8",
        help="Effective temperatures, with commas.",
    )
    tune.add_argument("--seeds", type=str, default="0", help="Seeds, with commas.")

    _add_reproduce(
        add(
            "reproduce",
            "Run a whole table of methods, data sets and seeds beside the paper's numbers; skips what is done.",
        )
    )
    return parser


def _add_reproduce(parser: Parser) -> None:
    parser.add_argument(
        "grid", type=str, help=f"{', '.join(grid_names())}, or a YAML file put together alike."
    )
    parser.add_argument(
        "--out", type=str, required=True, help="Folder of the runs and of table.md, .json, .html."
    )
    parser.add_argument(
        "--data",
        type=str,
        nargs="+",
        default=None,
        help="Where images are: cifar10=parquet:PATH ...; null is the grid's own.",
    )
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=None, help="Seeds; null is the grid's own."
    )
    parser.add_argument("--rows", type=str, nargs="+", default=None, help="Rows; null is all.")
    parser.add_argument(
        "--datasets", type=str, nargs="+", default=None, help="Data sets; null is all."
    )
    parser.add_argument(
        "--epochs",
        type=int | None,
        default=None,
        help="Epochs of every run, the warm-up in proportion; null is the grid's own.",
    )
    parser.add_argument(
        "--processes",
        type=int | None,
        default=None,
        help="Runs at a time; null is one for every GPU, or one.",
    )
    parser.add_argument(
        "--device",
        choices=["auto", "cpu", "cuda"],
        default=None,
        help="Device of every run; null is the grid's own.",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="Only list the runs, and how long they would take by a few timed steps.",
    )


def with_config(arguments: list[str]) -> list[str]:
    """Let --config name a recipe, and let --resume start from the options of the run.

    Both come before all other options: the parser lets what comes later win, and a recipe never wins over an option
    that was typed, wherever it stands.

    Raises:
        InputError: No such file or recipe.
    """
    if not arguments or arguments[0] not in CONFIGURED:
        return list(arguments)
    configs: list[str] = []
    others: list[str] = []
    words = iter(arguments[1:])
    for word in words:
        if word == "--config" and (name := next(words, None)) is not None:
            configs += [word, str(recipe_path(name))]
        elif word.startswith("--config="):
            configs.append(f"--config={recipe_path(word.removeprefix('--config='))}")
        else:
            others.append(word)
    done = [arguments[0], *configs, *others]
    if done[0] == "pretrain" and "--resume" in done:
        given = [b for a, b in pairwise(done) if a == "--out"]
        given += [a.removeprefix("--out=") for a in done if a.startswith("--out=")]
        for out in given:
            if (Path(out) / CONFIG).is_file():
                done[1:1] = ["--config", str(Path(out) / CONFIG)]
    return done


def _add_run_options(parser: Parser) -> None:
    parser.add_argument(
        "--config",
        action=ActionConfigFile,
        help=f"YAML file, or a recipe: {', '.join(recipe_names())}.",
    )
    parser.add_class_arguments(RunConfig, as_group=False)


def _add_overwrite(parser: Parser, what: str = "run folder") -> None:
    parser.add_argument(
        "--overwrite", action="store_true", help=f"Replace the {what}, if there is one."
    )


def _add_other_images(parser: Parser) -> None:
    parser.add_argument(
        "--data",
        type=str | None,
        default=None,
        help="Other images than the run's own: folder:PATH, ...",
    )
    parser.add_class_arguments(
        ReadingConfig, "reading", help="How the images are read, the run's own or those of --data"
    )
