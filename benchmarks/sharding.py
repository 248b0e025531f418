"""What a rank holds of weights, gradients and moments, with and without --engine.shard.

    python benchmarks/sharding.py --out results/scaling

Measured on the CPU, ranks joined by gloo: bytes of the tensors themselves, and memory of a process that no other one
shares, after two steps of a ViT-S with FALCON and AdamW on images of 32 pixels, so that weights are most of it.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import torch
import torch.distributed as dist
from torch import multiprocessing

from falcon_ssl.config import from_mapping
from falcon_ssl.core.devices import hardware
from falcon_ssl.core.sharding import local
from falcon_ssl.engine import environment
from falcon_ssl.engine.accelerator import build_accelerator
from falcon_ssl.engine.step import TrainingStep
from falcon_ssl.methods import build_method
from falcon_ssl.networks.timm import import_beside_torchvision
from falcon_ssl.views import build_views

BATCH, SIDE, STEPS = 8, 32, 2


def held(shard: bool, num_ranks: int) -> dict[str, Any]:
    """What this process holds after some steps."""
    config = from_mapping(
        {
            "batch_size": BATCH,
            "epochs": 4,
            "encoder": {"name": "timm:vit_small_patch16_224", "patch_size": 8},
            "falcon": {"dictionary": "rademacher", "num_codes": 1024, "embed_dim": 64},
            "views": {"preset": "imagenet", "size": SIDE},
            "optim": {"name": "adamw", "warmup_epochs": 0},
            "engine": {"device": "cpu", "precision": "no", "shard": shard},
        }
    )
    shape = (3, SIDE, SIDE)
    torch.manual_seed(0)
    method, views = build_method(config, image_shape=shape), build_views(config.views)
    total = sum(parameter.numel() for parameter in method.parameters())
    begin = own_memory() - 4 * total
    accelerator = build_accelerator(config.engine)
    step = TrainingStep(method, views, config=config, num_steps=8, accelerator=accelerator)
    images = torch.randint(256, (BATCH // num_ranks, *shape), dtype=torch.uint8)
    for number in range(STEPS):
        step(images, number)
    step.terms()
    states = step.optimizer.state.values()
    found = {
        "num_parameters": total,
        "weights": sum(local(parameter).nbytes for parameter in method.parameters()),
        "moments": sum(x.nbytes for one in states for x in one.values() if x.ndim),
        "process": own_memory() - begin,
    }
    step.close()
    return found


def own_memory() -> int:
    """Bytes that this process alone has, after what it has freed went back to the system."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    return int(psutil.Process().memory_full_info().uss)


def work(rank: int, num_ranks: int, shard: bool, folder: str) -> None:
    """One rank."""
    torch.set_num_threads(1)
    os.environ |= {name: str(rank) for name in ("RANK", "LOCAL_RANK")}
    os.environ |= {"WORLD_SIZE": str(num_ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/rendezvous",
        rank=rank,
        world_size=num_ranks,
        timeout=timedelta(minutes=10),
    )
    Path(folder, f"{rank}.json").write_text(json.dumps(held(shard, num_ranks)))
    dist.barrier()
    dist.destroy_process_group()


def main() -> None:
    """Write the record, and print a line a measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    out, rows = parser.parse_args().out, []
    import_beside_torchvision("timm")  # once, before the ranks are forked
    for num_ranks, shard in ((2, False), (2, True), (4, True)):
        with tempfile.TemporaryDirectory() as folder:
            multiprocessing.start_processes(  # type: ignore[no-untyped-call]
                work, (num_ranks, shard, folder), num_ranks, start_method="fork"
            )
            ranks = [json.loads(Path(folder, f"{r}.json").read_text()) for r in range(num_ranks)]
        largest = {name: max(one[name] for one in ranks) for name in ranks[0]}
        rows.append({"num_ranks": num_ranks, "shard": shard, **largest})
        print(json.dumps(rows[-1]), flush=True)
    record = {"rows": rows, "environment": environment(hardware(torch.device("cpu")))}
    (out / "sharding.json").write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
