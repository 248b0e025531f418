"""A run of six steps on the digits, three epochs of two, how it is cut short, and what it leaves."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from falcon_ssl.config import EngineConfig, FalconConfig, OptimConfig, RunConfig
from falcon_ssl.core.monitor import Moment, Observation

SHORT = RunConfig(
    epochs=3,
    batch_size=512,
    falcon=FalconConfig(dictionary="rademacher", num_codes=64, embed_dim=16),
    optim=OptimConfig(warmup_epochs=1),
    engine=EngineConfig(device="cpu", log_every=1),
)
# The same dictionary on the command line.
FEW_CODES = (
    *("--falcon.dictionary", "rademacher", "--falcon.num_codes", "64"),
    *("--falcon.embed_dim", "16"),
)


class Interrupter:
    """A monitor that presses Ctrl-C at a step; with None it only stands where another has."""

    def __init__(self, step: int | None = None) -> None:
        self.step = step

    def __call__(self, moment: Moment) -> Observation:
        if moment.step == self.step:
            raise KeyboardInterrupt
        return Observation()

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass


def tensors_of(run: Path) -> dict[str, Tensor]:
    newest = run / "checkpoint"
    return {
        **load_file(newest / "model.safetensors"),
        **load_file(newest / "training.safetensors"),
    }


def differing(run: Path, other: Path) -> list[str]:
    """Names of the tensors in which two runs differ."""
    first, second = tensors_of(run), tensors_of(other)
    assert first.keys() == second.keys()
    return [name for name in first if not torch.equal(first[name], second[name])]


def lines_of(run: Path, *, clock: bool = False) -> list[dict[str, Any]]:
    """Metrics; without what a clock says, unless that is wanted too."""
    timed = () if clock else ("seconds", "images_per_s")
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in timed} for line in lines]


def state_of(checkpoint: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((checkpoint / "state.json").read_text())
    return found
