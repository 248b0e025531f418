"""What the alarms cost: their share of a training step, in CPU time so that other programs matter little.

make bench-alarms
"""

from __future__ import annotations

import argparse
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
from falcon_ssl.config import EngineConfig, FalconConfig, RunConfig
from falcon_ssl.core.devices import hardware
from falcon_ssl.core.monitor import Moment, Monitor, Observation
from falcon_ssl.records.provenance import environment

SETTINGS = {
    "default: C = 4096, F = 128, batch 256, digits": RunConfig(epochs=24),
    "C = 16384, F = 128, batch 256, digits": RunConfig(
        epochs=16, falcon=FalconConfig(num_codes=16384)
    ),
    "complete 2^128, batch 256, digits": RunConfig(
        epochs=24, falcon=FalconConfig(dictionary="complete")
    ),
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
    """Measure every setting three times; write the median by share."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results/diagnosis/alarms.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = {}
    for name, config in SETTINGS.items():
        runs = sorted((measure(config) for _ in range(3)), key=lambda run: run["share"])
        found[name] = {key: round(value, 4) for key, value in runs[1].items()}
        print(f"{name}: {100 * runs[1]['share']:.2f} % of {runs[1]['cpu_ms_per_step']:.1f} ms")
    record = {
        "what": "CPU time of AlarmMonitor over that of all else in a run; median of three runs",
        "settings": found,
        "environment": environment(hardware(torch.device("cpu"))),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
