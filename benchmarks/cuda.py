"""One GPU, in one go and one JSON: the loss against its roofline, steps of every method, waits, launches.

    make bench-cuda                                             one NVIDIA GPU, under five minutes
    python benchmarks/cuda.py --device cpu --out /tmp/dry       a dry run: every part at tiny sizes, times mean nothing

The loss, its kernels and their errors: see loss_cuda.py. Its roofline is 4 products of V N x F x C
(docs/scaling.md) at the measured rate of one.
Steps: `methods.Contender`, the engine's own step, eager, and FALCON also compiled and with CUDA graphs. Waits are what
CUDA reports of a step as synchronizing (`torch.cuda.set_sync_debug_mode`), launches what torch's profiler sees. A part
that fails is named in `failed` and does not stop the others; what `--seconds` leaves no time for is in `left_out`.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

import loss_cuda
from methods import METHODS, REFERENCE, Contender, random_images
from record import arguments, machine, markdown, write_record
from timeline import Timeline, median_parts, whole

PRODUCTS = 4  # of V N x F x C, forward and backward
ENGINES: dict[str, dict[str, bool]] = {
    "eager": {},
    "compiled": {"compile": True},
    "CUDA graphs": {"cuda_graphs": True},
}
LAUNCHES = (
    "cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx", "cudaMemcpyAsync",
    "cudaMemsetAsync", "cudaGraphLaunch",
)  # fmt: skip
SIZES = {  # of a step, by device
    "cuda": {"batch_size": 512, "encoder": "resnet18", "width": 64, "stem": "cifar"},
    "cpu": {"batch_size": 8, "encoder": "resnet8", "width": 8, "stem": None},
}


class Run:
    """Parts of the benchmark one after the other, as long as there is time."""

    def __init__(self, seconds: float) -> None:
        self.until = time.monotonic() + seconds
        self.failed: dict[str, str] = {}
        self.left_out: list[str] = []

    def part(self, name: str, measure: Callable[[], Any]) -> Any:
        """What ``measure`` returns; None where it fails or there is no time left."""
        if time.monotonic() > self.until:
            self.left_out.append(name)
            return None
        print(name, file=sys.stderr, flush=True)
        try:
            return measure()
        except Exception as error:  # a compiler, a kernel, memory: the rest is worth having
            self.failed[name] = f"{type(error).__name__}: {error}".splitlines()[0]
            return None


def bandwidth(device: torch.device) -> float:
    """Bytes a second of a copy on the device, read and written."""
    x = torch.empty(2**28 if device.type == "cuda" else 2**16, device=device)
    y, timeline = torch.empty_like(x), Timeline(device)
    y.copy_(x)
    timeline.start()
    for _ in range(10):
        y.copy_(x)
    timeline.mark("copies")
    return 10 * 2 * 4 * len(x) / timeline.parts()["copies"].wall


def loss_rows(run: Run, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows of loss_cuda.py, with the share of the roofline that each contender reaches."""
    rows = []
    for N, F, C in loss_cuda.CELLS[options.device]:
        for precision in loss_cuda.PRECISIONS:
            row = run.part(
                f"loss, {precision}, N = {N}, F = {F}, C = {C}",
                lambda p=precision, n=N, f=F, c=C: loss_cuda.measure(
                    p, n, f, c, options.repeats, torch.device(options.device)
                ),
            )
            if row is not None:
                least = PRODUCTS * row["unit_ms"]
                row["share_of_roofline"] = {
                    name: least / ms for name, ms in row["ms"].items() if name != "complete"
                }
                rows.append(row)
    return rows


def rows_of_products(
    run: Run,
    what: str,
    measure: Callable[[str, int, torch.device], list[dict[str, Any]]],
    options: argparse.Namespace,
) -> list[dict[str, Any]]:
    """Rows of loss_cuda.py for every way to multiply in the Triton kernels."""
    device = torch.device(options.device)
    found = (
        run.part(f"{what}, {name}", lambda n=name: measure(n, options.repeats, device))
        for name in loss_cuda.OF_KERNELS
    )
    return [row for rows in found for row in rows or ()]


