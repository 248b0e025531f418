"""Time and memory of the FALCON loss on a GPU, forward and backward, and a roofline; every kernel of it; its errors.

    python benchmarks/loss_cuda.py                                  one NVIDIA GPU, less than five minutes
    python benchmarks/loss_cuda.py --device cpu --out /tmp/dry      a dry run of small sizes, whose times mean nothing

Writes results/speed/loss_cuda.json and loss_cuda.md. Median of several runs timed by CUDA events; a unit is one
product of both views, 2 * 2N * F * C FLOP, at the measured matmul rate of the same precision. On a CPU the kernels run
in Triton's interpreter.
"""

from __future__ import annotations

import os
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

from contenders import EPSILON, build, embeddings, tensors_of_n_times_c
from falcon_ssl import RademacherDictionary, falcon_loss, logit_scale
from record import arguments, machine, markdown, write_record
from timeline import Timeline

CELLS = {
    "cuda": ((256, 256, 16384), (1024, 384, 131072), (1024, 384, 524288), (1024, 384, 1048576)),
    "cpu": ((32, 32, 256),),
}
PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
ENTRIES = ("precision", "N", "F", "C", "tflops", "unit_ms", "ms", "peak_mb", "skipped")  # of a row
CONTENDERS = ("log_softmax", "compiled", "chunked", "triton", "complete")
KERNEL_CELL = {"cuda": (1024, 384, 524288), "cpu": (8, 32, 256)}
ERROR_CELL = {"cuda": (64, 128, 5000), "cpu": (8, 32, 256)}
OF_KERNELS = {  # how embeddings are multiplied: (their precision, the contender, products that make one)
    "bf16": ("bf16", "triton", 1),
    "fp16": ("fp16", "triton", 1),
    "bf16x3": ("fp32", "triton", 3),
    "tf32": ("fp32", "triton_tf32", 1),
    "ieee": ("fp32", "triton_ieee", 1),
}
UNITS = {  # products of both views
    "row_sums_kernel": 1,
    "column_sums_kernel": 1,
    "row_terms_kernel": 1,
    "gradient_kernel": 1,
    "fused_gradient_kernel": 2,
}


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
    kernels, errors = [], []
    for name in OF_KERNELS:
        kernels += _or_skipped(kernel_rows, name, options.repeats, options.device)
        errors += _or_skipped(error_rows, name, options.repeats, options.device)
    record = {
        "cuda": torch.version.cuda,
        "rows": rows,
        "device": options.device,
        "kernels": kernels,
        "errors": errors,
        "environment": machine(options.device),
    }
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


def _or_skipped(
    measure: Callable[[str, int, torch.device], list[dict[str, Any]]],
    name: str,
    repeats: int,
    device: str,
) -> list[dict[str, Any]]:
    try:
        found = measure(name, repeats, torch.device(device))
    except Exception as error:  # one precision that a GPU lacks must not cost the others
        found = [{"products": name, "skipped": f"{type(error).__name__}: {error}".splitlines()[0]}]
    print(found, file=sys.stderr, flush=True)
    return found


class _Marked:
    """A kernel with a mark before and after every launch."""

    def __init__(self, name: str, kernel: Any, timeline: Timeline) -> None:
        self.name, self.kernel, self.timeline = name, kernel, timeline

    def __getitem__(self, grid: Any) -> Callable[..., None]:
        def launch(*args: Any, **options: Any) -> None:
            self.timeline.mark("torch")
            self.kernel[grid](*args, **options)
            self.timeline.mark(self.name)

        return launch


@contextmanager
def _marked_kernels(timeline: Timeline) -> Iterator[dict[str, Any]]:
    """All kernels marked in ``timeline``; the kernels themselves."""
    from falcon_ssl.losses.falcon import triton

    plain = {name: getattr(triton, name) for name in UNITS}
    for name, kernel in plain.items():
        setattr(triton, name, _Marked(name, kernel, timeline))
    try:
        yield plain
    finally:
        for name, kernel in plain.items():
            setattr(triton, name, kernel)


