"""Time and memory of the FALCON loss on a CPU, forward and backward, beside plain PyTorch.

    python benchmarks/loss.py                 the whole table, about 20 minutes on two cores
    python benchmarks/loss.py --quick         a few cells, about two minutes

Writes results/speed/loss_cpu.json and loss_cpu.md. Every cell (N, F, C, threads) runs in a fresh process in which
all contenders take turns, so that a ratio compares what ran side by side; peak memory is measured in a fresh process
for each contender. What cannot fit the memory or would take too long is skipped, and the table says so.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from typing import Any

import torch

from contenders import build, embeddings, tensors_of_n_times_c
from falcon_ssl.core.machine import available_memory
from record import arguments, machine, markdown, peak_bytes, write_record

CONTENDERS = (
    "published",
    "log_softmax",
    "compiled",
    "dense",
    "chunked",
    "chunked_bf16",
    "auto",
    "hadamard",
    "complete",
)
BASELINE = "log_softmax"
ROWS, WIDTHS = (64, 256, 1024), (128, 256, 384, 2048)
CODES = (1024, 16384, 131072, 524288, 1048576)
TARGETS = ((256, 256, 524288), (64, 2048, 16384))  # always measured, whatever they take
MEMORY_CELLS = tuple((256, 256, C) for C in CODES)
LONGEST_STEP = 2.0  # seconds, estimated; longer steps are skipped, except the targets
PRODUCTS = 2  # of 2N x F x C that all versions do: logits, and the gradient of the embeddings


def main() -> None:
    """Measure, write the record and the table."""
    parser = arguments(__doc__, "speed/loss_cpu")
    parser.add_argument("--quick", action="store_true", help="a few cells only: name another --out")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, os.cpu_count() or 1])
    parser.add_argument("--repeats", type=int, default=5, help="most steps that are timed")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(_work(json.loads(options.worker))))
        return
    started = time.time()
    rows = [
        _run(cell, options.repeats) for cell in _cells(options.quick, sorted(set(options.threads)))
    ]
    memory = [
        _run({"memory": name, "N": N, "F": F, "C": C, "threads": 1}, 1)
        for N, F, C in (MEMORY_CELLS[1:3] if options.quick else MEMORY_CELLS)
        for name in (BASELINE, "chunked", "chunked_bf16", "hadamard", "complete")
    ]
    record = {
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "seconds": round(time.time() - started),
        "rows": rows,
        "memory": memory,
        "environment": machine(),
    }
    write_record(options.out, record, table(record))


def _cells(quick: bool, threads: list[int]) -> list[dict[str, Any]]:
    sizes = [(N, F, C) for N in ROWS for F in WIDTHS for C in CODES]
    if quick:
        sizes = [(64, 128, 1024), (256, 256, 16384), *TARGETS[1:]]
    cells = [{"N": N, "F": F, "C": C, "threads": threads[0]} for N, F, C in sizes]
    if not quick:
        # More threads change ratios little: the targets and one row of the grid show how much.
        several = [*TARGETS, *((256, 128, C) for C in CODES)]
        cells += [
            {"N": N, "F": F, "C": C, "threads": t} for t in threads[1:] for N, F, C in several
        ]
    return cells


def _run(job: dict[str, Any], repeats: int) -> dict[str, Any]:
    """One fresh process."""
    job = {**job, "repeats": repeats}
    environment = {**os.environ, "OMP_NUM_THREADS": str(job["threads"])}
    command = [sys.executable, __file__, "--worker", json.dumps(job)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        outcome: dict[str, Any] = {"failed": (done.stderr.strip().splitlines() or ["killed"])[-1]}
    else:
        outcome = json.loads(done.stdout.splitlines()[-1])
    del job["repeats"]
    print(job, outcome, file=sys.stderr, flush=True)
    return {**job, **outcome}


def _work(job: dict[str, Any]) -> dict[str, Any]:
    torch.set_num_threads(job["threads"])
    return _measure_memory(job) if "memory" in job else _measure_times(job)


def _measure_memory(job: dict[str, Any]) -> dict[str, Any]:
    name, N, F, C = job["memory"], job["N"], job["F"], job["C"]
    if tensors_of_n_times_c(name) * 2 * N * C * 4 > 0.85 * available_memory():
        return {"skipped": "memory"}
    # Everything is loaded and warm before the first measurement, so that the difference is the loss.
    _step(build(name, width=F, num_codes=1024), *embeddings(name, 4, F))
    before = peak_bytes()
    _step(build(name, width=F, num_codes=C), *embeddings(name, N, F))
    return {
        "peak_mb": round((peak_bytes() - before) / 2**20, 1),
        "process_mb": round(peak_bytes() / 2**20),
    }


def _measure_times(job: dict[str, Any]) -> dict[str, Any]:
    N, F, C = job["N"], job["F"], job["C"]
    peak = _matmul_rate(N, F)
    outcome: dict[str, Any] = {
        "matmul_gflops": round(peak / 1e9, 1),
        "seconds": {},
        "skipped": {},
        "share": {},
    }
    flops = PRODUCTS * 2 * 2 * N * F * C
    steps, times = {}, {}
    for name in CONTENDERS:
        size = tensors_of_n_times_c(name) * 2 * N * C * 4 + (
            C * F * 4 if tensors_of_n_times_c(name) else 0
        )
        flop_factor = {"hadamard": min(1.0, 100 / F), "complete": 0.0}.get(name, 1.0)
        if size > 0.8 * available_memory():
            outcome["skipped"][name] = "memory"
        elif 3 * flops * flop_factor / peak > LONGEST_STEP and (N, F, C) not in TARGETS:
            outcome["skipped"][name] = "time"
        elif name == "compiled" and (C > 131072 or N > 256 or F > 256):
            outcome["skipped"][name] = "compile time"
        elif (N, F, C) in TARGETS and name in ("published", "compiled", "dense") and C > 131072:
            outcome["skipped"][name] = "time"
        else:
            steps[name] = (build(name, width=F, num_codes=C), *embeddings(name, N, F))
    steps = {name: step for name, step in steps.items() if step[0] is not None}
    for name in list(steps):
        try:
            times[name] = [_step(*steps[name])]  # warm-up, replaced below
        except Exception as error:  # a compiler may be missing
            outcome["skipped"][name] = f"failed: {type(error).__name__}"
            del steps[name]
    spent = {name: times[name][0] for name in steps}
    rounds = max(2, min(job["repeats"], int(12 / max(sum(spent.values()), 1e-9))))
    for name in steps:
        times[name] = []
    for _ in range(rounds):
        for name, step in steps.items():
            # Short steps repeat within a round: one call alone is mostly noise.
            inner = max(1, min(20, int(0.05 / spent[name])))
            times[name].append(sum(_step(*step) for _ in range(inner)) / inner)
    for name, taken in times.items():
        seconds = statistics.median(taken)
        outcome["seconds"][name] = round(seconds, 6)
        outcome["share"][name] = round(flops / seconds / peak, 3)
    return outcome


def _step(step: Any, u1: Any, u2: Any) -> float:
    """Seconds of forward and backward."""
    u1.grad = u2.grad = None
    start = time.perf_counter()
    step(u1, u2).backward()
    return time.perf_counter() - start


def _matmul_rate(N: int, F: int) -> float:
    """FLOP/s of float32 products of this shape, the best of several."""
    u, codes = torch.randn(2 * N, F), torch.randn(4096, F)
    best = math.inf
    for _ in range(10):
        start = time.perf_counter()
        u @ codes.T
        best = min(best, time.perf_counter() - start)
    return 2 * 2 * N * F * 4096 / best


def linear_fit(codes: list[int], seconds: list[float]) -> tuple[float, float]:
    """(seconds a million codes, largest relative deviation) of t = b C, weighted by 1/t."""
    weights = [1 / t for t in seconds]
    b = sum(w * C for w, C in zip(weights, codes, strict=True)) / sum(
        (w * C) ** 2 for w, C in zip(weights, codes, strict=True)
    )
    return b * 1e6, max(abs(b * C / t - 1) for C, t in zip(codes, seconds, strict=True))


def table(record: dict[str, Any]) -> str:
    """The record for people, in Markdown."""
    ran, rows, memory = record["environment"], record["rows"], record["memory"]
    measured = list(dict.fromkeys(row["memory"] for row in memory))
    peaks = {(row["memory"], row["C"]): row.get("peak_mb", "--") for row in memory}
    sizes = dict.fromkeys((row["N"], row["F"], row["C"]) for row in memory)
    lines = [
        "# FALCON loss on a CPU: forward and backward",
        "",
        f"{ran['device']}, {ran['cores']} cores, {record['instructions']}; torch {ran['torch']}, "
        f"Python {ran['python']}; {ran['date']}; {record['seconds']} s; `{' '.join(ran['command'])}`.",
        "",
        f"Milliseconds, and in brackets the ratio to {BASELINE} of the same process. `matmul`: measured float32 rate. "
        f"`share`: what auto would reach of it if the {PRODUCTS} products that no version can avoid were all it does. "
        "`--`: skipped (the JSON says why).",
        "",
        *markdown(
            ["threads", "N", "F", "C", *CONTENDERS, "matmul GF/s", "share"], map(_cells_of, rows)
        ),
        "",
        "## Peak memory of one step, in a fresh process (MB above the loaded library)",
        "",
        *markdown(
            ["N", "F", "C", *measured],
            ([*size, *(peaks[name, size[-1]] for name in measured)] for size in sizes),
        ),
        "",
        "## Growth with C",
        "",
    ]
    for N, F in dict.fromkeys((row["N"], row["F"]) for row in rows):
        points = [
            (row["C"], row["seconds"]["chunked"])
            for row in rows
            if (row["N"], row["F"], row["threads"]) == (N, F, 1)
            and "chunked" in row.get("seconds", {})
        ]
        if len(points) >= 3:
            slope, deviation = linear_fit(*(list(x) for x in zip(*points, strict=True)))
            lines.append(
                f"- N={N}, F={F}: chunked {slope:.3g} s a million codes, within {deviation:.0%} of a line"
            )
    return "\n".join(lines) + "\n"


def _cells_of(row: dict[str, Any]) -> list[object]:
    """A row of the first table: sizes, contenders, rates."""
    seconds = row.get("seconds", {})
    base = seconds.get(BASELINE)
    times = [
        f"{1e3 * seconds[name]:.3g}" + (f" ({seconds[name] / base:.2f})" if base else "")
        if name in seconds
        else "--"
        for name in CONTENDERS
    ]
    sizes = [row[name] for name in ("threads", "N", "F", "C")]
    return [*sizes, *times, row.get("matmul_gflops", "--"), row.get("share", {}).get("auto", "--")]


if __name__ == "__main__":
    main()
