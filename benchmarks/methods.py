"""What a step of every method costs, side by side: same encoder, views, batch and optimizer.

    make bench-methods

Needs no data: images are random. Every method takes one step a round, so that all meet the same machine; the medians
over the rounds count, and a ratio is the median of the ratios within the rounds. Time inside `encoder` is forward and
backward, of DINO's teacher too; `head + loss` is all else between the views and the optimizer.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from falcon_ssl.commands.loading import build
from falcon_ssl.config.run import from_mapping
from falcon_ssl.engine.step import TrainingStep
from record import arguments, command, machine, write_record
from timeline import (
    MarkedAccelerator,
    MarkedViews,
    Spent,
    Timeline,
    mark_around,
    median_parts,
    whole,
)

SIDE = 32
REFERENCE = "FALCON, Rademacher 4096"
METHODS: dict[str, dict[str, Any]] = {
    REFERENCE: {"falcon": {"dictionary": "rademacher", "num_codes": 4096}},
    "FALCON, Rademacher 16384": {"falcon": {"dictionary": "rademacher", "num_codes": 16384}},
    "FALCON, Hadamard 16384": {"falcon": {"dictionary": "hadamard", "num_codes": 16384}},
    "FALCON, complete 2^512": {"falcon": {}},
    "Barlow Twins": {"method": "barlow_twins"},
    "VICReg": {"method": "vicreg"},
    "SwAV": {"method": "swav"},
    "Self-Classifier": {"method": "self_classifier"},
    "GEDI": {"method": "gedi"},
    "DINO": {"method": "dino"},
    "LeJEPA": {"method": "lejepa"},
    "SimCLR": {"method": "simclr"},
    "BYOL": {"method": "byol"},
}
PARTS = ("views", "encoder", "head + loss", "optimizer")


class Contender:
    """One method with its optimizer, and steps that are taken apart; compiled ones without marks in the encoder."""

    def __init__(
        self, name: str, options: argparse.Namespace, *, engine: Mapping[str, bool] | None = None
    ) -> None:
        config = from_mapping(
            {
                **METHODS[name],
                "engine": dict(engine or {}),
                "views": {"preset": "cifar"},
                "encoder": {
                    "name": options.encoder,
                    "width": options.width,
                    "stem": options.stem,
                },
            }
        )
        self.timeline = Timeline(torch.device(options.device))
        views, self.method = build(config, (3, SIDE, SIDE))
        self.train_step = TrainingStep(
            self.method,
            MarkedViews(views, self.timeline),
            config=replace(config, batch_size=options.batch_size),
            num_steps=1000,
            accelerator=MarkedAccelerator(
                self.timeline,
                before="head + loss",
                backward="encoder",
                cpu=options.device == "cpu",
                mixed_precision=options.precision,
            ),
        )
        encoders = [] if engine else [self.method.encoder]
        if not engine and self.method.evaluated_encoder is not self.method.encoder:
            encoders.append(self.method.evaluated_encoder)
        for encoder in encoders:
            mark_around(
                encoder,
                self.timeline,
                before="head + loss",
                forward="encoder",
                before_backward="head + loss",
            )

    def step(self, images: Tensor, number: int) -> dict[str, Spent]:
        """One step as the engine takes it, and what its parts took."""
        self.timeline.start()
        self.train_step(images, number)
        self.timeline.mark("optimizer")
        return self.timeline.parts()

    def head_parameters(self) -> int:
        """Trained parameters beside those of the encoder."""
        encoder = set(self.method.encoder.parameters())
        return sum(
            p.numel() for p in self.method.parameters() if p.requires_grad and p not in encoder
        )


def random_images(options: argparse.Namespace) -> Tensor:
    """A batch of uint8 noise on the device."""
    generator = torch.Generator().manual_seed(0)
    shape = (options.batch_size, 3, SIDE, SIDE)
    return torch.randint(256, shape, dtype=torch.uint8, generator=generator).to(options.device)


def peak_bytes(device: torch.device) -> int:
    """The most memory that this process has held so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    raise RuntimeError("/proc/self/status holds no VmHWM: use --no-memory on this system")


def peak_of_a_step(name: str, options: argparse.Namespace) -> float:
    """Megabytes that two steps need above what the built method and its images take; for a fresh process."""
    contender, images = Contender(name, options), random_images(options)
    before = peak_bytes(images.device)
    for number in range(2):
        contender.step(images, number)
    return (peak_bytes(images.device) - before) / 2**20


