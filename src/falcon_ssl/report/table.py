"""The table of a grid: ours beside the paper's, with chance and cost, as Markdown and as a page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from falcon_ssl.records.metrics import Kind, describe
from falcon_ssl.report.comparison import best_mean, spread_cell
from falcon_ssl.report.document import (
    Block,
    Cell,
    Facts,
    Note,
    Page,
    Rows,
    Section,
    Table,
    write_page,
)
from falcon_ssl.report.families import Spread
from falcon_ssl.report.formatting import (
    DASH,
    MINUS,
    NARROW_SPACE,
    format_duration,
    format_number,
)

UNADJUSTED = (
    "NMI of codes, the paper's and ours, is not adjusted for chance and grows with the number of codes: read it beside"
    " the NMI of permuted labels, and AMI, which is adjusted."
)


@dataclass(frozen=True)
class Column:
    """One column of the table.

    Attributes:
        head: Its title.
        key: Name of the number.
        shows: Ours, the paper's, the difference of the two, or a cost.
    """

    head: str
    key: str
    shows: Literal["ours", "paper", "difference", "cost"]


def write_tables(record: Mapping[str, Any], out: Path) -> Path:
    """Write ``table.json`` (the record itself), ``table.md`` and ``table.html``.

    Args:
        record: What `falcon_ssl.commands.studies.table.table_record` returns.
        out: Folder to write to.

    Returns:
        ``table.md``.
    """
    out.mkdir(parents=True, exist_ok=True)
    (out / "table.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    write_page(table_page(record), out / "table.html")
    path = out / "table.md"
    path.write_text(markdown(record), encoding="utf-8")
    return path


def markdown(record: Mapping[str, Any]) -> str:
    """The tables of all data sets as Markdown."""
    parts = [f"# {record['title']}"]
    for dataset in _measured(record):
        columns = table_columns(record, dataset)
        head = ["", *(column.head for column in columns)]
        lines = [_line(head), _line(["---"] + ["---:"] * len(columns))]
        for row in table_rows(record, dataset, columns):
            lines.append(_line([f"**{cell.text}**" if cell.best else cell.text for cell in row]))
        parts += [f"## {dataset}", "\n".join(lines), caption(record, dataset)]
        remarks = findings(record, dataset)
        parts += ["\n".join(f"- {remark}" for remark in remarks)] if remarks else []
    if len(parts) == 1:
        parts.append("No run is finished yet.")
    return "\n\n".join([*parts, _versions(record)]) + "\n"


def table_page(record: Mapping[str, Any]) -> Page:
    """The page of a grid."""
    done = sum(cell["state"] == "done" for cell in record["cells"])
    about = record["about"]
    sections = []
    for dataset in _measured(record):
        columns = table_columns(record, dataset)
        blocks: list[Block] = [
            Table(
                head=["", *(column.head for column in columns)],
                groups=[Rows("", table_rows(record, dataset, columns))],
                numeric=len(columns),
                note=caption(record, dataset),
            )
        ]
        blocks += [Note(remark, "warning") for remark in findings(record, dataset)]
        sections.append(Section(dataset, dataset, "", blocks))
    facts = [(name, str(about[name])) for name in ("falcon_ssl", "torch", "python", "platform")]
    facts.append(("devices", ", ".join(_devices(record)) or DASH))
    facts.append(("command", " ".join(about["command"])))
    sections.append(Section("about", "Versions and hardware", "", [Facts(facts)]))
    return Page(
        title=record["title"],
        eyebrow=f"{done} of {len(record['cells'])} runs done",
        status=None,
        verdict=_leaders(record),
        sections=sections,
    )


def table_columns(record: Mapping[str, Any], dataset: str) -> list[Column]:
    """The columns: each number, followed by the paper's where that has it for some row, and the cost."""
    found = []
    for key in record["columns"]:
        found.append(Column(describe(key).label, key, "ours"))
        if any(_paper(record, row, dataset, key) is not None for row in record["rows"]):
            found += [Column("paper", key, "paper"), Column("difference", key, "difference")]
    return [
        *found,
        Column("training", "seconds", "cost"),
        Column("images/s", "images_per_s", "cost"),
    ]


def table_rows(
    record: Mapping[str, Any], dataset: str, columns: Sequence[Column]
) -> list[list[Cell]]:
    """The rows: all of the grid, the best of each column bold; then the random encoder."""
    data = record["datasets"][dataset]
    best = {
        key: best_mean([s.mean for s in _known(data, key)], describe(key))
        for key in record["columns"]
    }
    rows = []
    for row in record["rows"]:
        numbers = data["rows"][row["name"]]
        cells = [Cell(_label(record, dataset, row))]
        for column in columns:
            own = _spread(numbers, column.key)
            stated = _paper(record, row, dataset, column.key)
            cells.append(_cell(column, own, stated, best.get(column.key)))
        rows.append(cells)
    random = data["random_encoder"]
    shown = [
        _cell(column, _spread(random, column.key) if column.shows == "ours" else None, None, None)
        for column in columns
    ]
    return [*rows, [Cell("random encoder, not trained"), *shown]]