def kernel_rows(name: str, repeats: int, device: torch.device) -> list[dict[str, Any]]:
    """Milliseconds of every kernel, its share of the matmul rate, and the tile that was found fastest."""
    precision, contender, products = OF_KERNELS[name]
    N, F, C = KERNEL_CELL[device.type]
    rate = _matmul_rate("bf16" if name == "bf16x3" else name, N, F, device) / products
    step = build(contender, width=F, num_codes=C, device=device.type)
    assert step is not None
    u1, u2 = embeddings(f"x_{precision}", N, F, device=device.type)
    timeline, taken = Timeline(device), defaultdict(list)
    with _marked_kernels(timeline) as kernels:
        for k in range(repeats + 1):  # the first one compiles, and looks for tiles
            timeline.start()
            step(u1, u2).backward()
            timeline.mark("torch")
            for part, spent in timeline.parts().items() if k else ():
                taken[part].append(1e3 * spent.wall)
    unit_ms = 1e3 * 2 * 2 * N * F * C / rate
    rows = []
    for part, values in taken.items():
        ms = statistics.median(values)
        found = getattr(kernels.get(part), "best_config", None)
        share = UNITS[part] * unit_ms / ms if part in UNITS else None
        tile = {**found.kwargs, "warps": found.num_warps} if found else {}
        rows.append({"products": name, "part": part, "ms": ms, "share": share, "tile": tile})
    return rows


def error_rows(name: str, _: int, device: torch.device) -> list[dict[str, Any]]:
    """Relative errors of loss and gradient against float64."""
    precision, contender, _ = OF_KERNELS[name]
    N, F, C = ERROR_CELL[device.type]
    views = [u.detach() for u in embeddings(f"x_{precision}", N, F, device=device.type)]
    options = {"logit_scale": logit_scale(C, EPSILON)}
    product = contender.partition("_")[2] or "bf16x3"

    def value_and_gradient(views: list[Tensor], **more: Any) -> Tensor:
        inputs = [view.clone().requires_grad_() for view in views]
        total = falcon_loss(inputs, RademacherDictionary(C, F), **options, **more).total
        total.backward()
        return torch.cat(
            [total.detach()[None].double(), *(u.grad.double().flatten() for u in inputs)]
        )

    found = value_and_gradient(views, backend="triton", input_precision=product)
    truth = value_and_gradient([view.double() for view in views], backend="chunked")
    off = (found - truth).abs()
    return [
        {
            "products": name,
            "loss": float(off[0] / truth[0].abs()),
            "gradient": float(off[1:].max() / truth[1:].abs().max()),
        }
    ]


def _matmul_rate(precision: str, N: int, F: int, device: torch.device) -> float:
    """FLOP/s of products of this shape and precision."""
    num_codes = 65536 if device.type == "cuda" else 256
    u, codes = (
        torch.randn(n, F, device=device).to(PRECISIONS.get(precision, torch.float32))
        for n in (2 * N, num_codes)
    )
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    for _ in range(3):
        u @ codes.T
    timeline = Timeline(device)
    timeline.start()
    for _ in range(20):
        u @ codes.T
    timeline.mark("products")
    torch.backends.cuda.matmul.allow_tf32 = False
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
        *tables_of_kernels(record["kernels"], record["errors"], device=record["device"]),
    ]
    return "\n".join(lines) + "\n"


def tables_of_kernels(
    kernels: list[dict[str, Any]], errors: list[dict[str, Any]], *, device: str
) -> list[str]:
    """Two tables of what `kernel_rows` and `error_rows` found."""
    return [
        "",
        f"Kernels at N, F, C = {KERNEL_CELL[device]}: milliseconds, and their part of the rate of torch's product (of "
        "three bfloat16 products for bf16x3).",
        "",
        *markdown(
            ["products", "part", "ms", "of the rate", "tile"],
            [
                [
                    row["products"],
                    row["part"],
                    f"{row['ms']:.3f}",
                    _percent(row["share"]),
                    " ".join(f"{name} {size}" for name, size in row["tile"].items()),
                ]
                for row in kernels
                if "ms" in row
            ],
        ),
        "",
        f"Relative errors against float64 at N, F, C = {ERROR_CELL[device]}.",
        "",
        *markdown(
            ["products", "loss", "gradient"],
            [
                [row["products"], f"{row['loss']:.1e}", f"{row['gradient']:.1e}"]
                for row in errors
                if "loss" in row
            ],
        ),
    ]


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.0%}"


if __name__ == "__main__":
    main()
