"""What benchmarks share: where a record goes, what it says of the machine, and its table."""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from falcon_ssl.core.devices import hardware
from falcon_ssl.records.provenance import environment

RESULTS = Path(__file__).parents[1] / "results"


def arguments(doc: str, name: str) -> argparse.ArgumentParser:
    """A parser with the option ``--out``, by default results/NAME."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument(
        "--out", type=Path, default=RESULTS / name, help="where the record goes, without suffix"
    )
    return parser


def machine(device: str = "cpu") -> dict[str, Any]:
    """Command, versions, commit and hardware."""
    found = environment(hardware(torch.device(device)))
    return {**found, "cores": os.cpu_count(), "date": time.strftime("%Y-%m-%d")}


def command(about: Mapping[str, Any], note: str) -> str:
    """What was typed, except the note."""
    return " ".join(word for word in about["command"] if word not in ("--note", note))


def write_record(out: Path, record: Mapping[str, Any], table: str = "") -> None:
    """Write a record as JSON and, where there is one, its table; print the table."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
    if table:
        out.with_suffix(".md").write_text(table)
        print(table)


def markdown(header: Sequence[object], rows: Iterable[Sequence[object]]) -> list[str]:
    """Lines of a table."""
    lines = ["| " + " | ".join(map(str, cells)) + " |" for cells in (header, *rows)]
    return [lines[0], "|" + "--:|" * len(header), *lines[1:]]


def peak_bytes() -> float:
    """Most memory that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0
