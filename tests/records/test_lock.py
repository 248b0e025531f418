"""Two processes never write to one folder, and a dead one leaves nothing locked."""

from __future__ import annotations

from pathlib import Path

import pytest

from falcon_ssl import cli
from falcon_ssl.config.run import RunConfig
from falcon_ssl.core.errors import InputError
from falcon_ssl.records.folder import RunFolder
from falcon_ssl.records.lock import Lock
from support.locks import HOLD, another_process


def test_a_folder_that_another_process_holds_is_refused_until_it_dies(tmp_path: Path) -> None:
    with another_process(HOLD, tmp_path) as process:
        with pytest.raises(InputError, match=f"which process {process.pid} holds"):
            Lock(tmp_path)
        process.kill()
        process.wait()
        with Lock(tmp_path), Lock(tmp_path):  # free again, and one process does not shut itself out
            pass


def test_a_released_folder_is_free(tmp_path: Path) -> None:
    with another_process(f"{HOLD}; lock.release()", tmp_path):
        Lock(tmp_path).release()


def test_a_run_that_is_being_written_is_neither_replaced_nor_resumed(tmp_path: Path) -> None:
    run = tmp_path / "run"
    code = (
        "import sys; from falcon_ssl.config.run import RunConfig; from falcon_ssl.records.folder import RunFolder;"
        "folder = RunFolder(sys.argv[1]); folder.create(RunConfig())"
    )
    with another_process(code, run):
        before = (run / "config.yaml").read_text()
        with pytest.raises(InputError, match="another process is writing here"):
            RunFolder(run).check_free(overwrite=True)
        with pytest.raises(InputError, match="another process is writing here"):
            RunFolder.open(run).drop_metrics_after(0)
        assert (run / "config.yaml").read_text() == before
    RunFolder(run).create(RunConfig(), overwrite=True)
    assert (run / "config.yaml").is_file()


def test_a_table_that_is_being_made_is_not_made_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with another_process(HOLD, tmp_path):
        options = ["--out", str(tmp_path), "--rows", "vicreg", "--datasets", "cifar10"]
        assert cli.main(["reproduce", "small", *options]) == 2
        assert "another process is writing here" in capsys.readouterr().err
