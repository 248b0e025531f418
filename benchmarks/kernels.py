"""Registers, spills, shared memory and tensor-core instructions of every Triton kernel, compiled ahead of time.

    python benchmarks/kernels.py            no GPU needed; half an hour on one core, a minute once Triton has cached it
    python benchmarks/kernels.py --quick    the first tile of every kernel, bf16 on sm_90 and fp32 on sm_80

Writes results/speed/kernels.json and kernels.md; exits with 1 where a kernel exceeds `LIMITS` or does without tensor
cores. Triton brings NVIDIA's assembler, so what is counted is what would run.
"""

from __future__ import annotations

import os

os.environ["TRITON_INTERPRET"] = "0"  # kernels are to be compiled, whoever starts this

import functools
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from falcon_ssl.losses.falcon import triton_kernels
from falcon_ssl.losses.falcon.triton_tiles import Tile, tiles
from record import arguments, machine, markdown, write_record


class Limits(NamedTuple):
    """What a kernel may use: registers of a thread, bytes of stack (where spills go), bytes of shared memory."""

    registers: int
    spilled: int
    shared: int


LIMITS = {80: Limits(255, 0, 163 * 1024), 90: Limits(255, 0, 227 * 1024)}  # A100, H100
# The least of all since Ampere: the first tile of every list runs anywhere.
SHARED_OF_FIRST = 99 * 1024
CORES = {80: r"mma\.sync", 90: r"mma\.sync|wgmma\.mma_async"}
PRECISIONS = {  # name: (dtype of embeddings, PRECISION)
    "bf16": ("bf16", "bf16x1"),
    "fp16": ("fp16", "bf16x2"),
    "fp32 bf16x3": ("fp32", "bf16x3"),
    "fp32 tf32": ("fp32", "tf32"),
    "fp32 ieee": ("fp32", "ieee"),
}

QUICK = {80: "fp32 bf16x3", 90: "bf16"}
ODD = ("bf16", "fp32 bf16x3")  # also compiled for sizes that do not divide by 16


def _views(V: int, K: int) -> dict[str, int]:
    return {"VIEWS": V, "TARGETS": K, "PLACES": 1, "PER_MARGINAL": 1}


def _fused(chunks: int, chunk: int) -> dict[str, int]:
    return {"TARGETS": 2, "PER_MARGINAL": 1, "CHUNKS": chunks, "CHUNK": chunk}


WIDTHS = {"fused_gradient, F = 256": 256, "fused_gradient, F = 512": 512}
KERNELS: dict[
    str, tuple[str, str, dict[str, int]]
] = {  # name: (function, its tiles, its constants)
    "row_sums": ("row_sums_kernel", "sums", {}),
    "column_sums": ("column_sums_kernel", "sums", {}),
    "row_terms, 2 views": ("row_terms_kernel", "row_terms", {**_views(2, 2), "PADDED": 2}),
    "row_terms, 5 views": ("row_terms_kernel", "row_terms", {**_views(5, 2), "PADDED": 2}),
    "gradient, 2 views": ("gradient_kernel", "gradient", _views(2, 2)),
    "gradient, 5 views": ("gradient_kernel", "gradient", _views(5, 2)),
    "fused_gradient, F = 256": ("fused_gradient_kernel", "fused_gradient", _fused(2, 128)),
    "fused_gradient, F = 512": ("fused_gradient_kernel", "fused_gradient", _fused(4, 128)),
}
FLOATS = {"scale", "b", "b_ln2", "least"}


def main() -> None:
    """Compile, write the record and the table, and say what exceeds the limits."""
    parser = arguments(__doc__, "speed/kernels")
    parser.add_argument("--quick", action="store_true", help="a part of it: name another --out")
    parser.add_argument("--only", default="", help="kernels and precisions whose names hold this")
    options = parser.parse_args()
    rows = []
    for kernel, precision, tile, target, width in _cases(quick=options.quick):
        if options.only in f"{kernel} {precision}":
            rows.append(compiled(kernel, precision, tile, target, odd=width == "odd"))
            print(rows[-1], file=sys.stderr, flush=True)
    record = {
        "triton": triton.__version__,
        "limits": LIMITS,
        "rows": rows,
        "environment": machine(),
    }
    write_record(options.out, record, table(record))
    wrong = [line for row in rows for line in problems(row)]
    sys.exit("\n".join(wrong) or 0)


def _cases(*, quick: bool) -> Iterator[tuple[str, str, Tile, int, str]]:
    for kernel in KERNELS:
        for precision in PRECISIONS:
            for number, tile in enumerate(tiles_of(kernel, precision)):
                for target in LIMITS:
                    if not quick or (number == 0 and QUICK.get(target) == precision):
                        yield kernel, precision, tile, target, "even"
                    if number == 0 and precision in ODD and not quick:
                        yield kernel, precision, tile, target, "odd"


def tiles_of(kernel: str, precision: str) -> tuple[Tile, ...]:
    """Those that a kernel may take; float16 differs from bfloat16 in the adjoint product alone."""
    found = tiles(KERNELS[kernel][1], PRECISIONS[precision][1], WIDTHS.get(kernel, 512))
    return found if "fused" in kernel or precision != "fp16" else found[:1]


