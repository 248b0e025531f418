"""Where the time of a whole FALCON training step goes, through the real training loop.

    make bench-step
    python benchmarks/step.py --device cuda --out results/speed/step_cuda

Needs no data: images are random. What is measured are recipes; the loop is `falcon_ssl.engine.pretrain` itself; marks
around what it is handed (loader, views, method, monitors, accelerator) and around the optimizer take every step apart.
Bar: at most 15 % of a step is spent outside the encoder. Every step is logged, where a real run logs every fifth:
`records` is an upper bound. A last step runs under torch's profiler, for the table of operators. How well a network
suits the machine is told by its FLOP a second as a share of those of the machine's own matrix product; where other
programs share the cores, the share in CPU time counts.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
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
from falcon_ssl.commands.resolve import chosen_precision
from falcon_ssl.config.mapping import read_yaml
from falcon_ssl.config.recipes import recipe_path
from falcon_ssl.config.run import RunConfig, from_mapping
from falcon_ssl.core.monitor import Moment, Monitor, Observation
from falcon_ssl.data import ResidentLoader, Splits, TensorSource, build_loader
from falcon_ssl.methods import Falcon
from falcon_ssl.networks import fit_to_images
from falcon_ssl.views import Views
from rates import matrix_product, model_flop
from record import arguments, command, machine, markdown, write_record
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
BAR = 0.15
GOAL = 0.4  # of the rate of a matrix product
RECIPES = {
    "cpu": ["cifar10-cpu", "cifar10-speedrun"],
    "cuda": ["unmeasured/cifar-resnet18", "unmeasured/cifar-resnet8"],
}
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


def config_of(recipe: str, *, device: str, precision: str) -> RunConfig:
    """The run that is measured: a recipe, for one epoch, every step logged."""
    config = from_mapping(read_yaml(recipe_path(recipe)))
    engine_config = replace(
        config.engine, device=device, precision=precision, log_every=1, trackers=()
    )
    optim = replace(config.optim, warmup_epochs=0.0)
    config = replace(config, epochs=1, engine=engine_config, optim=optim)
    return replace(config, engine=replace(engine_config, precision=chosen_precision(config)))


def built(config: RunConfig, images: Tensor) -> tuple[Views, Falcon]:
    """Views and method, as `falcon-ssl pretrain` makes them."""
    views, method = build(config, (3, SIDE, SIDE))
    fit_to_images(method, lambda: views.evaluate(images))
    assert isinstance(method, Falcon)
    return views, method


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
    images = noise(config.batch_size * num_steps)
    splits = Splits(train=TensorSource(images, name="noise"), test=None, note="noise")
    loader = build_loader(
        splits.train, batch_size=config.batch_size, seed=config.seed, device=accelerator.device
    )
    views, method = built(config, images)
    mark_around(
        method.encoder,
        timeline,
        before="views",  # the step's own set-up and the memory format of the views
        forward="encoder forward",
        before_backward="projector",
        by_maps=config.falcon.places,
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


def noise(num: int) -> Tensor:
    """Images of random pixels."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (num, 3, SIDE, SIDE), dtype=torch.uint8, generator=generator)


