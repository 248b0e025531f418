"""Time and memory of the FALCON loss on a GPU, forward and backward, and a roofline.

    python benchmarks/loss_cuda.py                                  one NVIDIA GPU, about three minutes
    python benchmarks/loss_cuda.py --device cpu --out /tmp/dry      a dry run of small sizes, whose times mean nothing

Writes results/speed/loss_cuda.json and loss_cuda.md. Median of several runs timed by CUDA events; a unit is one
product of both views, 2 * 2N * F * C FLOP, at the measured matmul rate of the same precision.
"""

from __future__ import annotations

import statistics
import sys
from typing import Any

import torch

from contenders import build, embeddings, tensors_of_n_times_c
from record import arguments, machine, markdown, write_record
from timeline import Timeline

CELLS = {
    "cuda": ((256, 256, 16384), (1024, 384, 131072), (1024, 384, 524288), (1024, 384, 1048576)),
    "cpu": ((32, 32, 256),),
}
PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
ENTRIES = ("precision", "N", "F", "C", "tflops", "unit_ms", "ms", "peak_mb", "skipped")  # of a row
CONTENDERS = ("log_softmax", "compiled", "chunked", "triton", "complete")


def main() -> None:
    """Measure, write the record and the table."""
    parser = arguments(__doc__, "speed/loss_cuda")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--repeats", type=int, default=10)
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit("loss_cuda.py needs an NVIDIA GPU: torch.cuda.is_available() is False")
    rows = [
        measure(precision, N, F, C, options.repeats, torch.device(options.device))
        for N, F, C in CELLS[options.device]
        for precision in PRECISIONS
    ]
    record = {"cuda": torch.version.cuda, "rows": rows, "environment": machine(options.device)}
    write_record(options.out, record, table(record))


def measure(
    precision: str, N: int, F: int, C: int, repeats: int, device: torch.device
) -> dict[str, Any]:
    """One row: every contender at one size and precision."""
    rate = _matmul_rate(precision, N, F, device)
    row: dict[str, Any] = {"precision": precision, "N": N, "F": F, "C": C, "tflops": rate / 1e12}
    row["unit_ms"] = 1e3 * 2 * 2 * N * F * C / rate
    row["ms"], row["peak_mb"], row["skipped"] = {}, {}, {}
    for name in CONTENDERS:
        needed = tensors_of_n_times_c(name) * 2 * N * C * 4
        if device.type == "cuda" and needed > 0.9 * torch.cuda.mem_get_info()[0]:
            row["skipped"][name] = "memory"
            continue
        try:
            row["ms"][name], row["peak_mb"][name] = _time(name, precision, N, F, C, repeats, device)
        except Exception as error:  # triton or a compiler may be missing
            row["skipped"][name] = f"{type(error).__name__}: {error}".splitlines()[0]
        if device.type == "cuda":
            torch.cuda.empty_cache()
    print(row, file=sys.stderr, flush=True)
    return row


def _time(
    name: str, precision: str, N: int, F: int, C: int, repeats: int, device: torch.device
) -> tuple[float, float]:
    """(median milliseconds, peak megabytes above what the inputs take, which a CPU does not tell)."""
    step = build(name, width=F, num_codes=C, device=device.type)
    assert step is not None
    u1, u2 = embeddings(f"x_{precision}", N, F, device=device.type)
    timeline, taken, before = Timeline(device), [], 0
    for k in range(repeats + 3):
        u1.grad = u2.grad = None
        if k == 3 and device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
        timeline.start()
        step(u1, u2).backward()
        timeline.mark("step")
        if k >= 3:
            taken.append(1e3 * timeline.parts()["step"].wall)
    peak = torch.cuda.max_memory_allocated() - before if device.type == "cuda" else 0
    return statistics.median(taken), peak / 2**20


def _matmul_rate(precision: str, N: int, F: int, device: torch.device) -> float:
    """FLOP/s of products of this shape and precision."""
    num_codes = 65536 if device.type == "cuda" else 256
    u, codes = (
        torch.randn(n, F, device=device).to(PRECISIONS[precision]) for n in (2 * N, num_codes)
    )
    for _ in range(3):
        u @ codes.T
    timeline = Timeline(device)
    timeline.start()
    for _ in range(20):
        u @ codes.T
    timeline.mark("products")
    return 20 * 2 * 2 * N * F * num_codes / timeline.parts()["products"].wall


def table(record: dict[str, Any]) -> str:
    """The record for people, in Markdown."""
    ran = record["environment"]
    rows = [
        [row[name] for name in ("precision", "N", "F", "C")]
        + [f"{row['tflops']:.0f}"]
        + [
            f"{row['ms'][name]:.2f} ({row['ms'][name] / row['unit_ms']:.1f}), {row['peak_mb'][name]:.0f} MB"
            if name in row["ms"]
            else "--"
            for name in CONTENDERS
        ]
        for row in record["rows"]
    ]
    lines = [
        "# FALCON loss on a GPU: forward and backward",
        "",
        f"{ran['device']}; torch {ran['torch']}, CUDA {record['cuda']}; {ran['date']}; `{' '.join(ran['command'])}`.",
        "",
        "Milliseconds, in brackets units of 2 * 2N * F * C FLOP at the measured matmul rate, then peak MB.",
        "",
        *markdown(["precision", "N", "F", "C", "matmul TF/s", *CONTENDERS], rows),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
