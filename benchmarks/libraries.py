"""Losses of other methods, ours beside lightly's at the same sizes: forward and backward to the embeddings.

    python benchmarks/libraries.py

Needs no data: embeddings are random. tests/losses/test_witness.py holds that both give the same numbers. Both take a
step a round, in turn; time is that of the processor in one thread, which other work on the machine stretches less than
the clock, and a ratio is the median of the ratios within the rounds. The peak is of one step in a process of its own
(forked, so on Linux), beyond what was there before.
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from falcon_ssl.core.machine import peak_memory
from falcon_ssl.losses import (
    barlow_twins_loss,
    byol_loss,
    dino_loss,
    lejepa_loss,
    random_directions,
    simclr_loss,
    swav_loss,
    updated_center,
    vicreg_loss,
)
from falcon_ssl.networks.timm import import_beside_torchvision
from record import arguments, command, machine, markdown, write_record

Step = Callable[[], Tensor]
SIZES = {  # rows and width of the embeddings, or number of prototypes
    "barlow_twins": (256, 2048),
    "vicreg": (256, 2048),
    "simclr": (512, 128),
    "byol": (512, 256),
    "lejepa": (256, 512),
    "swav": (256, 4096),
    "dino": (256, 4096),
}


def inputs(rows: int, width: int, count: int) -> list[Tensor]:
    """Random embeddings that want a gradient."""
    generator = torch.Generator().manual_seed(0)
    views = [torch.randn(rows, width, generator=generator) for _ in range(count)]
    return [view.requires_grad_() for view in views]


def steps(method: str, rows: int, width: int) -> dict[str, Step]:
    """The loss of both libraries as a function of nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the packages that it imports
        lightly = import_beside_torchvision("lightly.loss")
    if method == "barlow_twins":
        a, b = inputs(rows, width, 2)
        theirs = lightly.BarlowTwinsLoss()
        return {"lightly": lambda: theirs(a, b), "ours": lambda: barlow_twins_loss(a, b).total}
    if method == "vicreg":
        a, b = inputs(rows, width, 2)
        theirs = lightly.VICRegLoss()
        return {"lightly": lambda: theirs(a, b), "ours": lambda: vicreg_loss(a, b).total}
    if method == "simclr":
        a, b = inputs(rows, width, 2)
        theirs = lightly.NTXentLoss()
        unit = [normalize(view.detach(), dim=1).requires_grad_() for view in (a, b)]
        return {"lightly": lambda: theirs(*unit), "ours": lambda: simclr_loss(*unit).total}
    if method == "byol":
        p1, p2, z1, z2 = inputs(rows, width, 4)
        targets = z1.detach(), z2.detach()
        theirs = lightly.NegativeCosineSimilarity()
        return {
            "lightly": lambda: theirs(p1, targets[1]) + theirs(p2, targets[0]),
            "ours": lambda: byol_loss(p1, p2, *targets).total,
        }
    if method == "lejepa":
        views = inputs(rows, width, 4)
        theirs = lightly.LeJEPALoss(sigreg_knots=9, sigreg_t_max=5.0, sigreg_num_vectors=256)
        return {
            "lightly": lambda: theirs(
                local_proj=torch.stack(views)[2:], global_proj=torch.stack(views[:2])
            ),
            "ours": lambda: (
                lejepa_loss(views, random_directions(256, width, seed=0), num_points=9).total
            ),
        }
    if method == "swav":
        scores = [view.detach().tanh().requires_grad_() for view in inputs(rows, width, 2)]
        theirs = lightly.SwaVLoss()
        return {"lightly": lambda: theirs(scores, []), "ours": lambda: swav_loss(scores).total}
    student, teacher = inputs(rows, width, 2), [v.detach() for v in inputs(rows, width, 2)]
    theirs, state = lightly.DINOLoss(output_dim=width), {"center": torch.zeros(width)}

    def ours() -> Tensor:
        loss = dino_loss(student, teacher, state["center"]).total
        state["center"] = updated_center(state["center"], teacher)  # as lightly's does in its call
        return loss

    return {"lightly": lambda: theirs(teacher, student, teacher_temp=0.04), "ours": ours}


def seconds(step: Step) -> float:
    """Processor time of one step, forward and backward."""
    start = time.process_time()
    step().backward()
    return time.process_time() - start


def measure(method: str, rounds: int) -> dict[str, Any]:
    """Milliseconds of both, and their ratio."""
    both = steps(method, *SIZES[method])
    for step in both.values():
        step().backward()
    times: dict[str, list[float]] = {name: [] for name in both}
    for _ in range(rounds):
        for name, step in both.items():
            times[name].append(seconds(step))
    pairs = zip(times["ours"], times["lightly"], strict=True)
    return {
        "method": method,
        "rows": SIZES[method][0],
        "width": SIZES[method][1],
        **{f"{name}_ms": round(1e3 * statistics.median(all_), 3) for name, all_ in times.items()},
        "ratio": round(statistics.median(mine / other for mine, other in pairs), 3),
    }


def peak(method: str, library: str) -> float:
    """MiB that a first step takes beyond what is there before; a forked process counts its own."""
    forked = multiprocessing.get_context("fork")
    here, there = forked.Pipe(duplex=False)

    def measured() -> None:
        step = steps(method, *SIZES[method])[library]
        before = peak_memory()
        step().backward()
        there.send((peak_memory() - before) / 2**20)

    process = forked.Process(target=measured)
    process.start()
    found: float = here.recv()
    process.join()
    return found


def main() -> None:
    """Measure, print, write."""
    parser = arguments(__doc__, "speed/libraries")
    parser.add_argument("--rounds", type=int, default=31)
    options = parser.parse_args()
    torch.set_num_threads(1)
    peaks = {  # first: what was once used stays with a process
        method: {f"{name}_mib": round(peak(method, name), 1) for name in ("lightly", "ours")}
        for method in SIZES
    }
    rows = [measure(method, options.rounds) | peaks[method] for method in SIZES]
    about = machine() | {"lightly": version("lightly"), "threads": 1, "rounds": options.rounds}
    table = [
        "# Losses of other methods: ours beside lightly's",
        "",
        f"lightly {about['lightly']}; {about['device']}, one thread; torch {about['torch']}; {about['date']};"
        f" `{command(about, '')}`. Forward and backward to the embeddings (SwAV and DINO: to the scores),"
        " milliseconds of processor time, medians; ratio: ours over lightly's, median within the rounds; peak:"
        " MiB of one step.",
        "",
        *markdown(
            ["loss", "rows", "width", "lightly", "ours", "ratio", "peak, lightly", "peak, ours"],
            (
                [
                    row["method"], row["rows"], row["width"], row["lightly_ms"], row["ours_ms"], row["ratio"],
                    row["lightly_mib"], row["ours_mib"],
                ]
                for row in rows
            ),
        ),
        "",
    ]  # fmt: skip
    write_record(Path(options.out), {"about": about, "rows": rows}, "\n".join(table))


if __name__ == "__main__":
    main()
