"""Every command: a function whose signature is its options and whose docstring is its help; calls and prints.

They import what they need when they run: a report is written without torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from falcon_ssl.cli.arguments import OWN_IMAGES, given, images_of, named_sets
from falcon_ssl.cli.downstream import duplicates, embed, export, finetune, search
from falcon_ssl.cli.pages import compare, report, runs, views, watch
from falcon_ssl.cli.studies import reproduce, speedrun, sweep, tune
from falcon_ssl.config.evaluation import EvaluationConfig, Representation
from falcon_ssl.config.mapping import read_yaml
from falcon_ssl.config.recipes import recipe_path
from falcon_ssl.config.run import ReadingConfig, RunConfig, from_mapping
from falcon_ssl.core.errors import CollapseError
from falcon_ssl.core.machine import is_main_process
from falcon_ssl.records.folder import BASELINE, DIAGNOSIS, INITIAL

DEMO_RECIPE = "digits"


def demo(*, out: str = "runs/demo", overwrite: bool = False) -> None:
    """Pretrain on 1797 real digits, evaluate, diagnose, report: about half a minute.

    Args:
        out: Run folder to write.
        overwrite: Replace the run folder, if there is one.
    """
    from falcon_ssl import commands
    from falcon_ssl.cli import printing
    from falcon_ssl.report import build_report

    config = from_mapping(read_yaml(recipe_path(DEMO_RECIPE)))
    run = commands.pretrain(config, out=out, overwrite=overwrite)
    printing.print_evaluation(commands.evaluate(run))
    print(f"report: {build_report(run)}")


def pretrain(
    config: RunConfig,
    *,
    out: str,
    overwrite: bool = False,
    resume: Literal[False, True, "auto"] = False,
) -> None:
    """Pretrain an encoder on images without labels.

    Args:
        config: Options of the run.
        out: Run folder to write.
        overwrite: Replace the run folder, if there is one.
        resume: Resume the run in --out, with its options; --resume auto begins it where there is nothing to resume.
    """
    from falcon_ssl import commands

    run = commands.pretrain(config, out=out, overwrite=overwrite, resume=resume)
    if is_main_process():
        print(f"run folder: {run}   (next: falcon-ssl evaluate {run})")


def evaluate(
    run: str,
    *,
    few_labels: tuple[float, ...] | None = None,
    representation: Representation | None = None,
    mirror: bool | None = None,
    crops: int | None = None,
    scales: tuple[float, ...] | None = None,
    probe_each_scale: bool | None = None,
    checkpoint: str = "last",
    baseline: str | None = None,
    out: str | None = None,
    data: tuple[str, ...] = (),
    reading: ReadingConfig = OWN_IMAGES,
) -> None:
    """Evaluate a run: linear probe, kNN, clustering with chance levels, collapse measures.

    Args:
        run: Run folder.
        few_labels: Further probes that see few labels, over three draws: 0.01,0.1,5 is 1 %, 10 % and 5 a class.
        representation: What linear probe and kNN read; null is the run's evaluation.representation.
        mirror: Average it over the mirror image too; null is the run's own.
        crops: 9 averages it over a grid of crops; null is the run's own.
        scales: Average it over the image resized by these factors, 1 1.25; null is the run's own.
        probe_each_scale: Let the linear probe learn from an image at each of them; null is the run's own.
        checkpoint: The last, or one that is kept: best, best_knn, epoch_10.
        baseline: A baseline.json of the same images, to stand beside the run in tables and report.
        out: Folder to write to, where the run's may not be written; falcon-ssl report reads it. null is the run's.
        data: Other images than the run's own, one set or several: folder:PATH, NAME=folder:PATH, ...
        reading: How the images are read, the run's own or those of --data.
    """
    from falcon_ssl import commands
    from falcon_ssl.cli import printing

    overrides = given(
        representation=representation,
        mirror=mirror,
        crops=crops,
        scales=scales,
        probe_each_scale=probe_each_scale,
        few_labels=few_labels,
    )
    sets: Sequence[tuple[str | None, str | None]] = named_sets(data) or [(None, None)]
    for name, one in sets:
        evaluation = commands.evaluate(
            run,
            name=name,
            evaluation=overrides,
            checkpoint=checkpoint,
            baseline=baseline,
            out=out,
            **images_of(one, reading),
        )
        if not is_main_process():
            continue
        printing.print_evaluation(evaluation)
        file = commands.evaluation_name(data=one, name=name, checkpoint=checkpoint)
        print(f"all numbers: {Path(out or run) / file}")
    if not data and checkpoint == "last" and is_main_process():
        print(f"next: falcon-ssl report {out or run}")


def baseline(
    data: str,
    *,
    out: str,
    num_centers: int = 400,
    patch_size: int = 6,
    stride: int = 1,
    grid: int = 2,
    knn_components: int | None = None,
    reading: ReadingConfig = OWN_IMAGES,
) -> None:
    """Evaluate features without a gradient on labeled images: whitened patches and k-means (Coates, Ng, 2011).

    Args:
        data: Images: digits, folder:PATH, parquet:DIR or hf:NAME.
        out: Folder of baseline.json.
        num_centers: K; the representation has grid^2 K numbers.
        patch_size: Side of a patch in pixels.
        stride: Pixels between two patches.
        grid: Cells a side that features are averaged over.
        knn_components: Whitened principal components that kNN compares; null compares the features themselves.
        reading: How images are read.
    """
    from falcon_ssl import commands
    from falcon_ssl.cli import printing

    record = commands.baseline(
        data,
        out=out,
        num_centers=num_centers,
        patch_size=patch_size,
        stride=stride,
        grid=grid,
        evaluation=EvaluationConfig(knn_components=knn_components),
        reading=reading,
    )
    printing.print_baseline(record)
    print(f"all numbers: {Path(out) / BASELINE}")


def diagnose(
    target: str,
    *,
    weights: str | None = None,
    prototypes: str | None = None,
    fail_on_collapse: bool = False,
    data: str | None = None,
    reading: ReadingConfig = OWN_IMAGES,
) -> None:
    """Diagnose whether a network has collapsed, and how.

    Args:
        target: Run folder; features z (and u, code, label) in .npz or .safetensors; or, with --data, an encoder.
        weights: Of an encoder: a file, an export, a run, timm:NAME, or pretrained (timm downloads them).
        prototypes: File with an array prototypes [C, F]: codes of SwAV, DINO or another method.
        fail_on_collapse: Exit with code 3 if something collapsed.
        data: Other images than the run's own: folder:PATH, ...
        reading: How the images are read, the run's own or those of --data.
    """
    from falcon_ssl import commands
    from falcon_ssl.cli import printing

    diagnosis = commands.diagnose(
        target, weights=weights, prototypes=prototypes, **images_of(data, reading)
    )
    printing.print_diagnosis(
        diagnosis, beside="initial" if (Path(target) / INITIAL).is_file() else "random"
    )
    if Path(target).is_dir() and data is None and prototypes is None:
        print(f"all measures: {Path(target) / DIAGNOSIS}")
    if fail_on_collapse and diagnosis.verdict == "collapsed":
        raise CollapseError(diagnosis.sentence)


COMMANDS: dict[str, Callable[..., None]] = {
    function.__name__: function
    for function in (
        *(demo, views, pretrain, watch, runs, evaluate, diagnose, report, compare, baseline),
        *(embed, search, duplicates, finetune, export, sweep, tune, reproduce, speedrun),
    )
}