def caption(record: Mapping[str, Any], dataset: str) -> str:
    """What the table of a data set shows, and under which setting."""
    data = record["datasets"][dataset]
    setting = "; ".join(
        f"{name} {' or '.join(str(value) for value in values)}"
        for name, values in data["setting"].items()
    )
    seeds = record["seeds"]
    spread = "mean ± sample standard deviation over seeds" if len(seeds) > 1 else "seed"
    parts = [
        f"Data: {' / '.join(data['notes'])}; evaluated on the test split.",
        f"Setting: {setting}; {spread} {', '.join(map(str, seeds))}.",
        "Bold: the best mean of a column.",
    ]
    paper = record["paper"]
    stated = [column.key for column in table_columns(record, dataset) if column.shows == "paper"]
    if paper is not None and stated:
        parts.append(
            f"Paper: {paper['source']} ({paper['setting']}). Difference: ours minus the paper's, of accuracies in"
            " percentage points."
        )
    if "nmi_codes" in record["columns"]:
        parts.append(UNADJUSTED)
    return " ".join(parts)


def findings(record: Mapping[str, Any], dataset: str) -> list[str]:
    """What has to be said about single cells: failures, collapse, alarms."""
    found = []
    for cell in record["cells"]:
        if cell["dataset"] != dataset:
            continue
        if cell["state"] == "failed":
            found.append(f"{cell['run']} failed: {cell.get('failure', '')}")
        elif cell["state"] == "other options":
            found.append(f"{cell['run']} has other options than this table and is left out")
        elif cell["state"] == "done" and (cell["verdict"] == "collapsed" or cell["alarms"]):
            alarms = f"alarms: {', '.join(cell['alarms'])}" if cell["alarms"] else "no alarm"
            found.append(f"{cell['run']}: diagnosis {cell['verdict']}, {alarms}")
    return found


def _measured(record: Mapping[str, Any]) -> list[str]:
    """Data sets that there is something to say about."""
    known = {cell["dataset"] for cell in record["cells"] if cell["state"] in ("done", "failed")}
    return [dataset for dataset in record["datasets"] if dataset in known]


def _cell(column: Column, own: Spread | None, stated: float | None, best: str | None) -> Cell:
    kind = describe(column.key).kind
    if column.shows == "paper":
        return Cell(format_number(stated, kind))
    if column.shows == "ours":
        return spread_cell(own, kind, best)
    if own is None or (column.shows == "difference" and stated is None):
        return Cell(DASH)
    if stated is not None:
        return Cell(_signed(own.mean - stated, kind))
    seconds = column.key == "seconds"
    return Cell(format_duration(own.mean) if seconds else format_number(own.mean, "count"))


def _signed(difference: float, kind: Kind) -> str:
    r"""A difference with its sign; of percentages, in points.

    Example:
        >>> _signed(0.031, "percent"), _signed(-0.02, "score")
        ('+3.1', '−0.020')
    """
    text = format_number(difference, kind).removesuffix(NARROW_SPACE + "%")
    return text if text.startswith(MINUS) else f"+{text}"


def _label(record: Mapping[str, Any], dataset: str, row: Mapping[str, Any]) -> str:
    """The row's label, and how many of the seeds are done when it is not all of them."""
    own = [c for c in record["cells"] if c["dataset"] == dataset and c["row"] == row["name"]]
    done = sum(cell["state"] == "done" for cell in own)
    label = str(row["label"])
    return label if done in (0, len(own)) else f"{label} ({done} of {len(own)} seeds)"


def _leaders(record: Mapping[str, Any]) -> str:
    """Who is best by the first column, on every data set."""
    key = record["columns"][0]
    said = []
    for dataset, data in record["datasets"].items():
        means = {
            row["label"]: spread
            for row in record["rows"]
            if (spread := _spread(data["rows"][row["name"]], key)) is not None
        }
        if len(means) > 1:
            label = max(means, key=lambda name: means[name].mean)
            said.append(f"on {dataset} {label} with {means[label].text(describe(key).kind)}")
    if not said:
        return "Too few cells are finished to compare any."
    return f"Best by {describe(key).label}: {', '.join(said)}."


def _known(data: Mapping[str, Any], key: str) -> list[Spread]:
    return [s for numbers in data["rows"].values() if (s := _spread(numbers, key)) is not None]


def _spread(numbers: Mapping[str, Any], key: str) -> Spread | None:
    return Spread(**numbers[key]) if key in numbers else None


def _paper(
    record: Mapping[str, Any], row: Mapping[str, Any], dataset: str, key: str
) -> float | None:
    if record["paper"] is None or row["paper"] is None:
        return None
    value: float | None = record["paper"]["rows"][row["paper"]].get(dataset, {}).get(key)
    return value


def _devices(record: Mapping[str, Any]) -> list[str]:
    return sorted({cell["device"] for cell in record["cells"] if "device" in cell})


def _versions(record: Mapping[str, Any]) -> str:
    about = record["about"]
    devices = f"; {', '.join(_devices(record))}" if _devices(record) else ""
    return f"falcon-ssl {about['falcon_ssl']}, torch {about['torch']}{devices}."


def _line(texts: Sequence[str]) -> str:
    return f"| {' | '.join(texts)} |"
