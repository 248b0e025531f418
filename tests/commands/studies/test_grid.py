"""Grids: those of the library are whole, and a mistake in one is reported before anything runs."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from falcon_ssl import cli
from falcon_ssl.commands.studies.grid import Selection, make_runs, read_grid
from falcon_ssl.commands.studies.table import setting
from falcon_ssl.config.mapping import read_yaml
from falcon_ssl.config.recipes import grid_names, recipe_path
from falcon_ssl.config.run import from_mapping
from falcon_ssl.core.errors import InputError

GRID: dict[str, Any] = {
    "title": "Two methods",
    "columns": ["top1_linear"],
    "seeds": [0, 1],
    "shared": {
        "epochs": 20,
        "encoder": {"name": "resnet8", "width": 8},
        "views": {"preset": "cifar"},
        "optim": {"lr": 1e-3, "warmup_epochs": 5},
        "falcon": {"embed_dim": 16},
    },
    "datasets": {
        "one": {"num_train": 100, "image_shape": [3, 32, 32], "options": {"data": "folder:one"}},
        "two": {
            "num_train": 100,
            "image_shape": [3, 32, 32],
            "options": {
                "data": "folder:two",
                "encoder": {"width": 16},
                "falcon": {"embed_dim": 32},
            },
        },
    },
    "rows": {
        "falcon": {"label": "FALCON", "options": {"optim": {"lr": 0.5}}},
        "dino": {"label": "DINO", "options": {"method": "dino"}},
    },
}


def written(path: Path, values: Any) -> Path:
    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    return path


def changed(place: str, value: Any) -> dict[str, Any]:
    values = copy.deepcopy(GRID)
    *parents, last = place.split(".")
    inner = values
    for parent in parents:
        inner = inner[parent]
    inner[last] = value
    return values


@pytest.mark.parametrize("name", grid_names())
def test_grids_of_the_library_are_whole(name: str) -> None:
    grid = read_grid(name)
    runs = make_runs(grid)
    assert len({run.name for run in runs}) == len(runs)
    assert len(runs) == len(grid.rows) * len(grid.datasets) * len(grid.seeds)
    assert grid.paper is not None
    for row in grid.rows.values():
        if row.paper is not None:
            assert set(grid.datasets) <= set(grid.paper.rows[row.paper])
    for numbers in grid.paper.rows.values():
        for values in numbers.values():
            assert all(0 < value < 1 for value in values.values())


def test_the_grid_of_the_documentation_is_one(tmp_path: Path) -> None:
    text = (Path(__file__).parents[3] / "docs" / "reproduce.md").read_text(encoding="utf-8")
    path = tmp_path / "own.yaml"
    path.write_text(text.split("```yaml\n")[1].split("```")[0], encoding="utf-8")
    assert len(make_runs(read_grid(path))) == 6


def test_paper_numbers_stand_where_the_paper_has_them() -> None:
    table1, table2 = read_grid("table1").paper, read_grid("table2").paper
    assert table1 is not None
    assert table2 is not None
    assert table1.rows["falcon_c16384"]["cifar100"] == {"top1_linear": 0.41, "nmi_codes": 0.58}
    assert table2.rows["falcon-500000"]["imagenet100"]["top1_linear"] == 0.740
    assert read_grid("small").paper == table1


def test_options_of_row_over_data_set_over_shared(tmp_path: Path) -> None:
    grid = read_grid(written(tmp_path / "g.yaml", GRID))
    configs = {run.name: run.config for run in make_runs(grid)}
    assert list(configs)[:3] == ["one/falcon-seed0", "one/dino-seed0", "one/falcon-seed1"]
    falcon, dino = configs["two/falcon-seed1"], configs["two/dino-seed1"]
    assert (falcon.seed, falcon.optim.lr, falcon.optim.warmup_epochs) == (1, 0.5, 5)
    assert (falcon.encoder.width, falcon.falcon.embed_dim) == (16, 32)
    assert configs["one/falcon-seed0"].falcon.embed_dim == 16
    assert (dino.method, dino.optim.lr, dino.falcon.embed_dim) == ("dino", 1e-3, 512)


def test_a_selection_replaces_options(tmp_path: Path) -> None:
    grid = read_grid(written(tmp_path / "g.yaml", GRID))
    selection = Selection(
        rows=["dino"], datasets=["two"], seeds=[7], data={"two": "folder:x"}, epochs=4, device="cpu"
    )
    (run,) = make_runs(grid, selection)
    config = run.config
    assert (run.name, config.data, config.epochs) == ("two/dino-seed7", "folder:x", 4)
    assert config.optim.warmup_epochs == 1, "a quarter of the run, as before"
    assert config.engine.device == "cpu"


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"title": "x"}, "is not a valid grid: received missing columns, seeds, datasets, rows"),
        (changed("rows.dino.options", {"method": "dino", "falcon": {"beta": 2.0}}), "falcon.beta does not apply"),
        (changed("rows.dino.options", {"method": "dinosaur"}), "dinosaur"),
        (changed("rows.dino.optins", {}), "unknown option: received rows.dino.optins.* did you mean rows.dino.options"),
        (changed("rows.falcon.options.optim", {"learning_rate": 1}), "optim.learning_rate"),
        (changed("rows.falcon.paper", "ours"), "a row that the paper does not have"),
        (changed("shared.vicreg", {"embed_dim": 8}), "shared has options of a method that no row trains"),
        (changed("shared.encoder.name", "auto"), "encoder.name is left open"),
        (changed("shared.optim.warmup_epochs", 50), "the warm-up is longer than the run"),
        (changed("datasets.one.image_shape", [32, 32]), "image_shape has the wrong type: .* a list of 3 integers"),
        (changed("seeds", 3), "seeds has the wrong type"),
        (changed("rows", ["falcon"]), "rows has the wrong type"),
        (changed("columns", ["nosuch_column"]), "unknown column: received nosuch_column, expected one of top1_linear"),
        (changed("columns", ["top1_linaer"]), "did you mean top1_linear"),
        (changed("columns", ["nmi"]), "unknown column: received nmi"),
        (changed("columns", [{"a": 1}]), "columns has the wrong type"),
        (changed("seeds", []), "seeds is empty"),
        (changed("datasets.one.num_train", "many"), "datasets.one.num_train has the wrong type: received 'many'"),
        (changed("paper", "nothing"), "no such grid: received nothing"),
        (
            changed("paper", {"source": "x", "setting": "y", "rows": {"a": {"one": {"top1": 0.5}}}}),
            "unknown number of the paper: received top1",
        ),
    ],
)  # fmt: skip
def test_mistakes_are_reported(values: Any, text: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=text):
        read_grid(written(tmp_path / "g.yaml", values))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["nothing"], "no such grid: received nothing, expected a YAML file or one of medium, small, table1, table2"),
        (["small", "--rows", "simclr"], "unknown row of the grid small: received simclr, expected one of falcon-"),
        (["small", "--datasets", "svhn"], "expected one of cifar10, cifar100"),
        (["small", "--data", "svhn=parquet:x"], "unknown data set of --data"),
        (["small", "--data", "parquet:x"], "data has the wrong type: received parquet:x, expected NAME=VALUE"),
        (["small", "--seeds", "-1"], "seed is out of range"),
        (["small", "--processes", "0", "--rows", "vicreg"], "processes is too small"),
    ],
)  # fmt: skip
def test_the_command_line_names_what_is_known(
    options: list[str], text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["reproduce", *options, "--out", str(tmp_path / "out")]) == 2
    assert text in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_options_that_cannot_be_built_are_reported_before_any_work(tmp_path: Path) -> None:
    from falcon_ssl.commands.studies.reproduce import reproduce

    path = written(tmp_path / "g.yaml", changed("rows.falcon.options.falcon", {"epsilon": 0.9}))
    with pytest.raises(InputError, match="one/falcon cannot be built"):
        reproduce(path, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_every_number_of_a_real_evaluation_that_reports_describe_may_be_a_column(
    tmp_path: Path,
) -> None:
    found = ["top1_linear", "ami_kmeans_u", "chance_nmi_codes", "within_variance_kmeans_z"]
    found += ["codes_used_share", "identity_gap_u", "effective_rank_share_z"]
    grid = read_grid(written(tmp_path / "g.yaml", changed("columns", found)))
    assert list(grid.columns) == found


def test_dino_of_table_2_is_trained_as_its_recipe() -> None:
    """The rows once lacked the rising weight decay and the rate at the end."""
    recipe = from_mapping(read_yaml(Path(recipe_path("unmeasured/imagenet100-dino"))))
    runs = [run for run in make_runs(read_grid("table2")) if run.row.startswith("dino-")]
    assert len(runs) == 10
    assert all(run.config.optim == recipe.optim for run in runs)
    assert all(run.config.views == recipe.views for run in runs)


def test_the_setting_of_a_table_names_what_differs() -> None:
    runs = make_runs(read_grid("table2"), Selection(rows=["dino-100", "falcon-100"]))
    found = setting([run.config for run in runs], [])
    assert found["weight decay"] == ["0.04 rising to 0.4", "0.04"]
    assert found["rate at the end"] == ["1e-06", "0"]
    alike = setting([run.config for run in runs[1:]], [])
    assert alike.keys() == {"encoder", "epochs", "batch size", "precision"}
    measured = setting([run.config for run in runs], [{"precision": "no"}, {"precision": "bf16"}])
    assert measured["precision"] == ["float32", "bf16"]
