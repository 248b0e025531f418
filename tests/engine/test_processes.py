"""One run on one process, and on two of which one dies: the same losses and the same weights, to rounding."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from falcon_ssl import cli
from support.short_runs import FEW_CODES

OPTIONS = [
    *("pretrain", "--data", "digits", "--epochs", "2", "--batch_size", "511"),
    *(*FEW_CODES, "--optim.clip_norm", "1"),
    *("--optim.lr", "1e-3", "--engine.log_every", "1", "--out"),
]
DYING = """
import os, signal, sys
from falcon_ssl import cli
from falcon_ssl.core import distributed
from falcon_ssl.engine.step import TrainingStep

distributed.GRACE = 1.0  # there is no third rank to wait for
take = TrainingStep.__call__

def step(self, images, number):
    if number == 3 and os.environ["RANK"] == "1" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        os.kill(os.getpid(), signal.SIGKILL)
    return take(self, images, number)

TrainingStep.__call__ = step
sys.exit(cli.main(sys.argv[1:]))
"""


def launch(out: Path, script: Path) -> str:
    """Two processes, as the documentation says, on a machine without GPU; returns what they log."""
    script.write_text(DYING)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [
            *(sys.executable, *torchrun, "--max-restarts", "2", str(script), *OPTIONS, str(out)),
            *("--resume", "auto"),
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def terms_of(run: Path) -> torch.Tensor:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    names = ("total", "invariance", "prior_matching", "entropy", "grad_norm")
    steps = [line for line in lines if "total" in line]  # the others are probes
    return torch.tensor([[line[name] for name in names] for line in steps])


@pytest.mark.slow
def test_two_processes_of_which_one_dies_repeat_one(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    assert cli.main([*OPTIONS, str(one), "--engine.device", "cpu"]) == 0
    logged = launch(two, tmp_path / "dying.py")  # 255 and 256 rows of a batch: unequal shards
    assert logged.count("processes: 2") == 2, "one rank logs, in both sessions"
    assert "rank 0 of 2 cannot go on: rank 1 has died" in logged
    assert "resumed at step 2 of 4" in logged
    assert json.loads((two / "environment.json").read_text())["num_processes"] == 2
    torch.testing.assert_close(terms_of(one), terms_of(two), rtol=2e-3, atol=2e-3)
    first, second = (load_file(run / "checkpoint" / "model.safetensors") for run in (one, two))
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=2e-3, atol=2e-3, msg=name)
