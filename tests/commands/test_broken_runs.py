"""Runs that are unfinished, damaged or cannot be written: named, and what can be done is done."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from falcon_ssl import commands
from falcon_ssl.cli.main import main
from falcon_ssl.config import from_mapping, to_mapping
from falcon_ssl.core.errors import InputError
from falcon_ssl.records.checkpoints import _own_sum
from falcon_ssl.records.files import checksum
from falcon_ssl.report import build_report
from support.short_runs import SHORT


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = from_mapping(to_mapping(SHORT) | {"evaluation": {"untrained": False}})
    return commands.pretrain(config, out=tmp_path_factory.mktemp("runs") / "run", monitors=[])


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "run"))


def change_state(run: Path, **values: object) -> None:
    path = run / "checkpoint" / "state.json"
    state = json.loads(path.read_text()) | values
    state["sha256"]["model.safetensors"] = checksum(run / "checkpoint" / "model.safetensors")
    state["sha256"]["state.json"] = _own_sum(state)
    path.write_text(json.dumps(state))


def test_an_unfinished_run_says_so_everywhere(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    build_report(run)
    assert "unfinished" not in (run / "report.html").read_text()
    change_state(run, step=2, finished=False)
    for use in (
        lambda: commands.evaluate(run),
        lambda: commands.export(run, out=tmp_path / "encoder"),
    ):
        caplog.clear()
        use()
        assert "this run is unfinished: step 2 of 6" in caplog.text
    build_report(run)
    assert "this run is unfinished: step 2 of 6" in (run / "report.html").read_text()


def test_options_of_another_version_are_named(run: Path) -> None:
    config, environment = run / "config.yaml", run / "environment.json"
    config.write_text(config.read_text() + "\nlater_option: 3\n")
    with pytest.raises(InputError, match=r"^unknown option: received later_option"):
        commands.load_run(run)
    record = json.loads(environment.read_text()) | {"falcon_ssl": "9.1"}
    environment.write_text(json.dumps(record))
    with pytest.raises(InputError, match=r"run of falcon-ssl 9.1: .*later_option.*==9.1"):
        commands.load_run(run)


def test_weights_that_are_not_finite_are_not_exported(run: Path, tmp_path: Path) -> None:
    path = run / "checkpoint" / "model.safetensors"
    tensors = load_file(path)
    name = next(name for name, one in tensors.items() if one.is_floating_point())
    tensors[name].view(-1)[0] = torch.nan
    save_file(tensors, path)
    change_state(run)
    with pytest.raises(InputError, match=rf"not finite: received NaN or infinity in {name}"):
        commands.export(run, out=tmp_path / "encoder")
    assert not (tmp_path / "encoder").exists()


@pytest.mark.parametrize("damage", ["missing", "empty", "broken", "wrong"])
def test_without_metrics_there_is_no_certificate_and_all_else(
    damage: str, run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = run / "metrics.jsonl"
    if damage == "missing":
        path.unlink()
    else:
        texts = {"empty": "", "broken": "}{\n\n", "wrong": '{"step": 1, "total": []}\n'}
        path.write_text(texts[damage])
    record = commands.evaluate(run)
    assert record["certificate"] == {}
    assert record["top1_linear"] > 0.3
    assert "no certificate" in caplog.text


def test_a_torn_last_line_is_dropped_with_a_warning(
    run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 7, "tot')
    assert commands.evaluate(run)["certificate"]
    assert "its last line is cut off and left out" in caplog.text


def test_read_only_runs_are_evaluated_elsewhere(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(run.rglob("*"))
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != run and access(path, mode))
    assert main(["evaluate", str(run)]) == 2
    assert "write to another one with --out DIR" in capsys.readouterr().err
    out, page = tmp_path / "numbers", tmp_path / "pages" / "page.html"
    assert main(["evaluate", str(run), "--out", str(out)]) == 0
    assert main(["report", str(out), "--out", str(page)]) == 0
    assert "Linear probe" in page.read_text()
    assert main(["report", str(run), "--out", str(tmp_path / "other.html")]) == 0
    assert sorted(run.rglob("*")) == before


def test_grids_name_no_folders_elsewhere(tmp_path: Path) -> None:
    import yaml

    from falcon_ssl.commands.studies.grid import read_grid

    for name in ("../../escaped", "/tmp/x", "..", ".hidden", "a/b", "x" * 101, "a\nb", "", "a\\b"):
        grid = {
            "title": "t",
            "columns": ["top1_linear"],
            "seeds": [0],
            "datasets": {name: {"num_train": 9, "image_shape": [1, 8, 8]}},
            "rows": {"falcon": {"label": "FALCON"}},
        }
        path = tmp_path / "grid.yaml"
        path.write_text(yaml.safe_dump(grid))
        with pytest.raises(InputError, match="a name of a grid names a folder"):
            read_grid(path)
