"""One run on one process and on two: the same losses and the same weights, to rounding."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

OPTIONS = [
    *("pretrain", "--data", "digits", "--epochs", "2", "--batch_size", "511"),
    *("--falcon.num_codes", "64", "--falcon.embed_dim", "16", "--optim.clip_norm", "1"),
    *("--optim.lr", "1e-3", "--engine.device", "cpu", "--engine.log_every", "1", "--out"),
]


def launch(out: Path, processes: int) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    command = [sys.executable, "-m", "falcon_ssl", *OPTIONS, str(out)]
    ranks = [
        subprocess.Popen(
            command,
            env={**common, "RANK": str(r), "LOCAL_RANK": str(r), "WORLD_SIZE": str(processes)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for r in range(processes)
    ]
    for rank in ranks:
        _, errors = rank.communicate(timeout=120)
        assert rank.returncode == 0, errors


def terms_of(run: Path) -> torch.Tensor:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    names = ("total", "invariance", "prior_matching", "entropy", "grad_norm")
    return torch.tensor([[line[name] for name in names] for line in lines])


@pytest.mark.slow
def test_two_processes_repeat_one(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    launch(one, 1)
    launch(two, 2)  # 255 and 256 rows of a batch: unequal shards
    torch.testing.assert_close(terms_of(one), terms_of(two), rtol=2e-3, atol=2e-3)
    first, second = (load_file(run / "checkpoint" / "model.safetensors") for run in (one, two))
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=2e-3, atol=2e-3, msg=name)
