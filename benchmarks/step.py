"""Where the time of a whole FALCON training step goes, through the real training loop.

    make bench-step                               on the CPU; a step takes many seconds there
    python benchmarks/step.py --device cuda       on a GPU

Needs no data: images are random. The loop is `falcon_ssl.engine.pretrain` itself; marks around what it is handed
(loader, views, method, monitors, accelerator) and around the optimizer take every step apart. Bar: at most 15 % of a
step is spent outside the encoder. Every step is logged, where a real run logs every fifth: `records` is an upper bound.
A last step runs under torch's profiler, for the table of operators.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState
from torch import Tensor
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)
from torch.profiler import ProfilerActivity, profile, schedule

from falcon_ssl import engine
from falcon_ssl.commands.loading import RunParts, build
from falcon_ssl.commands.monitors import default_monitors
from falcon_ssl.config.run import RunConfig, from_mapping
from falcon_ssl.core.devices import hardware
from falcon_ssl.core.monitor import Moment, Monitor, Observation
from falcon_ssl.data import ResidentLoader, Splits, TensorSource, build_loader
from falcon_ssl.methods import Falcon
from falcon_ssl.records.provenance import environment
from timeline import (
    MarkedAccelerator,
    MarkedViews,
    Spent,
    Timeline,
    command,
    mark_around,
    median_parts,
    whole,
    write_record,
)

SIDE = 32
BAR = 0.15
ENCODER = ("encoder forward", "encoder backward")
PARTS = (
    "loader",
    "views",
    *ENCODER,
    "projector",
    "loss forward",
    "loss backward",
    "optimizer",
    "records",
)
OPERATORS = 20


class MarkedLoader:
    """The loader of a run; a step ends where the next batch is asked for."""

    def __init__(self, loader: ResidentLoader, timeline: Timeline, stepped: Any) -> None:
        self.loader, self.timeline, self.stepped = loader, timeline, stepped
        self.steps: list[dict[str, Spent]] = []

    @property
    def batches_per_epoch(self) -> int:
        """That of the loader."""
        return self.loader.batches_per_epoch

    def epoch_batches(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Those of the loader."""
        self.timeline.start()
        for batch in self.loader.epoch_batches(epoch, start):
            self.timeline.mark("loader")
            yield batch
            self.timeline.mark("records")
            self.steps.append(self.timeline.parts())
            self.stepped()
            self.timeline.start()


