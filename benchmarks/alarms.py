"""What the alarms cost: their share of a training step, in CPU time so that other programs matter little.

make bench-alarms
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from falcon_ssl import commands
from falcon_ssl.commands.loading import prepare
from falcon_ssl.commands.monitors import default_monitors
from falcon_ssl.config import EngineConfig, RunConfig, from_mapping
from falcon_ssl.config.mapping import read_yaml
from falcon_ssl.config.recipes import recipe_path
from falcon_ssl.core.monitor import Moment, Monitor, Observation
from record import arguments, machine, write_record

PAPER = from_mapping(read_yaml(recipe_path("paper")))
SETTINGS = {
    "the paper: C = 4096, F = 128, batch 256, digits": replace(PAPER, epochs=24),
    "C = 16384, F = 128, batch 256, digits": replace(
        PAPER, epochs=16, falcon=replace(PAPER.falcon, num_codes=16384)
    ),
    "the default, all codes, batch 256, digits": RunConfig(epochs=24),
}


class Stopwatch:
    """A monitor that measures another one."""

    def __init__(self, watched: Monitor) -> None:
        self.watched = watched
        self.seconds: list[float] = []

    def __call__(self, moment: Moment) -> Observation:
        """Pass the moment on."""
        start = time.process_time()
        observation = self.watched(moment)
        self.seconds.append(time.process_time() - start)
        return observation

    def state_dict(self) -> dict[str, Any]:
        """That of the watched one."""
        return self.watched.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """For the watched one."""
        self.watched.load_state_dict(state)


def measure(config: RunConfig) -> dict[str, float]:
    """CPU seconds of a run of which the alarms take some."""
    config = replace(config, engine=EngineConfig(device="cpu"))
    watch = Stopwatch(default_monitors(prepare(config))[0])
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        run = commands.pretrain(config, out=Path(folder) / "run", monitors=[watch])
        seconds = time.process_time() - start
        steps = json.loads((run / "environment.json").read_text())["steps"]
    # The first calls pay for thread pools and caches once per run.
    usual = statistics.mean(watch.seconds[5:]) * len(watch.seconds)
    return {
        "steps": steps,
        "calls": len(watch.seconds),
        "cpu_ms_per_step": 1e3 * (seconds - sum(watch.seconds)) / steps,
        "cpu_ms_of_alarms_per_step": 1e3 * usual / steps,
        "share": usual / (seconds - sum(watch.seconds)),
    }


def main() -> None:
    """Measure every setting some times; write the median by share."""
    parser = arguments(__doc__, "diagnosis/alarms")
    parser.add_argument("--runs", type=int, default=3, help="of every setting")
    parser.add_argument("--epochs", type=int, help="of every run, for a quick try")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = {}
    for name, config in SETTINGS.items():
        config = replace(config, epochs=options.epochs or config.epochs)
        runs = sorted((measure(config) for _ in range(options.runs)), key=lambda run: run["share"])
        typical = runs[len(runs) // 2]
        found[name] = {key: round(value, 4) for key, value in typical.items()}
        print(f"{name}: {100 * typical['share']:.2f} % of {typical['cpu_ms_per_step']:.1f} ms")
    record = {
        "what": "CPU time of AlarmMonitor over that of all else in a run; median of the runs",
        "settings": found,
        "environment": machine(),
    }
    write_record(options.out, record)


if __name__ == "__main__":
    main()
