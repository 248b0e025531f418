"""Which tiles and warps the Triton kernels may take: a few of each kind, the fastest of which is found where they run.

None of them spills registers, and the first of each list fits every NVIDIA GPU since Ampere (99 KB of shared memory):
`benchmarks/kernels.py` compiles them all ahead of time and tabulates registers, spills and shared memory.
"""

# Triton's language is not typed.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import triton

# As Triton itself decides, when a kernel is defined.
IS_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
LARGEST_CODES = 128  # of any tile; splits of the codes are multiples of it


class Tile(NamedTuple):
    """What a program computes at a time.

    Args:
        rows: Of embeddings.
        codes: Of the dictionary.
        features: Of both that are multiplied in one go.
        warps: Of 32 threads each.
    """

    rows: int
    codes: int
    features: int
    warps: int

    def config(self) -> Any:
        """As Triton takes it."""
        names = {"ROWS": self.rows, "CODES": self.codes, "FEATURES": self.features}
        return triton.Config(names, num_warps=self.warps)


_HALF = (Tile(64, 64, 64, 8), Tile(64, 128, 64, 8))
# Products without tensor cores are unrolled, and spill, beyond this.
_SHORT = (Tile(64, 64, 16, 8),)
_FLOAT = (Tile(64, 64, 32, 8), *_SHORT)
_ALL = {"half": _HALF, "bf16x3": _FLOAT, "tf32": _FLOAT, "ieee": _SHORT}
TILES: dict[str, dict[str, tuple[Tile, ...]]] = {
    "sums": {**_ALL, "half": (*_HALF, Tile(128, 128, 64, 8))},
    "row_terms": {**_ALL, "tf32": _SHORT},
    "gradient": {**_ALL, "bf16x3": _SHORT},
    "fused_gradient": {  # half of the registers hold its sums
        "half": (Tile(32, 32, 64, 8), Tile(32, 64, 64, 8)),
        "bf16x3": (Tile(32, 32, 32, 8),),
        "tf32": (Tile(32, 32, 32, 8),),
        "ieee": (Tile(16, 16, 16, 8),),
    },
    "fused_gradient, F <= 256": {
        "bf16x1": (Tile(32, 64, 64, 8), Tile(64, 32, 64, 8)),
        "bf16x2": (Tile(32, 64, 64, 8),),
        "bf16x3": (Tile(32, 32, 32, 8), Tile(32, 64, 32, 8)),
        "tf32": (Tile(32, 32, 32, 8), Tile(32, 64, 32, 8)),
    },
}


def tiles(kernel: str, precision: str, width: int) -> tuple[Tile, ...]:
    """Those of a kernel, for PRECISION as the kernels take it and F features."""
    narrow = TILES.get(f"{kernel}, F <= 256", {}) if width <= 256 else {}
    key = "half" if precision in ("bf16x1", "bf16x2") else precision
    return narrow.get(precision, TILES[kernel][key])


def tuned(kernel: str) -> Callable[[Any], Any]:
    """A decorator: the fastest of `tiles` for each width, precision and number of views, timed once a process.

    With `torch.use_deterministic_algorithms(True)`, and in the interpreter, it is the first one: another tile adds up
    in another order.
    """
    lists = [of for name, of in TILES.items() if name.startswith(kernel)]
    configs = {tile: tile.config() for of in lists for some in of.values() for tile in some}

    def allowed(_: object, arguments: dict[str, Any], **options: Any) -> list[Any]:
        fitting = [configs[tile] for tile in tiles(kernel, options["PRECISION"], arguments["F"])]
        return fitting[:1] if torch.are_deterministic_algorithms_enabled() else fitting

    def decorate(function: Any) -> Any:
        names = [name for name in ("F", "PRECISION", "VIEWS") if name in function.arg_names]
        return triton.autotune(
            configs=[*configs.values()][: 1 if IS_INTERPRETED else None],
            key=names,
            prune_configs_by={"early_config_prune": allowed},
        )(function)

    return decorate
