"""The line that says how long a run will take: early, once, and right."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from falcon_ssl import commands
from falcon_ssl.config import EngineConfig, FalconConfig, RunConfig, ViewsConfig
from falcon_ssl.engine import pace
from falcon_ssl.engine.pace import Pace

CONFIG = RunConfig(epochs=4)


def said(
    monkeypatch: pytest.MonkeyPatch,
    *,
    seconds: float,
    first: int = 1,
    config: RunConfig = CONFIG,
    num_steps: int = 400,
) -> dict[int, str]:
    """What is said after which step, if each takes so long."""
    now = [0.0]
    monkeypatch.setattr(pace.time, "perf_counter", lambda: now[0])
    line = Pace(config, num_steps, torch.device("cpu"))
    found = {}
    for step in range(first, num_steps + 1):
        now[0] += seconds if step > first else 100 * seconds
        if text := line.after(step):
            found[step] = text
    return found


def test_it_is_said_once_and_the_first_step_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    assert said(monkeypatch, seconds=0.125) == {
        11: "400 steps in 4 epochs, 0.12 s each on this machine: about 48.6 s of training left"
    }


def test_slow_steps_are_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    found = said(monkeypatch, seconds=20.0)
    assert list(found) == [2]
    assert "20 s each on this machine: about 2 h 12 min of training left" in found[2]


def test_a_resumed_run_has_less_left(monkeypatch: pytest.MonkeyPatch) -> None:
    found = said(monkeypatch, seconds=0.1, first=301)
    assert list(found) == [311]
    assert "about 8.9 s" in found[311]


def test_growing_views_take_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(CONFIG, views=ViewsConfig(size=32, start_size=16))
    found = said(monkeypatch, seconds=0.1, config=config)
    assert "views grow, so more than 38.9 s" in found[11]


def test_a_run_of_a_few_steps_is_over_before(monkeypatch: pytest.MonkeyPatch) -> None:
    assert said(monkeypatch, seconds=0.1, num_steps=10) == {}


def test_a_run_says_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = RunConfig(
        epochs=2,
        batch_size=128,
        falcon=FalconConfig(dictionary="rademacher", num_codes=64, embed_dim=16),
        engine=EngineConfig(device="cpu"),
    )
    commands.pretrain(config, out=tmp_path / "run", monitors=[])
    assert capsys.readouterr().err.count("steps in 2 epochs") == 1
