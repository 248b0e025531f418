"""The run folder: one place for its names, one reader for its records."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from falcon_ssl.config.run import RunConfig
from falcon_ssl.core.errors import InputError
from falcon_ssl.records import folder as names
from falcon_ssl.records import lock
from falcon_ssl.records.folder import CHECKPOINT, METRICS, SKIPPED, RunFolder

PACKAGE = Path(names.__file__).parents[1]


def test_names_of_files_are_written_in_one_place() -> None:
    known = {value for name, value in vars(names).items() if name.isupper() and "_" not in name}
    known -= {names.CHECKPOINT, names.MODEL}  # of an option too, and of a file of transformers
    assert known >= {"config.yaml", "metrics.jsonl", "evaluation.json", "report.html", ".lock"}
    for path in PACKAGE.rglob("*.py"):
        if path.parent.name != "records":
            strings = set(re.findall(r"""["']([\w.]+)["']""", path.read_text(encoding="utf-8")))
            assert not strings & known, path


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.create(RunConfig())
    for step in range(3):
        folder.append_metrics({"step": step, "total": 0.1 + step})
    return folder


def test_a_line_that_a_crash_cut_off_is_left_out_and_dropped(run: RunFolder) -> None:
    lines = run.metrics()
    whole = (run.path / METRICS).read_text()
    (run.path / METRICS).write_text(whole + '{"step": 3, "tot')
    assert run.metrics() == lines
    run.drop_metrics_after(2)
    assert (run.path / METRICS).read_text() == whole
    run.drop_metrics_after(0)
    assert run.metrics() == lines[:1]


def test_a_broken_line_in_the_middle_is_an_error(run: RunFolder) -> None:
    (run.path / METRICS).write_text('{"step": 0}\n{"st\n{"step": 2}\n')
    with pytest.raises(InputError, match="line 2"):
        run.metrics()


def test_an_old_run_is_replaced_but_for_its_unreadable_images(run: RunFolder) -> None:
    (run.path / CHECKPOINT).mkdir()
    (run.path / CHECKPOINT / "state.json").write_text("{}")
    (run.path / SKIPPED).write_text("broken.png\ttruncated\n")
    run.create(RunConfig(seed=1), overwrite=True)
    left = {file.name for file in run.path.iterdir()}
    assert left == {"config.yaml", SKIPPED, lock.LOCK, lock.HOLDER}


def test_where_nothing_can_be_locked_a_warning_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(self: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(lock.FileLock, "acquire", refuse)
    with lock.Lock(tmp_path):
        assert "cannot be locked" in caplog.text


def test_where_no_folder_can_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    RunFolder(tmp_path / "new" / "run").check_free(overwrite=False)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="the run folder cannot be made"):
        RunFolder(tmp_path / "file" / "run").check_free(overwrite=False)
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    with pytest.raises(InputError, match=f"expected {tmp_path} to be a folder that may be"):
        RunFolder(tmp_path / "new" / "run").check_free(overwrite=False)
