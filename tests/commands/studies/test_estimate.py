"""The time estimate of a grid: real steps, and sums over what is left to do."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from falcon_ssl.commands.loading import build
from falcon_ssl.commands.studies import estimate
from falcon_ssl.commands.studies.grid import GridRun, Selection, make_runs, read_grid
from falcon_ssl.commands.studies.runner import Status
from falcon_ssl.config import RunConfig
from falcon_ssl.core.devices import best_device, hardware


def test_estimates_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "seconds_per_step", lambda config, shape: 2.0)
    grid = read_grid("small")
    runs = make_runs(
        grid, Selection(rows=["vicreg", "swav", "dino"], datasets=["cifar10"], seeds=[0])
    )
    states = [Status("done"), Status("stopped", 300), Status("to do")]
    found = estimate.estimate(grid, list(zip(runs, states, strict=True)), 2)
    assert found.seconds == (0.0, 180.0, 780.0), "two epochs of 195 batches"
    assert found.total == 960.0
    assert found.elapsed == 780.0


def test_a_run_is_expected_to_take_what_its_like_took_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """In proportion to the epochs; on another machine, or for another row, steps are timed."""
    monkeypatch.setattr(estimate, "seconds_per_step", lambda config, shape: 1.0)
    here = hardware(best_device())["device"]
    cell = {"row": "swav", "dataset": "cifar10", "device": here, "seconds": 50.0}
    cell |= {"options": {"epochs": 1}, "seconds_to_evaluate": 7.0}
    grid = read_grid("small")
    swav, dino = make_runs(grid, Selection(rows=["swav", "dino"], datasets=["cifar10"], seeds=[3]))
    steps = 2 * 195

    def seconds(run: GridRun, now: Status, *cells: dict[str, Any]) -> float:
        return estimate.expected_seconds(grid, run, now, cells)

    assert seconds(swav, Status("to do"), cell) == 107.0
    assert seconds(swav, Status("stopped", steps // 2), cell) == 57.0
    assert seconds(swav, Status("to do")) == steps
    assert seconds(swav, Status("to do"), cell | {"device": "another"}) == steps + 7
    assert seconds(dino, Status("to do"), cell) == steps + 7


def test_a_timed_step_takes_time_and_grows_with_the_batch() -> None:
    config = RunConfig(
        encoder=replace(RunConfig().encoder, name="digits_cnn"),
        views=replace(RunConfig().views, preset="digits"),
    )
    small = estimate.seconds_per_step(replace(config, batch_size=8), (1, 8, 8))
    large = estimate.seconds_per_step(replace(config, batch_size=512), (1, 8, 8))
    assert 0 < small < large


def test_large_images_are_timed_in_small_batches(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """256 images of 224 pixels and a ViT need more memory than most machines without a GPU have."""
    views = replace(RunConfig().views, preset="digits")
    encoder = replace(RunConfig().encoder, name="digits_cnn")
    config = RunConfig(encoder=encoder, views=views, batch_size=64)
    seen = []

    def built(*args: Any) -> Any:
        views, method = build(*args)
        method.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0][0])))
        return views, method

    ticks = iter([0.0, 6.0, 0.0, 6.0])
    monkeypatch.setattr(estimate, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    monkeypatch.setattr(estimate, "build", built)
    caplog.set_level("INFO")
    assert estimate.seconds_per_step(config, (1, 8, 8)) == 2.0
    assert set(seen) == {64}
    assert "scaled" not in caplog.text
    seen.clear()
    monkeypatch.setattr(estimate, "LARGEST", 16 * 8 * 8)
    assert estimate.seconds_per_step(config, (1, 8, 8)) == 8.0
    assert set(seen) == {16}
    assert "timed with 16 images a step instead of 64 and scaled" in caplog.text