def measure(options: argparse.Namespace, recipe: str, precision: str) -> dict[str, Any]:
    """The record of one recipe at one precision."""
    config = config_of(recipe, device=options.device, precision=precision)
    device = torch.device(options.device)
    products = [matrix_product(device)]
    steps = run(config, options.warm_up + options.steps)[options.warm_up :]
    products.append(matrix_product(device))
    rate = Spent(
        *(statistics.mean(rates) for rates in zip(*(p.per_second for p in products), strict=True))
    )
    wholes = [whole(step) for step in steps]
    seconds = statistics.median(one.wall for one in wholes)
    cpu_seconds = statistics.median(one.cpu for one in wholes)
    parts = median_parts(steps)
    outside = [1 - sum(step[part].wall for part in ENCODER) / whole(step).wall for step in steps]
    images = noise(config.batch_size)
    views, method = built(config, images)
    flop = model_flop(method, views(images, generator=torch.Generator().manual_seed(0)))
    return {
        "recipe": recipe,
        "precision": config.engine.precision,
        "batch_size": config.batch_size,
        "seconds": round(seconds, 5),
        "seconds_of_steps": [round(one.wall, 5) for one in wholes],
        "cpu_seconds": round(cpu_seconds, 5),
        "images_per_s": round(config.batch_size / seconds, 1),
        "outside_the_encoder": round(statistics.median(outside), 4),
        "model_gflop": round(flop / 1e9, 3),
        "model_gflop_per_s": round(flop / 1e9 / seconds, 1),
        "product": products[0].precision,
        "product_gflop_per_s": round(rate.wall / 1e9, 1),
        "product_gflop_per_cpu_second": round(rate.cpu / 1e9, 1),
        "share_of_product": round(flop / seconds / rate.wall, 4),
        "share_of_product_in_cpu_time": round(flop / cpu_seconds / rate.cpu, 4),
        "parts": {
            part: {"seconds": round(parts[part].wall, 6), "cpu_seconds": round(parts[part].cpu, 6)}
            for part in PARTS
            if part in parts
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
    about, rows = record["environment"], record["rows"]
    names = [f"{row['recipe']}, {row['precision']}" for row in rows]
    lines = [
        "# A whole FALCON training step",
        "",
        f"{about['device']}; torch {about['torch']}, Python {about['python']}; {about['date']}; "
        f"`{command(about, record['note'])}`. {record['note']}".rstrip(),
        "",
        f"Random images of {SIDE}x{SIDE}; medians of {record['steps']} steps, in milliseconds, and shares of the step. "
        "Columns are recipe and precision. `views` ends where the encoder begins, `projector` is forward and backward, "
        "`optimizer` holds clipping and the check for NaN, `records` monitors and metrics of every step. Model FLOP: "
        "products in encoder and projector, forward and backward. The machine's matrix product is measured before and "
        "after, with the same threads.",
        "",
        "| part |" + "".join(f" {name} | |" for name in names),
        "|:--|" + "--:|--:|" * len(rows),
    ]
    for part in PARTS:
        shares = [
            row["parts"].get(part, {"seconds": 0.0})["seconds"] / row["seconds"] for row in rows
        ]
        cells = [
            f" {1e3 * share * row['seconds']:.1f} | {share:.1%} |"
            for share, row in zip(shares, rows, strict=True)
        ]
        lines.append(f"| {part} |" + "".join(cells))
    met = ["met" if row["outside_the_encoder"] <= BAR else "missed" for row in rows]
    last = {
        "**step**": [f"{1e3 * row['seconds']:.1f} | " for row in rows],
        "CPU time of a step": [f"{1e3 * row['cpu_seconds']:.1f} | " for row in rows],
        "images a step; a second": [
            f"{row['batch_size']} | {row['images_per_s']:.0f}" for row in rows
        ],
        f"outside the encoder (bar: {BAR:.0%})": [
            f"{row['outside_the_encoder']:.1%} | {word}"
            for row, word in zip(rows, met, strict=True)
        ],
        "model GFLOP; a second": [
            f"{row['model_gflop']:.1f} | {row['model_gflop_per_s']:.0f}" for row in rows
        ],
        "GFLOP a second of a matrix product": [
            f"{row['product_gflop_per_s']:.0f} | {row['product']}" for row in rows
        ],
        f"**share of it** (goal: {GOAL:.0%}); in CPU time": [
            f"**{row['share_of_product']:.1%}** | {row['share_of_product_in_cpu_time']:.1%}"
            for row in rows
        ],
    }
    lines += [
        f"| {name} |" + "".join(f" {cell} |" for cell in cells) for name, cells in last.items()
    ]
    for name, row in zip(names, rows, strict=True):
        lines += ["", f"## Operators of one step: {name}", ""]
        lines += markdown(
            ["operator", "calls", "ms", "share"],
            [
                [
                    f"`{one['operator']}`",
                    one["calls"],
                    f"{1e3 * one['seconds']:.1f}",
                    f"{one['share']:.1%}",
                ]
                for one in row["operators"]
            ],
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, write the record and the table."""
    parser = arguments(__doc__, "speed/step")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--recipes", nargs="+", help=f"on a CPU {' '.join(RECIPES['cpu'])}")
    parser.add_argument("--precisions", nargs="+", choices=("auto", "no", "bf16"), default=["auto"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--warm-up", type=int, default=5, help="steps that do not count")
    parser.add_argument("--note", default="", help="what a reader of the record must know")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = [
        measure(options, recipe, precision)
        for recipe in options.recipes or RECIPES[options.device]
        for precision in options.precisions
    ]
    record = {
        "what": "seconds of the parts of a FALCON training step; medians",
        "note": options.note,
        "steps": options.steps,
        "rows": rows,
        "environment": machine(options.device),
    }
    write_record(options.out, record, table(record))


if __name__ == "__main__":
    main()
