"""What was compared: results, verdicts and time, options that differ, and what makes it unfair."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from falcon_ssl.config import METHODS
from falcon_ssl.config.mapping import as_yaml
from falcon_ssl.records.metrics import describe
from falcon_ssl.records.run import Run, as_number
from falcon_ssl.report.diagnosis import as_status
from falcon_ssl.report.document import Cell, Rows, Table
from falcon_ssl.report.families import Family, Spread, differing, options, spread
from falcon_ssl.report.formatting import DASH, format_duration, format_number

SUMMARY = ("top1_linear", "top1_knn", "ami_kmeans_z", "effective_rank_u")
VERDICTS = ("collapsed", "warning", "unknown", "healthy")  # the worst first


def family_spread(family: Family, key: str) -> Spread | None:
    """Mean and spread of one number over the seeds of a family."""
    return spread([run.metric(key) for run in family.runs])


def summary_table(compared: Sequence[Family]) -> tuple[list[str], list[list[Cell]]]:
    """Names of the columns, and a row for each configuration: the numbers that decide, verdict, epochs and time."""
    keys = [key for key in SUMMARY if any(family_spread(family, key) for family in compared)]
    head = [
        "",
        "seeds",
        *(describe(key).label for key in keys),
        "verdict",
        "alarms",
        "epochs",
        "training",
    ]
    rows = []
    for family in compared:
        found = [(family_spread(family, key), describe(key).kind) for key in keys]
        rows.append(
            [
                Cell(family.label),
                Cell(str(len(family.runs))),
                *(Cell(one.text(kind) if one else DASH) for one, kind in found),
                verdict_cell(family),
                Cell(str(sum(len(run.alarms) for run in family.runs))),
                Cell(_epochs(family)),
                Cell(_mean_time(family)),
            ]
        )
    return head, rows


def verdict_cell(family: Family) -> Cell:
    """The verdicts of a family's seeds, in the color of the worst."""
    given = [as_status(run.diagnosis.get("verdict")) for run in family.runs]
    words = [
        f"{given.count(one)} {_word(one)}" if len(set(given)) > 1 else _word(one)
        for one in VERDICTS
        if one in given
    ]
    return Cell(", ".join(words), status=min(given, key=VERDICTS.index))


def _word(verdict: str) -> str:
    return "not diagnosed" if verdict == "unknown" else verdict


def members_table(compared: Sequence[Family]) -> Table:
    """Which runs, with which seeds, on what and for how long."""
    rows = [
        [
            family.label,
            ", ".join(run.name for run in family.runs),
            ", ".join(str(run.setting("seed")) for run in family.runs),
            ", ".join(dict.fromkeys(str(_data(run)) for run in family.runs)),
            _epochs(family),
            _mean_time(family),
            ", ".join(
                dict.fromkeys(str(run.environment.get("device") or DASH) for run in family.runs)
            ),
        ]
        for family in compared
    ]
    return Table(
        head=["", "run folders", "seeds", "data", "epochs", "training", "on"],
        groups=[Rows("", [[Cell(text) for text in row] for row in rows])],
        numeric=0,
        title="What was compared",
        note="Training: mean over the seeds of the time on the clock, which other work on the machine lengthens.",
    )


def options_table(compared: Sequence[Family]) -> Table | None:
    """Every option in which the configurations differ; None where there is none.

    The options of a method are left out where none of the configurations has it.
    """
    firsts = [family.runs[0] for family in compared]
    methods = [str(run.setting("method") or "falcon") for run in firsts]
    rows = []
    for name in differing(firsts):
        group = name.partition(".")[0]
        of_method = group in METHODS
        if of_method and group not in methods:
            continue
        values = [
            DASH if of_method and group != method else _written(options(run).get(name))
            for run, method in zip(firsts, methods, strict=True)
        ]
        rows.append([Cell(name), *map(Cell, values)])
    if not rows:
        return None
    return Table(
        head=["", *(family.label for family in compared)],
        groups=[Rows("", rows)],
        numeric=len(compared),
        title="Options that differ",
        note="All others are equal. A dash: an option of a method that this is not.",
    )


