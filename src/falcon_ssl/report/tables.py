"""Cards, facts and tables of one run: pure functions of its records."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Any

import numpy as np
import yaml

from falcon_ssl.config.evaluation import describe_readout
from falcon_ssl.config.run import OPTIMIZERS
from falcon_ssl.core.machine import bytes_text
from falcon_ssl.core.theory import effective_temperature
from falcon_ssl.records.metrics import BASELINE_LABEL, GROUPS, METRICS, Metric, describe
from falcon_ssl.records.run import Run, as_number
from falcon_ssl.report.document import Block, Card, Cell, Facts, Listing, MarkKind, Rows, Table
from falcon_ssl.report.formatting import DASH, format_duration, format_number, format_precision
from falcon_ssl.report.theory import optimum_of

MOST_CARDS = 6
LATEST = {
    "total": "Loss",
    "top1_knn": "kNN on held-out images",
    "effective_rank_u": "Effective rank of u, in a batch",
    "codes_used": "Codes used by a batch",
    "effective_rank_z": "Effective rank of z, probed",
    "images_per_s": "Images a second",
}


def headline_cards(run: Run) -> list[Card]:
    """The six most informative numbers among those recorded, each with what to compare it with."""
    sizes = [as_number(run.about(name)) for name in ("num_codes", "num_test")]
    known = [size for size in sizes if size is not None]  # more codes than rows cannot be used
    most = {
        "top1_linear": 1.0,
        "top1_knn": 1.0,
        "ami_kmeans_z": 1.0,
        "effective_rank_u": run.most_directions(run.embed_dim),
        "codes_used": min(known) if len(known) == 2 else None,
        "mutual_information_bits": run.metric("certificate", "max_bits"),
        "effective_rank_z": run.most_directions(run.representation_width),
    }
    candidates = [_card(run, key, most[key], run.chance(key)) for key in most]
    return [card for card in candidates if card is not None][:MOST_CARDS]


def _card(run: Run, key: str, most: float | None, chance: float | None) -> Card | None:
    metric = describe(key)
    # The certificate is about training batches, which a random encoder never saw.
    nested = () if key in run.evaluation else ("certificate",)
    value, random = run.metric(*nested, key), run.metric("random_encoder", key)
    if value is None:
        return None

    def write(number: float) -> str:
        return f"{number:.1f}" if metric.kind == "real" else format_number(number, metric.kind)

    def more(kind: MarkKind, number: float) -> str:
        """That a number below the one before training is no failure, where it is none."""
        return (
            " (often more)" if kind == "random" and metric.better is None and number > value else ""
        )

    beside: dict[MarkKind, float | None] = {"run": value, "random": random, "chance": chance}
    known = [(kind, number) for kind, number in beside.items() if number is not None]
    names = {"random": run.started_from, "chance": "chance"}
    notes = [
        (
            kind,
            f"{names[kind]} {write(number) if number or kind == 'random' else '0'}{more(kind, number)}",
        )
        for kind, number in known
        if kind in names
    ]
    ruled = known if most and math.isfinite(value) else []
    marks = [(kind, float(np.clip(number / most, 0, 1))) for kind, number in ruled if most]
    of = f"of {format_number(most, 'count')}" if most and most > 1 else ""
    return Card(metric.title, write(value), of, marks, notes)


def latest_cards(run: Run) -> list[Card]:
    """The last logged numbers of a run that trains, and how long the rest takes at the speed so far."""
    epochs = run.number_setting("epochs")
    logged = {**run.curves, **run.monitors}
    cards = []
    if "seconds" in logged and epochs:
        epoch, seconds = logged["seconds"].x[-1], float(logged["seconds"].y[-1])
        left = format_duration(seconds * (epochs - epoch) / epoch) if epoch else DASH
        of = f"of {format_number(epochs, 'count')}"
        cards.append(
            Card("Epoch", f"{epoch:.1f}", of, [("run", epoch / epochs)], [("run", f"{left} left")])
        )
    for key, title in LATEST.items():
        if key in logged:
            kind = describe(key).kind
            cards.append(Card(title, format_number(float(logged[key].y[-1]), kind)))
    return cards[:MOST_CARDS]


def metric_table(run: Run) -> Table | None:
    """Every number of the evaluation beside those of the encoder before training and chance or ideal."""
    diagnosed = {
        str(measure.get("name"))
        for collapse in run.diagnosis.get("collapses") or []
        for measure in collapse.get("measures") or []
    }
    keys = [key for key in metric_keys([run]) if key not in diagnosed]
    if not keys:
        return None
    others = references([run])

    def row(key: str, metric: Metric) -> list[Cell]:
        reference = metric.reference
        if (chance := run.chance(key)) is not None and "chance" not in reference:
            stated = f"chance {format_number(chance, metric.kind)}"
            reference = f"{stated} · {reference}" if reference else stated
        numbers = run.metric(key), *(run.metric(other, key) for other in others)
        written = [format_number(number, metric.kind) for number in numbers]
        return [Cell(text) for text in (metric.label, *written, reference, metric.meaning)]

    groups = [Rows(group, [row(*member) for member in members]) for group, members in grouped(keys)]
    head = ["", "this run", *others.values(), "chance · ideal", "what it is"]
    note = "The measures of collapse stand under Diagnosis." if diagnosed else ""
    return Table(head, groups, numeric=1 + len(others), note=note)


def others_table(run: Run) -> Table | None:
    """Accuracies on other images and of other checkpoints, which have an evaluation of their own."""
    if not run.others:
        return None

    def row(name: str, record: Mapping[str, Any]) -> list[Cell]:
        about = record.get("about", {})
        before, chance = record.get("random_encoder", {}), record.get("chance", {})
        accuracies = [
            *(one.get(key) for key in ("top1_linear", "top1_knn") for one in (record, before)),
            chance.get("top1"),
        ]
        words = f"{name}: {about.get('data')}, {about.get('num_test')} images"
        written = [*(format_number(number, "percent") for number in accuracies)]
        written.append(format_number(record.get("effective_rank_z"), "real"))
        return [Cell(text) for text in (words, *written)]

    before = run.started_from
    head = ["", "linear", f"linear, {before}", "kNN", f"kNN, {before}", "chance", "effective rank"]
    rows = [row(name, record) for name, record in run.others.items()]
    return Table(head, [Rows("", rows)], numeric=6, title="Other images, other checkpoints")


def references(runs: list[Run]) -> dict[str, str]:
    """What stands beside runs: the key of its numbers in ``evaluation.json``, and its column's title."""
    started = {run.started_from for run in runs}
    before = started.pop() if len(started) == 1 else "before training"
    known = {"random_encoder": before, "baseline": BASELINE_LABEL}
    return {
        key: title
        for key, title in known.items()
        if key != "baseline" or any(key in run.evaluation for run in runs)
    }