def compiled(
    kernel: str, precision: str, tile: Tile, target: int, *, odd: bool = False
) -> dict[str, Any]:
    """One row: what a kernel takes of an NVIDIA GPU of compute capability ``target`` / 10.

    Args:
        kernel: A name of `KERNELS`.
        precision: A name of `PRECISIONS`.
        tile: Its size and warps.
        target: 80 or 90.
        odd: Sizes do not divide by 16, so nothing is read as a vector.
    """
    dtype, product = PRECISIONS[precision]
    name, _, constants = KERNELS[kernel]
    function = getattr(triton_kernels, name).fn
    config = tile.config()
    constants = {**constants, **config.kwargs, "PRECISION": product}
    signature = {arg: _type(arg, dtype, constants) for arg in function.arg_names}
    divides = [["tt.divisibility", 16]]
    attributes = {
        (k,): divides
        for k, (arg, kind_of_arg) in enumerate(signature.items())
        if kind_of_arg.startswith("*") or (kind_of_arg == "i32" and not odd)
    }
    source = ASTSource(function, signature, constexprs=constants, attrs=attributes)
    made = triton.compile(
        source, target=GPUTarget("cuda", target, 32), options={"num_warps": tile.warps}
    )
    used = _resources(made.asm["cubin"])
    return {
        "kernel": kernel,
        "precision": precision,
        "tile": tile._asdict(),
        "is_first": tile == tiles_of(kernel, precision)[0],
        "target": target,
        "width": "odd" if odd else "even",
        "registers": used["REG"],
        "spilled": used["STACK"] + used["LOCAL"],
        "shared": made.metadata.shared,
        "tensor_core_instructions": len(re.findall(CORES[target], made.asm["ptx"])),
    }


def _type(arg: str, dtype: str, constants: dict[str, Any]) -> str:
    if arg in constants:
        return "constexpr"
    if arg.endswith("_ptr"):
        return {"u_ptr": f"*{dtype}", "bits_ptr": "*u8"}.get(arg, "*fp32")
    return "fp32" if arg in FLOATS else "i32"


def _resources(cubin: bytes) -> dict[str, int]:
    """REG, STACK and so on of the one function of a binary."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        said = subprocess.run(
            [_cuobjdump(), "--dump-resource-usage", file.name],
            capture_output=True,
            text=True,
            check=True,
        )
    return {name: int(number) for name, number in re.findall(r"(\w+):(\d+)", said.stdout)}


@functools.cache
def _cuobjdump() -> str:
    return str(Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump")


def problems(row: dict[str, Any]) -> list[str]:
    """What a row exceeds, a line each."""
    limits = LIMITS[row["target"]]
    most = {**limits._asdict(), "shared": SHARED_OF_FIRST if row["is_first"] else limits.shared}
    where = f"{row['kernel']}, {row['precision']}, sm_{row['target']}, {row['width']} width, {row['tile']}"
    found = [
        f"{where}: {name} {row[name]}, at most {limit}"
        for name, limit in most.items()
        if row[name] > limit
    ]
    if (row["precision"] != "fp32 ieee") != (row["tensor_core_instructions"] > 0):
        found.append(f"{where}: {row['tensor_core_instructions']} tensor-core instructions")
    return found


def table(record: dict[str, Any]) -> str:
    """The record for people, in Markdown: of every kernel and precision the most over tiles and widths."""
    lines = [
        "# Triton kernels, compiled ahead of time",
        "",
        f"Triton {record['triton']}; {record['environment']['date']}; "
        f"`{' '.join(record['environment']['command'])}`. No GPU.",
        "",
        "Registers of a thread / bytes spilled / KB of shared memory, the most over tiles and over widths that divide",
        "by 16 or do not; then tensor-core instructions, the fewest. Limits: "
        + "; ".join(
            f"sm_{target} {most.registers} / {most.spilled} / {most.shared // 1024}"
            for target, most in LIMITS.items()
        )
        + ".",
        "",
    ]
    by_cell: dict[tuple[str, str], dict[int, list[dict[str, Any]]]] = {}
    for row in record["rows"]:
        cell = by_cell.setdefault((row["kernel"], row["precision"]), {})
        cell.setdefault(row["target"], []).append(row)
    cells = [
        [*names, sum(map(len, of.values())), *(_cell(of.get(target, [])) for target in LIMITS)]
        for names, of in by_cell.items()
    ]
    header = ["kernel", "embeddings", "compiled", *(f"sm_{target}" for target in LIMITS)]
    return "\n".join([*lines, *markdown(header, cells)]) + "\n"


def _cell(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return "--"
    most = {name: max(row[name] for row in rows) for name in ("registers", "spilled", "shared")}
    fewest = min(row["tensor_core_instructions"] for row in rows)
    return f"{most['registers']} / {most['spilled']} / {most['shared'] / 1024:.0f}, {fewest}"


if __name__ == "__main__":
    main()
