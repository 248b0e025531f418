"""How often the host waits for the device in a training step, and how many kernels it launches, method by method.

    python benchmarks/launches.py                                       on a simulated GPU: no GPU is needed
    PYTHONPATH=OTHER/src python benchmarks/launches.py --out /tmp/other     the same of another checkout

Operations are counted as tests/support/simulated_gpu.py says. Unlogged steps; random images of 32 pixels, ResNet-8.
Where the operations of the views on pixels are compiled, each counts as many launches as Inductor makes CPU kernels.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias
from unittest import mock

import torch
from torch import Tensor
from torch._inductor import metrics

from falcon_ssl.commands.loading import build
from falcon_ssl.config.run import from_mapping
from falcon_ssl.engine.accelerator import build_accelerator
from falcon_ssl.engine.step import TrainingStep
from falcon_ssl.views import color, filters
from record import arguments, command, machine, markdown, write_record

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from support.simulated_gpu import Log, on_gpu, simulated_gpu

Pixels: TypeAlias = Callable[..., Tensor]
LARS = {"optim": {"name": "lars"}}
ADAMW = {"optim": {"name": "adamw"}}
IMAGENET = {"views": {"preset": "imagenet", "size": 32}}
COMPILED = ", views compiled"
STEPS: dict[str, dict[str, Any]] = {
    "FALCON": {},
    f"FALCON{COMPILED}": {},
    "FALCON, AdamW": ADAMW,
    "FALCON, pooled": {"falcon": {"marginal": "pooled"}},
    "FALCON, Rademacher": {"falcon": {"dictionary": "rademacher", "backend": "chunked"}},
    "FALCON, Hadamard": {"falcon": {"dictionary": "hadamard"}},
    "FALCON, imagenet views": IMAGENET,
    f"FALCON, imagenet views{COMPILED}": IMAGENET,
    "FALCON, digits": {"views": {"preset": "digits"}, "encoder": {"name": "digits_cnn"}},
    "Barlow Twins": {"method": "barlow_twins"},
    "VICReg": {"method": "vicreg"},
    "SwAV, LARS": {"method": "swav", **LARS},
    "Self-Classifier": {"method": "self_classifier"},
    "GEDI": {"method": "gedi"},
    "GEDI with energy": {
        "method": "gedi",
        "gedi": {"generative": True, "sgld_steps": 5, "buffer_size": 64},
    },
    "DINO, LARS": {"method": "dino", **LARS},
    "LeJEPA": {"method": "lejepa"},
    "SimCLR, LARS": {"method": "simclr", **LARS},
    "BYOL, LARS": {"method": "byol", **LARS},
}
PARTS = ("views", "network", "loss", "backward", "clip", "check", "optimizer", "hooks")


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """The record of one method: of a step, the mean over some that are not logged."""
    config = from_mapping(
        {
            "views": {"preset": "cifar"},
            "encoder": {"name": "resnet8"},
            "engine": {"device": "cpu", "precision": "no"},
            "batch_size": options.batch_size,
            **STEPS[name],
        }
    )
    shape = (1, 8, 8) if config.encoder.name == "digits_cnn" else (3, 32, 32)
    is_compiled = name.endswith(COMPILED)
    if is_compiled:
        for function in (*color._ADJUST, color.to_grayscale, filters.solarize):
            compiled_kernels(function)  # before there is a simulated GPU
    with simulated_gpu() as log:
        torch.manual_seed(0)
        views, method = build(config, shape)
        if is_compiled:
            noted = functools.partial(counted, log=log)
            with (
                mock.patch.object(color, "compiled", noted),
                mock.patch.object(filters, "compiled", noted),
            ):
                views.compile()
        accelerator = on_gpu(build_accelerator(config.engine))
        step = TrainingStep(method, views, config=config, num_steps=1000, accelerator=accelerator)
        pixels = torch.randint(256, (options.batch_size, *shape), dtype=torch.uint8)
        batch = pixels.to("cuda")
        step(batch, 0)  # what is copied or checked once
        log.clear()
        for number in range(1, options.steps + 1):
            step(batch, number)
    launches = {part: log.launches[part] / options.steps for part in PARTS}
    return {
        "waits": len(log.waits) / options.steps,
        "uploads": len(log.uploads) / options.steps,
        "views and loss": launches["views"] + launches["loss"],
        "launches": sum(launches.values()),
        "parts": launches,
        "waited_for": dict(Counter(log.waits)),
    }


def counted(function: Pixels, *, log: Log) -> Pixels:
    """An operation on pixels that is noted as the launches of its compiled form."""

    def run(*tensors: Tensor) -> Tensor:
        launches, operations = log.launches.copy(), log.operations.copy()
        result = function(*tensors)
        log.launches, log.operations = launches, operations
        log.launch(f"compiled {function.__name__}", compiled_kernels(function))
        return result

    return run


@functools.cache
def compiled_kernels(function: Pixels) -> int:
    """How many kernels Inductor makes of an operation for a CPU."""
    metrics.reset()
    tensors = [torch.rand(16, 3, 32, 32)] + [torch.rand(16)] * (function in color._ADJUST)
    torch.compile(function, dynamic=True, fullgraph=True)(*tensors)
    return metrics.generated_kernel_count


def table(record: Mapping[str, Any]) -> str:
    """The record for people, in Markdown."""
    about = record["environment"]
    rows = [
        [name]
        + [f"{row[key]:g}" for key in ("waits", "uploads", "views and loss", "launches")]
        + [f"{row['parts'][part]:g}" for part in PARTS]
        for name, row in record["methods"].items()
    ]
    lines = [
        "# Waits and launches of a training step",
        "",
        f"Counted on a simulated GPU, see tests/support/simulated_gpu.py; torch {about['torch']}; {about['date']}; "
        f"`{command(about, '')}`. Means of {record['steps']} unlogged steps; ResNet-8, images of 32 pixels, two views. "
        "Waits: reads by the host and copies to the device that block. Uploads: those that do not. Backward: of the "
        "whole network. Hooks: running averages of weights, norms of prototypes.",
        "",
        *markdown(["method", "waits", "uploads", "views + loss", "all launches", *PARTS], rows),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Count, write the record and the table."""
    parser = arguments(__doc__, "speed/launches")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--methods", nargs="+", choices=STEPS, default=list(STEPS))
    options = parser.parse_args()
    rows = {name: measure(name, options) for name in options.methods}
    record = {
        "what": "host waits and kernel launches of a training step, counted on a simulated GPU",
        "steps": options.steps,
        "methods": rows,
        "environment": machine(),
    }
    write_record(options.out, record, table(record))


if __name__ == "__main__":
    main()
