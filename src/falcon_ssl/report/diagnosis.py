"""The diagnosis section of a page: the four collapses, each with its measures and a verdict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from falcon_ssl.report.document import Cell, Rows, Section, Status, Table
from falcon_ssl.report.formatting import format_number
from falcon_ssl.report.records import Run, as_number


def diagnosis_section(run: Run) -> Section:
    """A table of ``diagnosis.json``; without blocks when the run was not diagnosed."""
    collapses = run.diagnosis.get("collapses") or []
    groups = [_rows(collapse) for collapse in collapses]
    table = Table(
        head=["", "this run", "random encoder", "ideal", "what it is"],
        groups=groups,
        numeric=3,
        note="The thresholds of the verdicts are part of the documentation of the diagnosis.",
    )
    return Section(
        "diagnosis",
        "Diagnosis",
        "Four ways in which a network can cheat its loss by giving up what it should keep, and the"
        " measures that would show it.",
        [table] if groups else [],
    )


def _rows(collapse: Mapping[str, Any]) -> Rows:
    verdict = collapse.get("verdict")
    status: Status = next((s for s in get_args(Status) if s == verdict), "unknown")
    rows = [
        [
            Cell(str(measure.get("name", ""))),
            *(Cell(format_number(as_number(measure.get(k)))) for k in ("value", "random", "ideal")),
            Cell(str(measure.get("meaning", ""))),
        ]
        for measure in collapse.get("measures") or []
    ]
    return Rows(f"{collapse.get('name', 'collapse')}", rows, status)