def metric_keys(runs: list[Run]) -> list[str]:
    """Names of the numbers that any of the evaluations holds, in order of first appearance."""
    numbers = [
        key
        for run in runs
        for key, value in run.evaluation.items()
        if not isinstance(value, str) and as_number(value) is not None
    ]
    return list(dict.fromkeys(numbers))


def grouped(keys: list[str]) -> list[tuple[str, list[tuple[str, Metric]]]]:
    """Sort keys into the groups of the table, known ones in the order of their description."""
    order = list(METRICS)

    def place(item: tuple[str, Metric]) -> int:
        stem = max((k for k in order if item[0].startswith(k)), key=len, default="")
        return order.index(stem) if stem else len(order)

    described = [(key, describe(key)) for key in keys]
    groups = [
        (group, sorted((item for item in described if item[1].group == group), key=place))
        for group in GROUPS
    ]
    return [(group, members) for group, members in groups if members]


def how_it_was_made(run: Run) -> list[Block]:
    """What a reader needs to assess and repeat the run."""
    blocks: list[Block] = [Facts(_facts(run))]
    command = run.environment.get("command")
    if command:
        words = [PurePath(command[0]).name, *command[1:]]
        blocks.append(Listing("Command", shlex.join(words)))
    text = yaml.safe_dump(run.config, sort_keys=False, allow_unicode=True)
    blocks.append(Listing("Complete configuration", text, folded=True))
    return blocks


