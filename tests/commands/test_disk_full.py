"""A full disk, for every command: exit 1, one line, nothing half-written, and what was there before is left.

A limit on the size of files stands for it: the system refuses the write as it does on a full disk.
"""

from __future__ import annotations

import hashlib
import os
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from falcon_ssl.cli.main import main

TINY = [
    "--epochs",
    "1",
    "--batch_size",
    "256",
    "--falcon.dictionary",
    "rademacher",
    "--falcon.num_codes",
    "64",
]
LIMIT = 9000  # bytes: less than any large file that a command writes, more than a record
LIMITS = {"baseline": 500}  # its record is all that it writes
# Written before what there is no room for, each of them whole; the rest is what a study of many runs keeps.
RECORDS = {"config.yaml", "data.json", "metrics.jsonl", "environment.json"}
RECORDS |= {"failure.txt", "lock.json", ".lock"}


@contextmanager
def full_disk(limit: int = LIMIT) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("full") / "run"
    assert main(["pretrain", "--out", str(out), *TINY]) == 0
    return out


def contents(folder: Path) -> dict[str, str]:
    """Every file and its content."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


COMMANDS: dict[str, Callable[[Path, Path], list[str]]] = {
    "evaluate": lambda run, out: ["evaluate", str(run)],
    "evaluate --out": lambda run, out: ["evaluate", str(run), "--out", str(out / "numbers")],
    "report": lambda run, out: ["report", str(run)],
    "embed": lambda run, out: ["embed", str(run), "--out", str(out / "z.npz")],
    "export": lambda run, out: ["export", str(run), "--out", str(out / "encoder")],
    "search": lambda run, out: [
        "search",
        table_of(run),
        *"0123456789",
        "--out",
        str(out / "near.png"),
    ],
    "duplicates": lambda run, out: [
        "duplicates",
        table_of(run),
        "--similarity",
        "0.5",
        "--out",
        str(out / "same.csv"),
    ],
    "finetune": lambda run, out: [
        "finetune",
        str(run),
        "--finetune.labels",
        "100",
        "--finetune.epochs",
        "1",
        "--out",
        str(out / "tuned"),
    ],
    "baseline": lambda run, out: [
        "baseline",
        "digits",
        "--num_centers",
        "20",
        "--out",
        str(out / "patches"),
    ],
    "compare": lambda run, out: [
        "compare",
        str(run),
        str(shutil.copytree(run, run.with_name("other"), dirs_exist_ok=True)),
        "--out",
        str(out / "compared.html"),
    ],
    "tune": lambda run, out: [
        "tune",
        *TINY,
        "--betas",
        "1",
        "--temperatures",
        ".4",
        "--falcon.epsilon",
        "null",
        "--out",
        str(out / "tuned"),
    ],
    "views": lambda run, out: ["views", "--out", str(out / "views.png"), "--num_images", "40"],
}


def table_of(run: Path) -> str:
    """Embeddings of a run, made while there is room."""
    return str(run.with_name("z.parquet"))


@pytest.mark.parametrize("name", COMMANDS)
def test_nothing_half_written_is_left(
    name: str, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = Path(shutil.copytree(whole, tmp_path / "run")), tmp_path / "out"
    out.mkdir()
    command = COMMANDS[name](run, out)
    if table_of(run) in command:
        assert main(["embed", str(run), "--out", table_of(run)]) == 0
        capsys.readouterr()
    before = contents(tmp_path)
    with full_disk(LIMITS.get(name, LIMIT)):
        assert main(command) == 1
    said = [line for line in capsys.readouterr().err.splitlines() if "falcon-ssl:" in line]
    assert len(said) == 1
    assert said[0].startswith("falcon-ssl: the run failed: ")
    after = contents(tmp_path)
    assert {k: v for k, v in after.items() if k in before} == before
    added = [Path(k) for k in after if k not in before]
    # What embed has begun stays beside the file: the same command continues it.
    left = {k.name for k in added if not k.parent.name.endswith(".parts")} - RECORDS
    assert not left
    assert main(command) == 0, "with room it works in the same place"


def test_a_full_disk_while_training_keeps_the_last_checkpoint(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    with full_disk():
        assert main(["pretrain", "--out", str(run), *TINY]) == 1
    assert not list(run.glob("checkpoint*"))
    assert "Traceback" not in capsys.readouterr().err
    assert main(["pretrain", "--out", str(run), *TINY, "--resume", "auto"]) == 0
    assert (run / "checkpoint" / "model.safetensors").read_bytes() == (
        whole / "checkpoint" / "model.safetensors"
    ).read_bytes()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_the_limit_is_what_a_full_disk_is() -> None:
    """The control: both are errors of the system when a file is written."""
    with (
        pytest.raises(OSError, match="No space left"),
        open("/dev/full", "wb", buffering=0) as file,
    ):
        file.write(b"x")
    path = Path(os.devnull).parent / "shm"
    if path.is_dir():
        target = path / f"falcon-{os.getpid()}"
        try:
            with full_disk(), pytest.raises(OSError, match="File too large"):
                target.write_bytes(bytes(3 * LIMIT))
        finally:
            target.unlink(missing_ok=True)
