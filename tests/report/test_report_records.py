"""Reading a run folder: tolerant of what may be absent, strict about what is broken."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from falcon_ssl.core.errors import InputError
from falcon_ssl.report import read_run


def append(folder: Path, text: str) -> None:
    with (folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write(text)


def test_a_complete_folder_is_read_completely(make_run: Any, tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path / "demo", num_steps=40, pictured=True))
    assert run.name == "demo"
    assert len(run.curves["total"].y) == 40
    assert run.metric("chance", "top1") == 0.1
    assert run.embed_dim == 128
    assert run.representation_width == 64
    assert not run.cut_off


def test_a_line_cut_off_by_a_crash_is_left_out_and_reported(make_run: Any, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", num_steps=10)
    append(folder, '{"step": 10, "total": 1.')
    run = read_run(folder)
    assert run.cut_off
    assert len(run.curves["total"].y) == 10


def test_a_broken_line_in_the_middle_is_an_error_with_its_number(
    make_run: Any, tmp_path: Path
) -> None:
    folder = make_run(tmp_path / "run", num_steps=10)
    append(folder, '{"step": 10, "total": 1.\n{"step": 11, "total": 1.0}\n')
    with pytest.raises(InputError, match=r"metrics\.jsonl.*line 11"):
        read_run(folder)


def test_a_resumed_run_replaces_the_steps_it_repeats(make_run: Any, tmp_path: Path) -> None:
    folder = make_run(
        tmp_path / "run", num_steps=10, extra_lines=({"step": 5, "epoch": 15.0, "total": 99.0},)
    )
    total = read_run(folder).curves["total"]
    assert len(total.y) == 10
    assert total.y[5] == 99.0
    assert (np.diff(total.x) > 0).all()


def test_monitors_and_alarms_are_lines_of_their_own(make_run: Any, tmp_path: Path) -> None:
    extra = (
        {"step": 3, "epoch": 1.0, "monitor": {"top1_knn": 0.9}},
        {"step": 7, "epoch": 2.0, "monitor": {"top1_knn": 0.95}},
        {"step": 7, "epoch": 2.0, "alarm": {"name": "codes", "text": "12 of 4096 codes used"}},
    )
    run = read_run(make_run(tmp_path / "run", extra_lines=extra))
    assert run.monitors["top1_knn"].y.tolist() == [0.9, 0.95]
    assert [(alarm.epoch, alarm.text) for alarm in run.alarms] == [(2.0, "12 of 4096 codes used")]
    assert "top1_knn" not in run.curves


def test_not_a_number_is_kept_as_such(make_run: Any, tmp_path: Path) -> None:
    line = {"step": 10, "epoch": 31.0, "total": float("nan")}
    run = read_run(make_run(tmp_path / "run", num_steps=10, extra_lines=(line,)))
    assert np.isnan(run.curves["total"].y[-1])


def test_a_setting_nearest_to_the_top_wins(make_run: Any, tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path / "run", seed=3))
    assert run.setting("seed") == 3  # not that of the evaluation
    assert run.setting("no_such_option") is None


@pytest.mark.parametrize("name", ["config.yaml", "metrics.jsonl"])
def test_required_records_must_be_there(make_run: Any, tmp_path: Path, name: str) -> None:
    folder = make_run(tmp_path / "run")
    (folder / name).unlink()
    with pytest.raises(InputError, match=f"cannot read .*{name}: received no such file"):
        read_run(folder)


def test_no_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no run folder"):
        read_run(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.yaml", b"a: [1"),
        ("config.yaml", b"- just\n- a list\n"),
        ("config.yaml", b"\xff\xfe\x00"),
        ("metrics.jsonl", b"[1, 2]\n"),
        ("metrics.jsonl", b'{"epoch": 1}\n'),
        ("evaluation.json", b"{"),
        ("evaluation.json", b"[]"),
        ("environment.json", b"nonsense"),
        ("diagnosis.json", b"{]"),
        ("arrays.npz", b"not an archive"),
    ],
)
def test_broken_records_are_errors_that_name_the_file(
    make_run: Any, tmp_path: Path, name: str, content: bytes
) -> None:
    folder = make_run(tmp_path / "run")
    (folder / name).write_bytes(content)
    with pytest.raises(InputError, match=name):
        read_run(folder)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"covariance_FF": np.zeros(3)}, "covariance_FF"),
        ({"map_xy_M2": np.zeros((3, 2)), "map_label_M": np.zeros(4, int)}, "equal lengths"),
        ({"adjacency_MM": np.array([object()])}, r"arrays\.npz"),
    ],
)
def test_arrays_of_the_wrong_shape_or_kind_are_errors(
    make_run: Any, tmp_path: Path, arrays: dict[str, Any], message: str
) -> None:
    folder = make_run(tmp_path / "run")
    np.savez(folder / "arrays.npz", **arrays)
    with pytest.raises(InputError, match=message):
        read_run(folder)


def test_numbers_that_yaml_reads_as_words_count(make_run: Any, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    (folder / "config.yaml").write_text("falcon:\n  epsilon: 1e-8\n")  # YAML 1.1 reads a string
    assert read_run(folder).number_setting("epsilon") == 1e-8


def test_text_in_a_metrics_line_is_no_curve(make_run: Any, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    append(folder, json.dumps({"step": 5, "epoch": 31, "total": 1.0, "remark": "42"}) + "\n")
    assert "remark" not in read_run(folder).curves


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"codes_used": -1}, "codes_used: -1, expected a number from 0 on"),
        ({"top1_linear": 9.6}, r"top1_linear: 9.6, expected a number in \[0, 1\]"),
        ({"effective_rank_z": "x"}, "effective_rank_z: 'x', expected a number"),
        ({"about": {"num_test": [1]}}, r"about.num_test: \[1\], expected a number from 0 on"),
    ],
)
def test_numbers_of_an_evaluation_are_what_they_can_be(
    entry: dict[str, Any], expected: str, make_run: Any, tmp_path: Path
) -> None:
    folder = make_run(tmp_path / "run")
    path = folder / "evaluation.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entry))
    with pytest.raises(InputError, match=expected):
        read_run(folder)