class MarkedMonitor:
    """A monitor of a run."""

    def __init__(self, monitor: Monitor, timeline: Timeline) -> None:
        self.monitor, self.timeline = monitor, timeline

    def __call__(self, moment: Moment) -> Observation:
        """Call it."""
        observation = self.monitor(moment)
        self.timeline.mark("records")
        return observation

    def state_dict(self) -> dict[str, Any]:
        """Its state."""
        return self.monitor.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Its state."""
        self.monitor.load_state_dict(state)


def config_of(options: argparse.Namespace, encoder: str, precision: str) -> RunConfig:
    """The run that is measured."""
    falcon: dict[str, Any] = {"dictionary": options.dictionary, "embed_dim": options.embed_dim}
    if options.dictionary != "complete":
        falcon["num_codes"] = options.num_codes
    stem = "cifar" if encoder.startswith("resnet") and encoder != "resnet8" else None
    return from_mapping(
        {
            "epochs": 1,
            "batch_size": options.batch_size,
            "views": {"preset": "cifar"},
            "encoder": {"name": encoder, "stem": stem},
            "falcon": falcon,
            "engine": {"device": options.device, "precision": precision, "log_every": 1},
        }
    )


def run(config: RunConfig, num_steps: int, stepped: Any = lambda: None) -> list[dict[str, Spent]]:
    """Train for some steps as `falcon-ssl pretrain` does; what each of them took."""
    timeline = Timeline(torch.device(config.engine.device))
    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = MarkedAccelerator(
        timeline,
        before="loss forward",
        backward="encoder backward",
        cpu=config.engine.device == "cpu",
        mixed_precision=config.engine.precision,
    )
    generator = torch.Generator().manual_seed(0)
    shape = (config.batch_size * num_steps, 3, SIDE, SIDE)
    images = torch.randint(256, shape, dtype=torch.uint8, generator=generator)
    splits = Splits(train=TensorSource(images, name="noise"), test=None, note="noise")
    loader = build_loader(
        splits.train, batch_size=config.batch_size, seed=config.seed, device=accelerator.device
    )
    views, method = build(config, (3, SIDE, SIDE))
    assert isinstance(method, Falcon)
    mark_around(
        method.encoder,
        timeline,
        before="views",  # the step's own set-up and the memory format of the views
        forward="encoder forward",
        before_backward="projector",
    )
    mark_around(
        method.projector,
        timeline,
        before="projector",
        forward="projector",
        before_backward="loss backward",
    )
    hooks = [
        register_optimizer_step_pre_hook(lambda *_: timeline.mark("optimizer")),
        register_optimizer_step_post_hook(lambda *_: timeline.mark("optimizer")),
    ]
    marked = MarkedLoader(loader, timeline, stepped)
    with tempfile.TemporaryDirectory() as folder:
        records = engine.RunFolder(Path(folder) / "run")
        records.create(config)
        engine.pretrain(
            method,
            marked,
            MarkedViews(views, timeline),
            config=config,
            folder=records,
            accelerator=accelerator,
            monitors=[
                MarkedMonitor(monitor, timeline)
                for monitor in default_monitors(RunParts(config, splits, views, method))
            ],
        )
    for hook in hooks:
        hook.remove()
    return marked.steps


def measure(options: argparse.Namespace, encoder: str, precision: str) -> dict[str, Any]:
    """The record of one encoder at one precision."""
    config = config_of(options, encoder, precision)
    steps = run(config, options.warm_up + options.steps)[options.warm_up :]
    wholes = [whole(step) for step in steps]
    seconds = statistics.median(one.wall for one in wholes)
    parts = median_parts(steps)
    outside = [1 - sum(step[part].wall for part in ENCODER) / whole(step).wall for step in steps]
    return {
        "encoder": encoder,
        "precision": precision,
        "seconds": round(seconds, 5),
        "seconds_of_steps": [round(one.wall, 5) for one in wholes],
        "cpu_seconds": round(statistics.median(one.cpu for one in wholes), 5),
        "images_per_s": round(options.batch_size / seconds, 1),
        "outside_the_encoder": round(statistics.median(outside), 4),
        "parts": {
            part: {"seconds": round(parts[part].wall, 6), "cpu_seconds": round(parts[part].cpu, 6)}
            for part in PARTS
        },
        "operators": operators(config, options.warm_up),
    }


def operators(config: RunConfig, warm_up: int) -> list[dict[str, Any]]:
    """The operators that take most of one step, by their own time."""
    on_gpu = config.engine.device == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    wanted = schedule(skip_first=max(0, warm_up - 1), wait=0, warmup=1, active=1, repeat=1)
    with profile(activities=activities, schedule=wanted, acc_events=True) as profiler:
        run(config, warm_up + 1, stepped=profiler.step)
    times = {
        event.key: (event.self_device_time_total if on_gpu else event.self_cpu_time_total, event)
        for event in profiler.key_averages()
        if not event.key.startswith("ProfilerStep")
    }
    total = sum(time for time, _ in times.values())
    most = sorted(times.items(), key=lambda item: -item[1][0])[:OPERATORS]
    return [
        {
            "operator": key,
            "calls": event.count,
            "seconds": round(1e-6 * micro, 6),
            "share": round(micro / total, 4),
        }
        for key, (micro, event) in most
    ]


def table(record: Mapping[str, Any]) -> str:
    """The record for people, in Markdown."""
    options, about, rows = record["options"], record["environment"], record["rows"]
    codes = f"2^{options['embed_dim']}"
    if options["dictionary"] != "complete":
        codes = f"{options['dictionary']} {options['num_codes']}"
    names = [f"{row['encoder']}, {row['precision']}" for row in rows]
    lines = [
        "# A whole FALCON training step",
        "",
        f"{about['device']}; torch {about['torch']}, Python {about['python']}; {record['date']}; `{record['command']}`."
        + (f" {record['note']}" if record["note"] else ""),
        "",
        f"{options['batch_size']} images of {SIDE}x{SIDE}, two views; dictionary {codes}, F = {options['embed_dim']}; "
        f"channels_last; medians of {options['steps']} steps.",
        "",
        "Milliseconds, and shares of the step. Columns are encoder and precision. `views` ends where the encoder "
        "begins, `projector` is forward and backward, `optimizer` holds clipping and the check for NaN, `records` "
        "monitors and metrics of every step.",
        "",
        "| part |" + "".join(f" {name} | |" for name in names),
        "|:--|" + "--:|--:|" * len(rows),
    ]
    for part in PARTS:
        cells = [
            f" {1e3 * row['parts'][part]['seconds']:.1f} | {row['parts'][part]['seconds'] / row['seconds']:.1%} |"
            for row in rows
        ]
        lines.append(f"| {part} |" + "".join(cells))
    lines += [
        "| **step** |" + "".join(f" {1e3 * row['seconds']:.1f} | |" for row in rows),
        "| images/s |" + "".join(f" {row['images_per_s']:.1f} | |" for row in rows),
        f"| outside the encoder (bar: {BAR:.0%}) |"
        + "".join(
            f" {row['outside_the_encoder']:.1%} | {'met' if row['outside_the_encoder'] <= BAR else 'missed'} |"
            for row in rows
        ),
    ]
    for name, row in zip(names, rows, strict=True):
        lines += [
            "",
            f"## Operators of one step: {name}",
            "",
            "| operator | calls | ms | share |",
            "|:--|--:|--:|--:|",
        ]
        lines += [
            f"| `{one['operator']}` | {one['calls']} | {1e3 * one['seconds']:.1f} | {one['share']:.1%} |"
            for one in row["operators"]
        ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, write the record and the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--encoders", nargs="+", help="resnet18; on a GPU resnet8 too")
    parser.add_argument("--precisions", nargs="+", choices=("no", "bf16"), default=["no", "bf16"])
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--dictionary", default="rademacher")
    parser.add_argument("--num-codes", type=int, default=16384)
    parser.add_argument("--embed-dim", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, help="3; on a GPU 50")
    parser.add_argument("--warm-up", type=int, help="steps that do not count: 1; on a GPU 10")
    parser.add_argument("--note", default="", help="what a reader of the record must know")
    parser.add_argument("--name", help="of the record, without suffix: step, or step_cuda")
    options = parser.parse_args()
    on_gpu = options.device == "cuda"
    options.encoders = options.encoders or (["resnet18", "resnet8"] if on_gpu else ["resnet18"])
    options.steps = options.steps or (50 if on_gpu else 3)
    options.warm_up = options.warm_up or (10 if on_gpu else 1)
    options.name = options.name or ("step_cuda" if on_gpu else "step")
    torch.set_num_threads(options.threads)
    rows = [
        measure(options, encoder, precision)
        for encoder in options.encoders
        for precision in options.precisions
    ]
    about = environment(hardware(torch.device(options.device)))
    record = {
        "what": "seconds of the parts of a FALCON training step; medians",
        "command": command("benchmarks/step.py", options.note),
        "note": options.note,
        "date": time.strftime("%Y-%m-%d"),
        "options": {k: v for k, v in vars(options).items() if k not in ("note", "name")},
        "environment": {key: value for key, value in about.items() if key != "command"},
        "rows": rows,
    }
    write_record(options.name, record, table(record))


if __name__ == "__main__":
    main()
