"""One real run that all copies are made of."""

from __future__ import annotations

from pathlib import Path

import pytest

from falcon_ssl import commands
from falcon_ssl.commands.studies import runner
from support.copied_runs import SMALL, CopiedRuns, in_this_process


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = commands.pretrain(SMALL, out=tmp_path_factory.mktemp("finished") / "run")
    commands.evaluate(out)
    return out


@pytest.fixture
def copied_runs(finished_run: Path, monkeypatch: pytest.MonkeyPatch) -> CopiedRuns:
    """Runs take no time: training and evaluation are a copy, in this process."""
    copied = CopiedRuns(finished_run)
    monkeypatch.setattr(runner, "run_processes", in_this_process)
    monkeypatch.setattr(commands, "pretrain", copied.pretrain)
    monkeypatch.setattr(commands, "evaluate", copied.evaluate)
    return copied