def warnings_of(compared: Sequence[Family]) -> list[str]:
    """What makes the comparison unfair or preliminary, a sentence each."""
    runs = [run for family in compared for run in family.runs]
    evaluated = [run for run in runs if run.evaluation]
    found = []

    def differ(what: str, read: Callable[[Run], object], among: Sequence[Run]) -> bool:
        values = dict.fromkeys(str(read(run)) for run in among)
        if len(values) > 1:
            found.append(f"{what}: {', '.join(values)}.")
        return len(values) > 1

    (
        differ("The data sets differ, so the numbers are not comparable", _data, runs)
        or differ("The test images differ in number", lambda run: run.about("num_test"), evaluated)
        or differ(
            "The training images differ in number", lambda run: run.about("num_train"), evaluated
        )
        or differ("The split differs", lambda run: run.about("note"), evaluated)
    )
    differ(
        "Linear probe and kNN read different things",
        lambda run: _flat(run.about("readout")),
        evaluated,
    )
    differ("The epochs differ", lambda run: run.setting("epochs"), runs)
    differ(
        "Trained on different machines, so their times are not comparable",
        lambda run: run.environment.get("device") or "unknown",
        runs,
    )
    for run in runs:
        if run.unfinished:
            found.append(f"{run.name}: {run.unfinished}.")
        if not run.evaluation:
            found.append(f"{run.name}: not evaluated yet.")
    counts = {len(family.runs) for family in compared}
    if counts == {1}:
        found.append("One seed each: how much another seed changes is not known.")
    elif len(counts) > 1:
        found.append("Not all have the same number of seeds.")
    return found


def chance_of_lead(first: Family, second: Family, key: str) -> str:
    """A remark when a lead may be chance: within the spread over seeds, or within what the test images alone allow.

    The standard error of a fraction p of n images is sqrt(p (1 - p) / n); of a difference of two, the root of the sum
    of the squares. Both networks saw the same images, which makes the true one somewhat smaller.
    """
    one, two = family_spread(first, key), family_spread(second, key)
    if one is None or two is None:
        return ""
    if one.deviation is not None and two.deviation is not None:
        return doubt(one, two)
    lead = abs(one.mean - two.mean)
    images = as_number(first.runs[0].about("num_test"))
    if describe(key).kind != "percent" or not images:
        return ""
    error = math.sqrt(sum(s.mean * (1 - s.mean) / (images * s.count) for s in (one, two)))
    if lead > 2 * error:
        return ""
    return (
        f"; with {format_number(images, 'count')} test images the standard error of the difference is"
        f" {100 * error:.1f} points, so this may be chance"
    )


def doubt(first: Spread, second: Spread) -> str:
    """A remark when two means differ by no more than what seeds alone change."""
    if first.deviation is None or second.deviation is None:
        return ""
    within = abs(first.mean - second.mean) <= math.hypot(first.deviation, second.deviation)
    return "; the difference is within the spread over seeds" if within else ""


def _data(run: Run) -> Any:
    return run.setting("data") or run.about("data") or DASH


def _flat(value: Any) -> str:
    return (
        ", ".join(f"{k} {v}" for k, v in value.items())
        if isinstance(value, Mapping)
        else str(value)
    )


def _epochs(family: Family) -> str:
    return ", ".join(
        dict.fromkeys(format_number(run.number_setting("epochs"), "count") for run in family.runs)
    )


def _mean_time(family: Family) -> str:
    found = spread([as_number(run.environment.get("seconds")) for run in family.runs])
    return format_duration(found.mean) if found else DASH


def _written(value: Any) -> str:
    return format_number(value) if isinstance(value, float) else as_yaml(value)