def _facts(run: Run) -> list[tuple[str, str]]:
    """Name and value of everything recorded about the making; what is absent is left out."""
    environment = run.environment
    made_by = {k: environment.get(k) or run.about(k) for k in ("falcon_ssl", "torch", "python")}
    versions = [f"{name} {version}" for name, version in made_by.items() if version]

    def count(value: Any) -> str:
        number = as_number(value)
        return str(value) if number is None else format_number(number, "count")

    def plain(value: Any) -> str:
        number = as_number(value)
        return str(value) if number is None or isinstance(value, str) else format_number(number)

    best = optimum_of(run)
    temperature = best and run.embed_dim and effective_temperature(run.embed_dim, best.logit_scale)
    complete = run.setting("dictionary") == "complete" and run.embed_dim
    seconds = as_number(environment.get("seconds"))
    if seconds is None and "seconds" in run.curves:
        seconds = float(run.curves["seconds"].y[-1])
    precision = environment.get("precision") or run.setting("precision")
    each_scale = "every image at each scale" if run.about("probe_each_scale") else None
    rows: list[tuple[str, Any, Callable[[Any], str]]] = [
        ("Data", run.about("data") or run.setting("data"), str),
        ("Split", run.about("note"), str),
        ("Training images", run.about("num_train"), count),
        ("Test images", run.about("num_test"), count),
        ("Classes", run.about("num_classes"), count),
        ("Method", run.setting("method"), str),
        ("Encoder", (run.config.get("encoder") or {}).get("name"), str),
        ("Parameters", environment.get("num_parameters"), count),
        ("Representation width D", run.representation_width, count),
        ("Read by linear probe and kNN", run.about("readout"), _readout),
        ("Linear probe learns from", each_scale, str),
        ("Numbers read", run.about("numbers_read"), count),
        ("Embedding width F", run.embed_dim, count),
        ("Dictionary", run.setting("dictionary"), str),
        ("Codes C", f"2^{run.embed_dim:.0f}" if complete else run.setting("num_codes"), count),
        ("Epsilon", best.epsilon if best else run.setting("epsilon"), plain),
        ("Logit scale L", best and best.logit_scale, plain),
        ("Effective temperature", temperature, lambda t: f"{t:.3g} (= F / L²)"),
        ("Beta", run.setting("beta"), plain),
        ("Prior matching", run.setting("prior_matching"), str),
        ("Epochs", run.setting("epochs"), count),
        ("Batch size", run.setting("batch_size"), count),
        ("Learning rate", _learning_rate(run), plain),
        ("Seed", run.setting("seed"), str),
        ("Training time", seconds, format_duration),
        ("Speed", environment.get("images_per_s"), lambda v: f"{count(v)} images / s"),
        ("Peak memory", as_number(environment.get("peak_memory")), bytes_text),
        ("Evaluation time", as_number(run.about("seconds")), format_duration),
        ("Hardware", environment.get("device") or run.about("device"), str),
        ("Precision", precision, format_precision),
        ("Versions", ", ".join(versions), str),
    ]
    return [(name, write(value)) for name, value, write in rows if value not in (None, "")]


def _learning_rate(run: Run) -> Any:
    optim = run.config.get("optim") or {}
    facts = OPTIMIZERS.get(str(optim.get("name")))
    return optim.get("lr") or (facts and facts.lr)


def _readout(about: Mapping[str, Any]) -> str:
    known = ("representation", "mirror", "crops", "scales")
    return describe_readout(**{name: about[name] for name in known if name in about})
