"""What more views cost: a step of the FALCON loss, forward and backward, against the number of views V.

make bench-loss

One thread, its CPU time, float32, N = 64 samples, F = 128; medians of rounds in which both take turns. "pairs" is the
average over ordered pairs of views by the same back end: what the loss would cost if it were not linear in V.

The second table is the complete dictionary by places, one marginal of both views, at 96 images of 2 views of 4 places
and F = 512: exact, and by three products in float32 and bfloat16.
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
    started = time.process_time()
    loss(views).backward()
    return time.process_time() - started


def all_at_once(loss: FalconLoss) -> Callable[[list[Tensor]], Tensor]:
    """The loss of V views."""
    return lambda views: loss(*views).total


def pair_by_pair(loss: FalconLoss) -> Callable[[list[Tensor]], Tensor]:
    """The same by the symmetric loss of every pair."""

    def total(views: list[Tensor]) -> Tensor:
        pairs = [(a, b) for i, a in enumerate(views) for b in views[:i]]
        return torch.stack([loss(a, b).total for a, b in pairs]).mean()

    return total


def places(rounds: int) -> list[dict[str, object]]:
    """Milliseconds by places, at the size that the speed run began with."""
    u_VNSF = normalize(torch.randn(2, 96, 4, 512), dim=3)
    rows: list[dict[str, object]] = []
    for order, dtype in ((None, torch.float32), (3, torch.float32), (3, torch.bfloat16)):
        loss = FalconLoss(
            CompleteDictionary(512, kernel_order=order), temperature=0.25, marginal="pooled"
        )
        seconds = [step(all_at_once(loss), u_VNSF.to(dtype)) for _ in range(1 + rounds)]
        kernel = "exact" if order is None else f"order {order}"
        kind = str(dtype).removeprefix("torch.")
        milliseconds = 1000 * statistics.median(seconds[1:])
        rows.append({"kernel": kernel, "dtype": kind, "milliseconds": milliseconds})
    return rows


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
    by_place = places(options.rounds)
    table += [
        "",
        *markdown(
            ("kernel, 768 rows, F = 512", "embeddings", "ms"),
            [(row["kernel"], row["dtype"], f"{row['milliseconds']:.1f}") for row in by_place],
        ),
    ]
    record = {"rows": rows, "places": by_place, "environment": machine()}
    write_record(options.out, record, "\n".join(table) + "\n")


if __name__ == "__main__":
    main()
