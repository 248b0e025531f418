"""The notebooks run from the first cell to the last, and show what they say."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

EXAMPLES = Path(__file__).parents[2] / "examples"


def executed(name: str, folder: Path, *, replaced: dict[str, str] | None = None) -> Any:
    """A notebook after its cells have run in ``folder``, in a process of its own."""
    notebook: Any = nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=4)  # type: ignore[no-untyped-call]
    for old, new in (replaced or {}).items():
        assert sum(old in cell.source for cell in notebook.cells) == 1, old
        for cell in notebook.cells:
            cell.source = cell.source.replace(old, new)
    client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}})
    return client.execute()


def shown(notebook: Any, kind: str) -> Iterator[str]:
    """What the cells show, of one kind."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if kind == "stdout" and output.get("name") == "stdout":
                yield output.text
            elif kind in output.get("data", {}):
                yield output.data[kind]


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="kernels are started as on Unix"),
]


@pytest.mark.parametrize("name", ["tour", "diagnose_any_encoder"])
def test_what_is_committed_was_run_in_order(name: str) -> None:
    """A reader on the web sees what a run of all cells showed."""
    notebook: Any = nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=4)  # type: ignore[no-untyped-call]
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert not [one for cell in code for one in cell.outputs if one.output_type == "error"]
    assert len(list(shown(notebook, "text/html"))) == 6
    assert "/home" not in str(notebook)


def test_the_tour(tmp_path: Path) -> None:
    quick = {"EPOCHS = 15": "EPOCHS = 4"}
    notebook = executed("tour", tmp_path, replaced=quick)
    tables, pictures = list(shown(notebook, "text/html")), list(shown(notebook, "image/svg+xml"))
    assert len(tables) == 6
    assert len(pictures) == 5
    assert "8.3178" in tables[2], "all alike: log C"
    assert "linear probe, top-1" in tables[3]
    assert ">healthy</b>" in tables[4]
    assert ">collapsed</b>" in tables[5] or ">warning</b>" in tables[5]
    assert 'class="event"' in pictures[3], "the alarm, in the chart of the codes"
    (alarms, page) = shown(notebook, "stdout")
    assert "is beta too large?" in alarms
    assert (tmp_path / page.split()[-1]).is_file()
    assert (tmp_path / "runs/tour/spectrum.svg").is_file()


def test_diagnose_any_encoder(tmp_path: Path) -> None:
    notebook = executed("diagnose_any_encoder", tmp_path)
    tables = list(shown(notebook, "text/html"))
    verdicts = ["healthy", "collapsed", "collapsed", "collapsed", "collapsed", "healthy"]
    assert [table.split("</b>")[0].rpartition(">")[2] for table in tables] == verdicts
    for table, name in zip(
        tables[1:5], ("representation", "dimensional", "intracluster", "cluster"), strict=True
    ):
        assert f"({name})" in table
    (printed,) = shown(notebook, "stdout")
    assert "'dimensional': 'healthy'" in printed
