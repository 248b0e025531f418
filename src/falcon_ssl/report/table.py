"""The table of a grid: ours beside the paper's, with chance and cost, as Markdown and as a page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from falcon_ssl.records.files import write_text
from falcon_ssl.records.folder import TABLE
from falcon_ssl.records.metrics import Kind, describe
from falcon_ssl.report.comparison import best_mean, spread_cell
from falcon_ssl.report.document import (
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


class Column(NamedTuple):
    """Title of a column, name of its number, and whether it shows ours, the paper's, or a cost."""

    head: str
    key: str
    shows: Literal["ours", "paper", "difference", "cost"]


def write_tables(record: Mapping[str, Any], table: Path, *, page: Path) -> Path:
    """Write ``table.json`` (the record itself) and ``table.md``, each whole or not at all, and a page.

    Args:
        record: What `falcon_ssl.commands.studies.table.table_record` returns.
        table: Folder to write to.
        page: File of the page.

    Returns:
        ``table.md``.
    """
    table.mkdir(parents=True, exist_ok=True)
    write_text(table / TABLE, json.dumps(record, indent=1) + "\n")
    write_page(table_page(record), page)
    path = table / "table.md"
    write_text(path, markdown(record))
    return path


def markdown(record: Mapping[str, Any]) -> str:
    """The tables of all data sets as Markdown."""
    parts = [f"# {record['title']}"]
    for dataset in _measured(record):
        table = dataset_table(record, dataset)
        lines = [table.head, ["---", *["---:"] * table.numeric]]
        for row in table.groups[0].rows:
            lines.append([f"**{cell.text}**" if cell.best else cell.text for cell in row])
        text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        parts += [f"## {dataset}", text, table.note]
        remarks = findings(record, dataset)
        parts += ["\n".join(f"- {remark}" for remark in remarks)] if remarks else []
    if missing := [name for name in record["datasets"] if name not in _measured(record)]:
        parts.append(f"No run is finished yet on {', '.join(missing)}.")
    about, devices = record["about"], "".join(f"; {one}" for one in [_devices(record)] if one)
    parts.append(f"falcon-ssl {about['falcon_ssl']}, torch {about['torch']}{devices}.")
    return "\n\n".join(parts) + "\n"


def table_page(record: Mapping[str, Any]) -> Page:
    """The page of a grid."""
    done = sum(cell["state"] == "done" for cell in record["cells"])
    about = record["about"]
    sections = []
    for dataset in _measured(record):
        notes = [Note(remark, "warning") for remark in findings(record, dataset)]
        sections.append(Section(dataset, dataset, "", [dataset_table(record, dataset), *notes]))
    facts = [(name, str(about[name])) for name in ("falcon_ssl", "torch", "python", "platform")]
    facts.append(("devices", _devices(record) or DASH))
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
    """The columns: each number, followed by the paper's where that has it for some row, and what it took."""
    found = []
    for key in record["columns"]:
        found.append(Column(describe(key).label, key, "ours"))
        if any(_paper(record, row["paper"], dataset, key) is not None for row in record["rows"]):
            found += [Column("paper", key, "paper"), Column("difference", key, "difference")]
    costs = {"numbers_read": "numbers read", "seconds": "training", "images_per_s": "images/s"}
    data = record["datasets"][dataset]
    rows = [*data["rows"].values(), (data.get("baseline") or {}).get("numbers", {})]
    measured = [key for key in costs if any(key in numbers for numbers in rows)]
    return found + [Column(costs[key], key, "cost") for key in measured]


def dataset_table(record: Mapping[str, Any], dataset: str) -> Table:
    """The rows of the grid, the best of each column bold, then what no method has trained."""
    data, columns = record["datasets"][dataset], table_columns(record, dataset)

    def best(key: str) -> str | None:
        means = [numbers[key]["mean"] for numbers in data["rows"].values() if key in numbers]
        return best_mean(means, describe(key))

    def cells(label: str, numbers: Mapping[str, Any], paper: str | None, bold: Any) -> list[Cell]:
        shown = [
            _cell(
                column,
                _spread(numbers, column.key),
                _paper(record, paper, dataset, column.key),
                bold.get(column.key),
            )
            for column in columns
        ]
        return [Cell(label), *shown]

    bold = {key: best(key) for key in record["columns"]}
    rows = [
        cells(_label(record, dataset, row), data["rows"][row["name"]], row["paper"], bold)
        for row in record["rows"]
    ]
    if random := data["random_encoder"]:
        rows.append(cells("random encoder, not trained", random, None, {}))
    if baseline := data.get("baseline"):
        rows.append(cells(baseline["label"], baseline["numbers"], None, {}))
    return Table(
        head=["", *(column.head for column in columns)],
        groups=[Rows("", rows)],
        numeric=len(columns),
        note=caption(record, dataset, columns),
    )


def caption(record: Mapping[str, Any], dataset: str, columns: Sequence[Column]) -> str:
    """What the table of a data set shows, and under which setting."""
    data = record["datasets"][dataset]
    setting = "; ".join(
        f"{name} {' or '.join(str(value) for value in values)}"
        for name, values in data["setting"].items()
    )
    seeds = record["seeds"]
    spread = "mean ± sample standard deviation over seeds" if len(seeds) > 1 else "seed"
    parts = [
        f"Data: {' / '.join(data['notes'])}; evaluated on the test part.",
        f"Setting: {setting}; {spread} {', '.join(map(str, seeds))}.",
        "Bold: the best mean of a column.",
    ]
    if any(column.shows == "paper" for column in columns):
        paper = record["paper"]
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
    return label if done == len(own) else f"{label} ({done} of {len(own)} seeds)"


def _leaders(record: Mapping[str, Any]) -> str:
    """Who is best by the first column, on every data set."""
    key = record["columns"][0]
    leaders = []
    for dataset, data in record["datasets"].items():
        means = {
            row["label"]: spread
            for row in record["rows"]
            if (spread := _spread(data["rows"][row["name"]], key))
        }
        if len(means) > 1:
            label = max(means, key=lambda name: means[name].mean)
            leaders.append(f"on {dataset} {label} with {means[label].text(describe(key).kind)}")
    if not leaders:
        return "Too few cells are finished to compare any."
    return f"Best by {describe(key).label}: {', '.join(leaders)}."


def _spread(numbers: Mapping[str, Any], key: str) -> Spread | None:
    return Spread(**numbers[key]) if key in numbers else None


def _paper(record: Mapping[str, Any], name: str | None, dataset: str, key: str) -> float | None:
    if record["paper"] is None or name is None:
        return None
    value: float | None = record["paper"]["rows"][name].get(dataset, {}).get(key)
    return value


def _devices(record: Mapping[str, Any]) -> str:
    return ", ".join(sorted({cell["device"] for cell in record["cells"] if "device" in cell}))
