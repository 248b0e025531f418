"""Options of a grid from equal numbers of tries on a held-out part of train, and no drift from what was found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from falcon_ssl import cli
from falcon_ssl.commands.studies.grid import Grid, GridRow, Selection, make_runs, read_grid
from falcon_ssl.commands.studies.reproduce import reproduce
from falcon_ssl.commands.studies.table import read_cells
from falcon_ssl.commands.studies.tries import Best, best_tries, tuning_grid, with_tries
from falcon_ssl.config.recipes import grid_names
from falcon_ssl.core.errors import InputError
from support.copied_runs import CopiedRuns

RESULTS = Path(__file__).parents[3] / "results"
TRIES: list[dict[str, Any]] = [
    {"optim": {"lr": 1e-3}},
    {"optim": {"lr": 2e-3}},
    {"optim": {"lr": 4e-3}},
    {"optim": {"lr": 2e-3}, "vicreg": {"invariance_weight": 10.0}},
]
GRID: dict[str, Any] = {
    "title": "Tuned",
    "columns": ["top1_knn"],
    "seeds": [0, 1, 2],
    "shared": {
        "data": "digits",
        "epochs": 8,
        "encoder": {"name": "digits_cnn"},
        "views": {"preset": "digits"},
    },
    "tuning": {"datasets": ["digits"], "seeds": [5], "options": {"epochs": 1, "reading": {"holdout": 0.2}}},
    "datasets": {"digits": {"num_train": 1437, "image_shape": [1, 8, 8]}},
    "rows": {
        "vicreg": {
            "label": "VICReg",
            "options": {"method": "vicreg", "vicreg": {"hidden_dim": 16, "embed_dim": 16}, "optim": {"lr": 2e-3}},
            "tries": TRIES,
        },
    },
}  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "tuned.yaml"
    path.write_text(yaml.safe_dump(GRID, sort_keys=False), encoding="utf-8")
    return path


def test_tries_are_rows_of_a_grid_of_their_own(path: Path) -> None:
    grid = read_grid(path)
    tuned = tuning_grid(grid)
    runs = {run.name: run.config for run in make_runs(tuned)}
    assert list(runs) == [
        "digits/vicreg/lr0.001-seed5",
        "digits/vicreg/lr0.002-seed5",
        "digits/vicreg/lr0.004-seed5",
        "digits/vicreg/lr0.002-invariance_weight10.0-seed5",
    ]
    last = runs["digits/vicreg/lr0.002-invariance_weight10.0-seed5"]
    assert (last.epochs, last.reading.holdout, last.optim.lr) == (1, 0.2, 2e-3)
    assert (last.vicreg.invariance_weight, last.vicreg.embed_dim) == (10.0, 16)
    selected = with_tries(Selection(rows=["vicreg"]), tuned)
    assert len(make_runs(tuned, selected)) == 4
    with pytest.raises(InputError, match=r"unknown row .* received swav"):
        make_runs(tuned, with_tries(Selection(rows=["swav"]), tuned))
    with pytest.raises(InputError, match="nothing to tune"):
        tuning_grid(tuned)


def cells(**values: float) -> list[dict[str, Any]]:
    """Finished tries by their learning rate in thousandths, and one of another grid."""
    rates = {f"vicreg/lr0.00{name[2:]}": value for name, value in values.items()}
    rates["vicreg/lr9"] = 1.0
    return [{"row": row, "metrics": {"top1_knn": value}} for row, value in rates.items()]


def test_the_best_try_and_what_is_to_be_done_about_it(path: Path) -> None:
    grid = read_grid(path)
    (best,) = best_tries(grid, cells(lr1=0.3, lr2=0.5, lr4=0.4))
    assert (best.name, best.value, best.tries) == ("lr0.002", 0.5, 3)
    assert best.is_chosen
    assert not best.at_edge
    (best,) = best_tries(grid, cells(lr1=0.3, lr2=0.5, lr4=0.6))
    assert best.name == "lr0.004"
    assert not best.is_chosen
    assert best.at_edge
    assert best_tries(grid, []) == []


def test_a_row_keeps_its_options_unless_a_try_is_better_by_more_than_the_margin(path: Path) -> None:
    path.write_text(yaml.safe_dump(GRID | {"tuning": GRID["tuning"] | {"margin": 0.05}}))
    grid = read_grid(path)
    (best,) = best_tries(grid, cells(lr1=0.5, lr2=0.5, lr4=0.54))
    assert (best.name, best.value, best.is_chosen) == ("lr0.002", 0.5, True)
    assert not best.at_edge
    (best,) = best_tries(grid, cells(lr1=0.5, lr2=0.5, lr4=0.56))
    assert (best.name, best.value, best.is_chosen) == ("lr0.004", 0.56, False)
    assert best.at_edge
    (best,) = best_tries(grid, cells(lr1=0.5, lr4=0.54))
    assert best.name == "lr0.004", "its own options are not tried yet"


def test_the_rate_that_the_tries_differ_in_has_an_edge(path: Path) -> None:
    grid = read_grid(path)
    tried = tuple({"optim": {"lr_rest": rate}} for rate in (5e-4, 2e-3, 8e-3))
    options = {"optim": {"name": "muon", "lr": 2e-2, "lr_rest": 2e-3}}
    grid = replace(grid, rows={"vicreg": GridRow("VICReg", options=options, tries=tried)})

    def best(*values: float) -> Best:
        names = ("lr_rest0.0005", "lr_rest0.002", "lr_rest0.008")
        found = [
            {"row": f"vicreg/{name}", "metrics": {"top1_knn": value}}
            for name, value in zip(names, values, strict=True)
        ]
        return best_tries(grid, found)[0]

    assert best(0.5, 0.6, 0.5).is_chosen
    assert not best(0.5, 0.6, 0.5).at_edge, "one rate of Muon for all is no edge"
    assert best(0.5, 0.6, 0.7).at_edge


def test_the_command_runs_the_tries_and_says_what_is_best(
    path: Path, tmp_path: Path, copied_runs: CopiedRuns, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="falcon_ssl")
    copied_runs.numbers = lambda config: {"top1_knn": 0.5 - abs(config.optim.lr - 4e-3)}
    table = tmp_path / "results"
    reproduce(path, out=tmp_path / "out", table=table, tuning=True)
    assert len(copied_runs.trained) == 4
    assert {config.reading.holdout for config in copied_runs.configs.values()} == {0.2}
    assert "vicreg: lr0.004, 0.5000 (4 of 4 tries" in caplog.text
    assert "at the edge of those tried" in caplog.text
    assert "the grid has other options" in caplog.text
    assert len(read_cells(table)) == 4
    assert "lr0.004" in (table / "table.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"tuning": None}, "there are tries and no tuning"),
        ({"tuning": {"datasets": ["cifar"], "seeds": [0]}}, "unknown data set of tuning"),
        ({"tuning": GRID["tuning"] | {"margin": -0.1}}, "margin"),
    ],
)
def test_tries_that_cannot_be_run_are_reported(
    change: dict[str, Any], text: str, path: Path
) -> None:
    path.write_text(yaml.safe_dump(GRID | change), encoding="utf-8")
    with pytest.raises(InputError, match=text):
        read_grid(path)


def test_a_try_of_options_that_the_method_has_not_is_reported(path: Path) -> None:
    rows = {"vicreg": GRID["rows"]["vicreg"] | {"tries": [{"swav": {"temperature": 0.2}}]}}
    path.write_text(yaml.safe_dump(GRID | {"rows": rows}), encoding="utf-8")
    with pytest.raises(InputError, match=r"swav\.temperature does not apply"):
        reproduce(path, out=path.parent / "out", tuning=True)


def test_the_command_line_lists_tries(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["reproduce", str(path), "--out", "x", "--tuning", "--dry-run"]) == 0
    assert "digits/vicreg/lr0.004-seed5" in capsys.readouterr().out


TUNED = [name for name in grid_names() if read_grid(name).tuning is not None]


@pytest.mark.parametrize("name", TUNED)
def test_rows_of_the_library_have_equally_many_tries(name: str) -> None:
    grid = read_grid(name)
    assert len({len(row.tries) for row in grid.rows.values()}) == 1
    for run in make_runs(tuning_grid(grid)):
        assert run.config.reading.holdout > 0, "never chosen on the test part"


def committed(grid: Grid) -> list[Any]:
    cells = read_cells(RESULTS / grid.name / "tuning").values()
    return [
        best for best in best_tries(grid, cells) if best.tries == len(grid.rows[best.row].tries)
    ]


@pytest.mark.parametrize("name", TUNED)
def test_rows_have_the_options_that_the_committed_tries_chose(name: str) -> None:
    """A row and its record cannot drift apart, and no chosen learning rate is at the edge of those tried."""
    grid = read_grid(name)
    for best in committed(grid):
        assert best.is_chosen, f"{best.row}: {best.name} is better"
        assert not best.at_edge, f"{best.row}: {best.name} is at the edge"
