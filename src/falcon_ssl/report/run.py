"""The report of one run: one self-contained HTML page from its records."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from falcon_ssl.records.best import best_sentence
from falcon_ssl.records.folder import ARRAYS, EVALUATION, METRICS, REPORT
from falcon_ssl.records.run import Run, read_run
from falcon_ssl.records.steps import few_steps_sentence
from falcon_ssl.report.curves import training_figures
from falcon_ssl.report.diagnosis import diagnosis_section
from falcon_ssl.report.document import Block, Note, Page, Section, write_page
from falcon_ssl.report.gallery import neighbors_figure
from falcon_ssl.report.optimum import theory_section
from falcon_ssl.report.plots import (
    adjacency_figure,
    code_usage_figure,
    contrast_figure,
    covariance_figure,
    map_figure,
    spectrum_figure,
)
from falcon_ssl.report.tables import headline_cards, how_it_was_made, metric_table, others_table
from falcon_ssl.report.verdict import assess


def build_report(run_dir: Path, out: Path | None = None) -> Path:
    """Write ``report.html`` into a run folder, or a page elsewhere.

    The page is a pure function of the records: the same folder gives the same bytes. It needs no
    network, and follows the light or dark mode of the browser.

    Args:
        run_dir: A folder written by ``falcon-ssl pretrain``; evaluated or not.
        out: The page; None is in the run folder.

    Returns:
        Path of the page. An older page is replaced.

    Raises:
        InputError: When a required record is missing or a present one cannot be read.
    """
    run = read_run(run_dir)
    return write_page(run_page(run), Path(run_dir) / REPORT if out is None else Path(out))


def run_page(run: Run) -> Page:
    """The page of one run: verdict, headline numbers, then everything behind them."""
    verdict = assess(run)
    data = run.about("data") or run.setting("data")
    method = str(run.setting("method") or "falcon").upper()
    return Page(
        title=run.name,
        eyebrow=" · ".join(filter(None, [f"{method} run report", data and str(data)])),
        status=verdict.status,
        verdict=verdict.text,
        cards=headline_cards(run),
        sections=[
            Section(
                "neighbors",
                "Neighbors",
                "What the network takes to be alike; it needs no labels to be judged by.",
                [neighbors_figure(run)],
            ),
            Section(
                "map",
                "Map",
                "Images that the encoder represents alike lie together. It was trained without the classes.",
                [map_figure(run)],
            ),
            Section(
                "geometry",
                "Geometry",
                "Whether the network uses the space it has: features that do not repeat each other,"
                " clusters of equal size, many directions, many codes.",
                [
                    covariance_figure(run),
                    adjacency_figure(run),
                    contrast_figure(run),
                    code_usage_figure(run),
                    spectrum_figure(run, "z"),
                    spectrum_figure(run, "u"),
                ],
            ),
            diagnosis_section(run),
            theory_section(run),
            Section(
                "training", "Training", "Everything that was logged on the way.", _training(run)
            ),
            Section(
                "numbers",
                "All numbers",
                "Measured on the test split by frozen networks. The second column is the same"
                f" network before training, {run.started_from}: what it reaches is not the method's merit.",
                _numbers(run),
            ),
            Section(
                "made",
                "How it was made",
                "Enough to assess the run, and to repeat it.",
                how_it_was_made(run),
            ),
        ],
    )


def _training(run: Run) -> list[Block]:
    notes: list[Block] = [
        Note(f"Alarm at epoch {alarm.epoch:.4g}, step {alarm.step}: {alarm.text}", "warning")
        for alarm in run.alarms
    ]
    if run.unfinished:
        notes.append(Note(f"{run.unfinished[:1].upper()}{run.unfinished[1:]}.", "warning"))
    if few := few_steps_sentence(run):
        notes.append(Note(f"{few}.", "warning"))
    if run.cut_off:
        notes.append(Note(f"The last line of {METRICS} was cut off; it is left out here."))
    if best := best_sentence(run.monitors):
        notes.append(Note(f"{best[:1].upper()}{best[1:]}."))
    figures: Sequence[Block] = training_figures(run)
    return [*notes, *(figures or [Note("No training step was logged.")])]


def _numbers(run: Run) -> list[Block | None]:
    blocks: list[Block | None] = []
    if not run.evaluation:
        blocks.append(Note(f"There is no {EVALUATION}: run `falcon-ssl evaluate` on this folder."))
    elif not any(key.startswith("top1") for key in run.evaluation):
        blocks.append(Note("No labels were recorded, so there are no accuracies and no agreement."))
    if run.evaluation and "random_encoder" not in run.evaluation:
        blocks.append(
            Note(f"{run.started_from.capitalize()}: not evaluated, so the column is empty.")
        )
    if not run.arrays:
        blocks.append(Note(f"There is no {ARRAYS}, so the page has no map and no heat maps."))
    return [*blocks, metric_table(run), others_table(run)]
