"""Studies without their training: every run is a copy of one that was trained and evaluated for real."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from falcon_ssl.commands.studies import runner
from falcon_ssl.commands.studies.worker import run_job
from falcon_ssl.config import FalconConfig, MonitorConfig, RunConfig, to_mapping
from falcon_ssl.core.errors import CollapseError

SMALL = RunConfig(
    epochs=1,
    falcon=FalconConfig(dictionary="rademacher", num_codes=64, embed_dim=16),
    monitor=MonitorConfig(every_epochs=0),
)


@dataclass
class CopiedRuns:
    """What was "trained", and how it ends.

    Args:
        source: A finished run.
        numbers: What of evaluation.json depends on the configuration.
        collapsed: Which runs end in a collapse.
        trained: Folder and keyword arguments of every training.
    """

    source: Path
    numbers: Callable[[RunConfig], dict[str, float]] = lambda config: {}
    collapsed: Callable[[RunConfig], bool] = lambda config: False
    trained: list[tuple[Path, dict[str, Any]]] = field(default_factory=list)
    configs: dict[Path, RunConfig] = field(default_factory=dict)

    def pretrain(self, config: RunConfig, *, out: Path, **how: Any) -> None:
        """Instead of `commands.pretrain`."""
        self.trained.append((out, how))
        self.configs[out] = config
        evaluated = shutil.ignore_patterns("evaluation.json", "diagnosis.json")
        shutil.copytree(self.source, out, ignore=evaluated, dirs_exist_ok=True)
        (out / "config.yaml").write_text(yaml.safe_dump(to_mapping(config)))
        if self.collapsed(config):
            with (out / "metrics.jsonl").open("a") as file:
                alarm = {"name": "constant", "text": "a collapse"}
                file.write(json.dumps({"step": 5, "epoch": 1.0, "alarm": alarm}) + "\n")
            raise CollapseError("step 5")

    def evaluate(self, run: Path) -> None:
        """Instead of `commands.evaluate`."""
        record = json.loads((self.source / "evaluation.json").read_text())
        record |= self.numbers(self.configs[run]) if run in self.configs else {}
        shutil.copy(self.source / "diagnosis.json", run)
        (run / "evaluation.json").write_text(json.dumps(record))


def in_this_process(
    jobs: Iterable[runner.Job], out: Path, environments: Sequence[Any], *, logs: Path | None
) -> Iterator[Path]:
    """Runs one by one without a process each, which take seconds to start."""
    for job in jobs:
        run_job(job.config, out / job.name)
        yield out / job.name