def measure(options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Rounds of one step each; the record of every method."""
    images = random_images(options)
    contenders = {name: Contender(name, options) for name in options.methods}
    steps: dict[str, list[dict[str, Spent]]] = {name: [] for name in contenders}
    for number in range(options.warm_up + options.rounds):
        for name, contender in contenders.items():
            parts = contender.step(images, number)
            if number >= options.warm_up:
                steps[name].append(parts)
    rows = {}
    for name, contender in contenders.items():
        wholes = [whole(step) for step in steps[name]]
        references = [whole(step) for step in steps[options.methods[0]]]
        seconds = statistics.median(one.wall for one in wholes)
        rows[name] = {
            "seconds": round(seconds, 5),
            "seconds_of_rounds": [round(one.wall, 5) for one in wholes],
            "cpu_seconds": round(statistics.median(one.cpu for one in wholes), 5),
            "ratio": round(ratio(wholes, references, "wall"), 3),
            "cpu_ratio": round(ratio(wholes, references, "cpu"), 3),
            "images_per_s": round(options.batch_size / seconds, 1),
            "parts": {
                part: {"seconds": round(spent.wall, 5), "cpu_seconds": round(spent.cpu, 5)}
                for part, spent in median_parts(steps[name]).items()
            },
            "head_parameters": contender.head_parameters(),
        }
    return rows


def ratio(mine: list[Spent], reference: list[Spent], clock: str) -> float:
    """Median over the rounds of one method's time over another's."""
    return statistics.median(
        getattr(a, clock) / getattr(b, clock) for a, b in zip(mine, reference, strict=True)
    )


def add_memory(rows: Mapping[str, dict[str, Any]], arguments: list[str]) -> None:
    """The peak of every method, each in a fresh process, for memory that was once used stays with a process."""
    for name, row in rows.items():
        words = [sys.executable, __file__, *arguments, "--worker", name]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        row["peak_mb"] = round(float(done.stdout), 1)


def table(record: Mapping[str, Any]) -> str:
    """The record for people, in Markdown."""
    options, about = record["options"], record["environment"]
    on_cpu = options["device"] == "cpu"
    first = next(iter(record["methods"]))
    lines = [
        "# A step of every method, side by side",
        "",
        f"{about['device']}; torch {about['torch']}, Python {about['python']}; {about['date']}; "
        f"`{command(about, record['note'])}`. {record['note']}".rstrip(),
        "",
        f"{options['encoder']} of width {options['width']}, stem {options['stem']}, {options['batch_size']} images of "
        f"{SIDE}x{SIDE}, two views, AdamW, precision {options['precision']}; medians of {options['rounds']} "
        f"interleaved rounds; ratios to {first}, within the rounds"
        + ("; CPU time is over all threads." if on_cpu else "."),
        "",
        "Milliseconds of a step, and of its parts. Memory: the peak of two steps above what method and images take.",
        "",
        "| method | step | ratio |"
        + (" CPU time | ratio |" if on_cpu else "")
        + "".join(f" {part} |" for part in PARTS)
        + " images/s | head parameters | peak MB |",
        "|:--|" + "--:|" * (len(PARTS) + (7 if on_cpu else 5)),
    ]
    for name, row in record["methods"].items():
        cells = [f"{1e3 * row['seconds']:.1f}", f"{row['ratio']:.2f}"]
        if on_cpu:
            cells += [f"{1e3 * row['cpu_seconds']:.1f}", f"{row['cpu_ratio']:.2f}"]
        cells += [f"{1e3 * row['parts'][part]['seconds']:.1f}" for part in PARTS]
        cells += [f"{row['images_per_s']:.0f}", f"{row['head_parameters'] / 1e6:.2f} M"]
        cells += [f"{row['peak_mb']:.0f}" if "peak_mb" in row else "--"]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, write the record and the table."""
    parser = arguments(__doc__, "speed/methods")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--precision", choices=("no", "bf16"), default="no")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--encoder", default="resnet18")
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--stem", choices=("cifar", "half", "imagenet", "none"), default="half")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--warm-up", type=int, default=2, help="rounds that do not count")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--no-memory", dest="memory", action="store_false")
    parser.add_argument("--note", default="", help="what a reader of the record must know")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.stem = None if options.stem == "none" else options.stem
    torch.set_num_threads(options.threads)
    if options.worker:
        print(peak_of_a_step(options.worker, options))
        return
    rows = measure(options)
    if options.memory:
        add_memory(rows, sys.argv[1:])
    kept = ("methods", "worker", "note", "out")
    record = {
        "what": "seconds of a training step of every method, medians over interleaved rounds",
        "note": options.note,
        "options": {key: value for key, value in vars(options).items() if key not in kept},
        "methods": rows,
        "environment": machine(options.device),
    }
    write_record(options.out, record, table(record))


if __name__ == "__main__":
    main()