def step_row(name: str, engine: Mapping[str, bool], options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of a step and of its parts; waits and launches of one that is not logged."""
    contender, images = Contender(name, options, engine=engine), random_images(options)
    steps = [contender.step(images, k) for k in range(options.warm_up + options.repeats)]
    timed = steps[options.warm_up :]
    number = len(steps)
    seconds = statistics.median(whole(one).wall for one in timed)
    return {
        "seconds": seconds,
        "images_per_s": options.batch_size / seconds,
        "parts": {part: spent.wall for part, spent in median_parts(timed).items()},
        "waits": waits(lambda: contender.train_step(images, number), options.device),
        "launches": launches(lambda: contender.train_step(images, number + 1), options.device),
    }


def waits(step: Callable[[], object], device: str) -> int:
    """How often torch makes the host wait in a step; 0 where there is no CUDA to report it."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        if device == "cuda":
            torch.cuda.set_sync_debug_mode("warn")
        try:
            step()
        finally:
            if device == "cuda":
                torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing" in str(one.message) for one in found)


def launches(step: Callable[[], object], device: str) -> int:
    """Kernels, copies and graphs that the host launches in a step."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device == "cuda" else [])]
    with profile(activities=activities) as profiler:
        step()
    return sum(event.count for event in profiler.key_averages() if event.key in LAUNCHES)


def check(record: Mapping[str, Any]) -> None:
    """Raise ValueError unless a record holds what a reader of it expects."""
    wanted = {
        "cuda",
        "options",
        "bytes_per_s",
        "loss",
        "kernels",
        "errors",
        "steps",
        "failed",
        "left_out",
        "environment",
    }
    if set(record) != wanted:
        raise ValueError(f"entries {sorted(record)}, expected {sorted(wanted)}")
    numbers = [record["bytes_per_s"]]
    for row in record["loss"]:
        if set(row) != {*loss_cuda.ENTRIES, "share_of_roofline"}:
            raise ValueError(f"entries of a row of the loss: {sorted(row)}")
        numbers += [row["tflops"], row["unit_ms"], *row["ms"].values()]
        numbers += row["share_of_roofline"].values()
    numbers += [row["ms"] for row in record["kernels"]]
    numbers += [row["gradient"] for row in record["errors"]]
    for name, row in record["steps"].items():
        if set(row) != {"seconds", "images_per_s", "parts", "waits", "launches"}:
            raise ValueError(f"entries of the step {name}: {sorted(row)}")
        numbers += [row["seconds"], row["images_per_s"], *row["parts"].values()]
    if bad := [x for x in numbers if not (math.isfinite(x) and x > 0)]:
        raise ValueError(f"numbers that are not positive: {bad}")


def table(record: Mapping[str, Any]) -> str:
    """The record for people, in Markdown."""
    ran = record["environment"]
    names = [name for name in loss_cuda.CONTENDERS if name != "complete"]
    loss = [
        [row[key] for key in ("precision", "N", "F", "C")]
        + [f"{row['tflops']:.0f}"]
        + [
            f"{row['ms'][name]:.2f} ms, {row['share_of_roofline'][name]:.0%}"
            if name in row["ms"]
            else "--"
            for name in names
        ]
        for row in record["loss"]
    ]
    steps = [
        [
            name,
            f"{1e3 * row['seconds']:.2f}",
            f"{row['images_per_s']:.0f}",
            row["waits"],
            row["launches"],
        ]
        for name, row in record["steps"].items()
    ]
    lines = [
        "# One GPU",
        "",
        f"{ran['device']}; torch {ran['torch']}, CUDA {record['cuda']}; {ran['date']}; `{' '.join(ran['command'])}`; "
        f"{record['bytes_per_s'] / 1e9:.0f} GB/s copied.",
        "",
        "Loss, forward and backward, and the share of its roofline: 4 products at the measured rate.",
        "",
        *markdown(["precision", "N", "F", "C", "matmul TF/s", *names], loss),
        *loss_cuda.tables_of_kernels(
            record["kernels"], record["errors"], device=record["options"]["device"]
        ),
        "",
        "Steps that are not logged.",
        "",
        *markdown(["step", "ms", "images/s", "waits", "launches"], steps),
    ]
    missing = [*(f"{name}: {why}" for name, why in record["failed"].items()), *record["left_out"]]
    return "\n".join([*lines, "", *(f"- missing: {one}" for one in missing)]).rstrip() + "\n"


def main() -> None:
    """Measure, check the record, write it and the table."""
    parser = arguments(__doc__, "speed/cuda")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--precision", choices=("no", "bf16"), default="bf16")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--warm-up", type=int, default=3, help="steps that do not count")
    parser.add_argument("--seconds", type=float, default=270, help="after which nothing is begun")
    parser.add_argument("--methods", nargs="*", choices=METHODS, default=list(METHODS))
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit("cuda.py needs an NVIDIA GPU: torch.cuda.is_available() is False")
    if options.device == "cpu":
        os.environ["TRITON_INTERPRET"] = "1"  # kernels too are executed
        torch.compiler.set_stance("force_eager")  # what would be compiled runs as it is
        options.precision = "no"
    vars(options).update(SIZES[options.device])
    run = Run(options.seconds)
    loss = loss_rows(run, options)
    kernels = rows_of_products(run, "kernels", loss_cuda.kernel_rows, options)
    errors = rows_of_products(run, "errors", loss_cuda.error_rows, options)
    engines = ENGINES if options.device == "cuda" else {"eager": {}, "compiled": {"compile": True}}
    steps = {
        f"{name}, {how}": run.part(
            f"{name}, {how}", lambda n=name, e=engine: step_row(n, e, options)
        )
        for name in options.methods
        for how, engine in engines.items()
        if how == "eager" or name == REFERENCE
    }
    record = {
        "cuda": torch.version.cuda,
        "options": {key: value for key, value in vars(options).items() if key != "out"},
        "bytes_per_s": bandwidth(torch.device(options.device)),
        "loss": loss,
        "kernels": kernels,
        "errors": errors,
        "steps": {name: row for name, row in steps.items() if row is not None},
        "failed": run.failed,
        "left_out": run.left_out,
        "environment": machine(options.device),
    }
    write_record(options.out, record, table(record))
    check(record)


if __name__ == "__main__":
    main()
