"""How long a grid will take: a few real training steps of every row on random images."""

from __future__ import annotations

import heapq
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from falcon_ssl.commands.loading import build, seen_shape
from falcon_ssl.commands.resolve import chosen_precision
from falcon_ssl.commands.studies.grid import Grid, GridRun
from falcon_ssl.commands.studies.runner import Status
from falcon_ssl.commands.studies.table import Cell
from falcon_ssl.config.run import RunConfig
from falcon_ssl.core.devices import hardware, named_device, wait_for
from falcon_ssl.engine.accelerator import build_accelerator
from falcon_ssl.engine.step import TrainingStep
from falcon_ssl.networks import fit_to_images

logger = logging.getLogger(__name__)

STEPS = 3  # that are timed, after one that is not
# Pixels of a batch timed without a GPU: some GB with a ViT, where 256 images took 23.
LARGEST = 32 * 224**2


@dataclass(frozen=True)
class Estimate:
    """Time of training alone; reading the images and evaluating the encoder come on top."""

    seconds: tuple[float, ...]  # of every run, what is left of it
    total: float  # their sum
    elapsed: float  # until the last one ends, so many processes at a time
    processes: int  # number of processes


def estimate(grid: Grid, runs: Sequence[tuple[GridRun, Status]], processes: int) -> Estimate:
    """Time the steps of every row that is not done, on the share of the cores that a process gets."""
    step_seconds: dict[RunConfig, float] = {}
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads // processes))
    left = []
    for run, now in runs:
        data = grid.datasets[run.dataset]
        steps = run.config.epochs * (data.num_train // run.config.batch_size) - now.step
        if now.state == "done":
            left.append(0.0)
            continue
        kind = replace(run.config, data=str(data.image_shape), seed=0)
        if kind not in step_seconds:
            step_seconds[kind] = seconds_per_step(run.config, data.image_shape)
        left.append(max(0, steps) * step_seconds[kind])
    torch.set_num_threads(threads)
    ends = [0.0] * processes
    for seconds in left:
        heapq.heapreplace(ends, ends[0] + seconds)
    return Estimate(tuple(left), sum(left), max(ends), processes)


def expected_seconds(grid: Grid, run: GridRun, now: Status, cells: Sequence[Cell]) -> float:
    """How long one run will take on this machine, its evaluation included.

    As long as cells of the same row and data set have taken here, where there are any; else by timed steps, and the
    longest evaluation of all cells, whose machines may be others.

    Args:
        grid: Its grid.
        run: The run.
        now: What is done of it.
        cells: Finished ones, see `falcon_ssl.commands.studies.table.read_cells`.
    """
    here = hardware(named_device(run.config.engine.device))["device"]
    data, config = grid.datasets[run.dataset], run.config
    steps = config.epochs * (data.num_train // config.batch_size)
    alike = [
        cell["seconds"] * config.epochs / cell["options"]["epochs"]
        for cell in cells
        if (cell["row"], cell["dataset"], cell["device"]) == (run.row, run.dataset, here)
    ]
    training: float
    if alike:
        training = max(alike) * max(0, steps - now.step) / steps
    else:
        training = estimate(grid, [(run, now)], 1).total
    evaluation: float = max((cell["seconds_to_evaluate"] for cell in cells), default=0.0)
    return training + evaluation


def seconds_per_step(config: RunConfig, image_shape: tuple[int, int, int]) -> float:
    """Seconds of one training step: views, encoder, loss, backward and optimizer, on random images.

    Without a GPU a step of large images is timed with fewer of them and scaled, a little too long by what does not grow
    with the batch (the optimizer): a plan must not need the memory of the run. A GPU is timed as it would run, for its
    steps do not take time in proportion. The configuration leaves nothing open to the data; one more step comes before
    those that are timed.
    """
    device = named_device(config.engine.device)
    views, method = build(config, image_shape)
    size = config.batch_size
    if device.type == "cpu":
        size = min(size, max(2, LARGEST // math.prod(seen_shape(image_shape, views)[1:])))
    if size < config.batch_size:
        logger.info(
            "large images: timed with %d images a step instead of %d and scaled",
            size,
            config.batch_size,
        )
    generator = torch.Generator().manual_seed(config.seed)
    shape = (size, *image_shape)
    images = torch.randint(256, shape, dtype=torch.uint8, generator=generator)
    fit_to_images(method, lambda: views.evaluate(images))
    engine = replace(config.engine, precision=chosen_precision(config), trackers=())
    train_step = TrainingStep(
        method,
        views,
        config=replace(config, batch_size=size, engine=engine),
        num_steps=2 * STEPS,
        accelerator=build_accelerator(engine),
    )
    images = images.to(device)
    train_step(images, 0)
    wait_for(device)
    started = time.perf_counter()
    for number in range(STEPS):
        train_step(images, 2 * number + 1)  # views that grow: all sizes alike
    wait_for(device)
    return (time.perf_counter() - started) / STEPS * (config.batch_size / size)
