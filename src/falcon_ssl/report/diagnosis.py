"""The diagnosis section of a page: the four collapses, each with its measures and a verdict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from falcon_ssl.records.metrics import describe
from falcon_ssl.records.run import Run, as_number
from falcon_ssl.report.document import Block, Cell, Note, Rows, Section, Status, Table
from falcon_ssl.report.formatting import format_number


def diagnosis_section(run: Run) -> Section:
    """A table of ``diagnosis.json``; without blocks when the run was not diagnosed."""
    collapses = run.diagnosis.get("collapses") or []
    blocks: list[Block] = []
    if run.diagnosis.get("sentence"):
        blocks.append(Note(str(run.diagnosis["sentence"]), as_status(run.diagnosis.get("verdict"))))
    if collapses:
        blocks.append(
            Table(
                head=["", "this run", run.started_from, "ideal", "verdict", "what it is"],
                groups=[_rows(collapse) for collapse in collapses],
                numeric=3,
                note="A measure without a verdict is shown for information. The second column is for"
                " comparison; the verdicts do not depend on it.",
            )
        )
    return Section(
        "diagnosis",
        "Diagnosis",
        "Four ways in which a network can cheat its loss by giving up what it should keep, and the"
        " measures that would show it.",
        blocks,
    )


def as_status(verdict: object) -> Status:
    """A recorded verdict as a color; "unknown" for anything else."""
    return next((status for status in get_args(Status) if status == verdict), "unknown")


def _rows(collapse: Mapping[str, Any]) -> Rows:
    rows = []
    for measure in collapse.get("measures") or []:
        metric = describe(str(measure.get("name", "")))
        numbers = [as_number(measure.get(key)) for key in ("value", "random", "ideal")]
        status = as_status(measure.get("verdict"))
        rows.append(
            [
                Cell(metric.label),
                *(Cell(format_number(number, metric.kind)) for number in numbers),
                Cell("" if status == "unknown" else status, status=status),
                Cell(str(measure.get("meaning", ""))),
            ]
        )
    title = f"{str(collapse.get('name', '')).capitalize()} collapse"
    return Rows(title, rows, as_status(collapse.get("verdict")))
