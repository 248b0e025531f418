"""Tables on the terminal; imported when there is one to print, as rich takes its time: help is fast."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from falcon_ssl.records.listing import Listed
from falcon_ssl.records.metrics import Kind, describe
from falcon_ssl.report.compared import summary_table, warnings_of
from falcon_ssl.report.comparison import leader
from falcon_ssl.report.families import Family
from falcon_ssl.report.formatting import DASH, format_age, format_duration, format_number
from falcon_ssl.report.summary import Evaluation

WIDEST = 1000  # columns of a table
LISTED: Mapping[str, Kind] = {
    "top1_linear": "percent",
    "top1_knn": "percent",
    "effective_rank_u": "count",
}


def print_evaluation(evaluation: Mapping[str, Any]) -> None:
    """The numbers that matter, beside those of the encoder before training and chance."""
    found = Evaluation(evaluation)
    head, rows = found.table()
    table = Table(title=found.title)
    for column in head:
        table.add_column(column, justify="right" if column else "left")
    for row in rows:
        table.add_row(*row)
    _print_whole(table)
    print("\n".join(found.remarks))


def print_runs(listed: Sequence[Listed], folder: str) -> None:
    """One line a run, the one that changed last first; what could not be read under the table."""
    if not listed:
        print(f"no runs in {folder}")
        return
    color = {"running": "cyan", "finished": "", "stopped": "yellow", "failed": "red"}
    rows = []
    for run in listed:
        epoch = f"{run.line['epoch']:.4g}/{run.epochs}" if "epoch" in run.line else ""
        rows.append(
            [
                escape(str(run.path.relative_to(folder) if run.path != Path(folder) else run.path)),
                f"[{color[run.state]}]{run.state}[/]" if color[run.state] else run.state,
                epoch,
                format_number(run.line.get("total")),
                *(format_number(run.numbers.get(key), kind) for key, kind in LISTED.items()),
                escape(", ".join(filter(None, [run.verdict, *run.alarms]))),
                format_age(time.time() - run.changed),
            ]
        )
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    head = ("run", "state", "epoch", "loss", "linear", "kNN", "rank", "found", "changed")
    shown = [k for k in range(len(head)) if any(row[k] not in ("", DASH) for row in rows)]
    for k in shown:
        side: Literal["left", "right"] = "left" if head[k] in ("run", "state", "found") else "right"
        table.add_column(head[k], justify=side)
    for row in rows:
        table.add_row(*(row[k] for k in shown))
    _print_whole(table)
    for run in listed:
        if run.problem:
            print(f"{run.path}: {run.problem}")


def print_comparison(compared: Sequence[Family]) -> None:
    """The numbers that decide, who leads by how much, and what to keep in mind."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    head, rows = summary_table(compared)
    for k, column in enumerate(head):
        table.add_column(escape(column), justify="right" if k else "left")
    for row in rows:
        table.add_row(*(escape(cell.text) for cell in row))
    _print_whole(table)
    print("\n".join([leader(compared), *warnings_of(compared)]))


def print_baseline(record: dict[str, Any]) -> None:
    """Accuracies, width of the representation and seconds."""
    print(f"{record['about']['note']}; patch k-means, {record['numbers_read']} numbers an image")
    for name in ("top1_linear", "top5_linear", "top1_knn"):
        if name in record:
            print(f"{describe(name).label}: {record[name]:.3f}")
    parts = ", ".join(f"{k} {format_duration(v)}" for k, v in record["seconds"].items())
    print(
        f"{format_duration(sum(record['seconds'].values()))} on {record['about']['device']}: {parts}"
    )


def print_speedrun(record: dict[str, Any]) -> None:
    """Accuracies beside the untrained network's, and where the seconds went."""
    print(f"{record['about']['note']}; {record['split']}, seed {record['seed']}")
    for name in ("top1_linear", "top1_knn"):
        untrained = record["untrained"]
        beside = "" if untrained is None else f"  (untrained {untrained[name]:.4f})"
        print(f"{describe(name).label}: {record[name]:.4f}{beside}")
    print(f"{record['numbers_read']} numbers an image, {record['images']} images trained on")
    parts = ", ".join(f"{k} {format_duration(v)}" for k, v in record["seconds_of"].items())
    print(f"{format_duration(record['seconds'])} on {record['about']['device']}: {parts}")


def print_tuning(tuning: Any) -> None:
    """All settings, the chosen one marked, and what to do with it."""
    labeled = {name: describe(name).label for name in tuning.by_labels}
    table = Table(title="chosen: the largest RankMe without collapse or alarm")
    for column in (
        "",
        *tuning.chosen.options,
        "RankMe",
        "shared bits",
        "verdict",
        *labeled.values(),
    ):
        table.add_column(column, justify="right" if column else "left")
    for one in tuning.candidates:
        bits = "" if one.shared_bits is None else f"{one.shared_bits:.2f}"
        table.add_row(
            "→" if one is tuning.chosen else "",
            *(f"{value:g}" for value in one.options.values()),
            f"{one.rankme:.1f}",
            bits,
            ", ".join([one.verdict, *one.alarms]),
            *(f"{one.by_labels[name]:.4f}" for name in labeled),
        )
    _print_whole(table)
    for name, found in tuning.by_labels.items():
        print(
            f"{labeled[name]}, which the choice did not use: {found['chosen']:.4f}; best of all {found['best']:.4f}"
        )
    options = " ".join(
        f"--falcon.{name} {value:g}" for name, value in tuning.chosen.options.items()
    )
    print(f"use: {options}")


def print_plan(runs: Sequence[Any], estimate: Any) -> None:
    """Every run, its status and how long it would train; then the sum."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("run", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("training left", justify="right", no_wrap=True)
    for (run, now), seconds in zip(runs, estimate.seconds, strict=True):
        state = f"stopped at step {now.step}" if now.state == "stopped" else now.state
        table.add_row(run.name, state, format_duration(seconds) if seconds else "")
    _print_whole(table)
    total, elapsed = format_duration(estimate.total), format_duration(estimate.elapsed)
    print(
        f"training: {total} in all, {elapsed} with {estimate.processes} at a time, by a few steps of random images;"
        " reading and evaluation come on top."
    )


def print_diagnosis(diagnosis: Any, *, beside: str = "random") -> None:
    """Verdicts and the measures behind them; ``beside``: what the network is compared with."""
    color = {"healthy": "green", "warning": "yellow", "collapsed": "red"}
    table = Table(title=diagnosis.sentence, box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("collapse")
    for column in ("value", beside, "ideal"):
        table.add_column(column, justify="right")
    table.add_column("verdict")
    for collapse in diagnosis.collapses:
        assessed = [measure for measure in collapse.measures if measure.verdict != "unknown"]
        whole = "" if assessed else "[dim]not measured"
        table.add_row(f"[bold]{collapse.name}", "", "", "", whole)
        for measure in assessed:
            numbers = (measure.value, measure.random, measure.ideal)
            table.add_row(
                f"  {measure.name}",
                *("" if number is None else f"{number:.3f}" for number in numbers),
                f"[{color[measure.verdict]}]{measure.verdict}",
            )
    _print_whole(table)


def _print_whole(table: Table) -> None:
    """Print a table at the width of the terminal, and wider rather than cut a name, number or verdict."""
    for column in table.columns:
        column.no_wrap = True
    console = Console()
    title, table.title = table.title, None  # it may break between words
    needed = console.measure(table, options=console.options.update(width=WIDEST)).maximum
    table.title = title
    if needed > console.width:
        console = Console(width=needed)
    console.print(table)
