"""What more views cost: a step of the FALCON loss, forward and backward, against the number of views V.

make bench-loss

One thread, float32, N = 64 samples, F = 128; medians of rounds in which both take turns. "pairs" is the average over
ordered pairs of views by the same back end: what the loss would cost if it were not linear in V.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import normalize

from falcon_ssl import CompleteDictionary, FalconLoss, HadamardDictionary, RademacherDictionary
from record import arguments, machine, markdown, write_record

ROWS, WIDTH, VIEWS = 64, 128, (2, 4, 8, 16)
LOSSES = {
    "Rademacher, C = 16384": FalconLoss(RademacherDictionary(16384, WIDTH)),
    "Hadamard, C = 16384": FalconLoss(HadamardDictionary(16384, WIDTH)),
    "all 2^128 codes": FalconLoss(CompleteDictionary(WIDTH)),
}


def step(loss: Callable[..., Tensor], u_VNF: Tensor) -> float:
    """Seconds of forward and backward."""
    views = [u_NF.clone().requires_grad_() for u_NF in u_VNF]
    started = time.perf_counter()
    loss(views).backward()
    return time.perf_counter() - started


def all_at_once(loss: FalconLoss) -> Callable[[list[Tensor]], Tensor]:
    """The loss of V views."""
    return lambda views: loss(*views).total


def pair_by_pair(loss: FalconLoss) -> Callable[[list[Tensor]], Tensor]:
    """The same by the symmetric loss of every pair."""

    def total(views: list[Tensor]) -> Tensor:
        pairs = [(a, b) for i, a in enumerate(views) for b in views[:i]]
        return torch.stack([loss(a, b).total for a, b in pairs]).mean()

    return total


def main() -> None:
    """Measure, print and write the table."""
    parser = arguments(__doc__, "speed/many_views")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name, loss in LOSSES.items():
        contenders = {"all at once": all_at_once(loss), "pairs": pair_by_pair(loss)}
        for V in VIEWS:
            u_VNF = normalize(torch.randn(V, ROWS, WIDTH), dim=2)
            seconds: dict[str, list[float]] = {way: [] for way in contenders}
            for _ in range(1 + options.rounds):
                for way, contender in contenders.items():
                    seconds[way].append(step(contender, u_VNF))
            ours, pairs = (1000 * statistics.median(s[1:]) for s in seconds.values())
            rows.append({"loss": name, "V": V, "milliseconds": ours, "pairs_milliseconds": pairs})
    first = {row["loss"]: row["milliseconds"] / 2 for row in rows if row["V"] == 2}
    header = ("loss", "V", "ms", "per view, against V = 2", "pair by pair, ms")
    table = markdown(
        header,
        [
            (
                row["loss"],
                row["V"],
                f"{row['milliseconds']:.1f}",
                f"{row['milliseconds'] / row['V'] / first[row['loss']]:.2f}",
                f"{row['pairs_milliseconds']:.1f}",
            )
            for row in rows
        ],
    )
    write_record(options.out, {"rows": rows, "environment": machine()}, "\n".join(table) + "\n")


if __name__ == "__main__":
    main()
