"""--overwrite deletes what a run wrote, in a folder that is a run's, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from falcon_ssl.cli.main import main
from falcon_ssl.config.run import RunConfig
from falcon_ssl.core.errors import InputError
from falcon_ssl.records.folder import RunFolder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = RunFolder(tmp_path / "run")
    folder.create(RunConfig())
    folder.append_metrics({"step": 1})
    return folder.path


def refused(path: Path, message: str) -> None:
    before = sorted(path.rglob("*"))
    with pytest.raises(InputError, match=message):
        RunFolder(path).create(RunConfig(), overwrite=True)
    assert sorted(path.rglob("*")) == before


def test_a_foreign_folder_with_a_configuration_is_kept(tmp_path: Path) -> None:
    for text in ("name: my-website\n", "data: digits\n", "[1, 2"):
        (tmp_path / "config.yaml").write_text(text)
        (tmp_path / "chapter1.tex").write_text("once")
        refused(tmp_path, "not a run folder")
        (tmp_path / "lock.json").write_text('{"process": 1}')
        refused(tmp_path, "not a run folder")


def test_the_current_folder_and_links_are_kept(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "link").symlink_to(run)
    refused(tmp_path / "link", "received .*link, a link")
    monkeypatch.chdir(run)
    refused(Path("."), "received the current folder")
    assert main(["pretrain", "--out", ".", "--overwrite"]) == 2
    assert "received the current folder" in capsys.readouterr().err


def test_files_that_no_run_writes_stay(run: Path) -> None:
    for name in ("notes.txt", "report.html", ".report.html.tmp", "evaluation-birds.json"):
        (run / name).write_text("x")
    for folder in ("figures", "checkpoint", "checkpoint-best", "checkpoint.tmp", "falcon-ssl"):
        (run / folder).mkdir()
        (run / folder / "file").write_text("x")
    RunFolder(run).create(RunConfig(seed=1), overwrite=True)
    left = {path.name for path in run.iterdir()}
    assert left == {"config.yaml", ".lock", "lock.json", "notes.txt", "figures"}
