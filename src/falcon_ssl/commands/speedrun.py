"""The speed run: CIFAR without labels against the clock (docs/speedrun.md has the rules)."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from falcon_ssl.commands.features import extraction, read_train, untrained
from falcon_ssl.commands.loading import RunParts, load_method, open_data
from falcon_ssl.commands.pretrain import pretrain
from falcon_ssl.config.run import RunConfig
from falcon_ssl.core.consent import trusting_code
from falcon_ssl.core.devices import best_device, hardware
from falcon_ssl.core.errors import InputError
from falcon_ssl.data import Splits, hold_out
from falcon_ssl.engine import RunFolder, environment
from falcon_ssl.evaluation import extract
from falcon_ssl.evaluation.knn import knn
from falcon_ssl.evaluation.linear_probe import linear_probe
from falcon_ssl.networks import Readout
from falcon_ssl.records.folder import SPEEDRUN

HELD_OUT = 0.2  # fraction of train that options are chosen on
SHAPE, CLASSES = (3, 32, 32), (10, 100)  # of CIFAR


def speedrun(
    config: RunConfig,
    *,
    out: str | Path,
    held_out: bool = False,
    overwrite: bool = False,
    trust_code: bool = False,
) -> dict[str, Any]:
    """Pretrain on CIFAR and evaluate, everything but reading the files on the clock; write ``speedrun.json``.

    Args:
        config: The whole configuration, as the recipe cifar10-speedrun.
        out: The run folder.
        held_out: Train on four fifths of train and evaluate on the rest: options are chosen so, the test split is for
            records.
        overwrite: Delete an existing run folder first.
        trust_code: Whether code that files name may be run, see `falcon_ssl.trusting_code`.

    Returns:
        What the record holds: ``top1_linear``, ``top1_knn`` and ``numbers_read``, the same of the ``untrained`` network
        (off the clock; None without ``evaluation.untrained``), ``seconds`` in all and of each part, where and on what.

    Raises:
        InputError: Images that are not CIFAR's, bad options, an existing folder.
    """
    with trusting_code(trust_code):
        return _speedrun(config, out, held_out=held_out, overwrite=overwrite)


def _speedrun(
    config: RunConfig, out: str | Path, *, held_out: bool, overwrite: bool
) -> dict[str, Any]:
    splits = open_data(config)
    _check_images(splits, config.data)
    if held_out:
        splits = hold_out(replace(splits, test=None), HELD_OUT)
    ends = [time.perf_counter()]
    folder = pretrain(config, out=out, overwrite=overwrite, splits=splits)
    ends.append(time.perf_counter())
    device = best_device()
    config, method, views = load_method(folder, device=device)
    run = RunParts(config, splits, views, method)
    found = accuracies(run, device, ends)
    reference = None
    if config.evaluation.untrained:
        encoder = untrained(config, splits.train, trained=method, device=device)
        reference = accuracies(run._replace(method=encoder), device, [])
    parts = zip(("train", "extract", "linear", "knn"), pairwise(ends), strict=True)
    record = {
        **found,
        "untrained": reference,
        "seconds": round(ends[-1] - ends[0], 1),
        "seconds_of": {name: round(end - begin, 1) for name, (begin, end) in parts},
        "images": config.epochs * (len(splits.train) // config.batch_size) * config.batch_size,
        "readout": asdict(Readout.of(config.evaluation)),
        "probe_each_scale": config.evaluation.probe_each_scale,
        "linear_penalty": config.evaluation.linear_penalty,
        "seed": config.seed,
        "split": "held-out fifth of train" if held_out else "test",
        "about": {"data": config.data, "note": splits.note, **environment(hardware(device))},
    }
    RunFolder.open(folder).write_json(SPEEDRUN, record)
    return record


def accuracies(run: RunParts, device: torch.device, ends: list[float]) -> dict[str, float]:
    """Linear probe and kNN on the test images; appends when features, probe and kNN were ready."""
    config, splits, views, method = run
    assert splits.test is not None
    assert splits.train.labels is not None
    train, probe = read_train(method, splits.train, views, config, device=device)
    readout = Readout.of(config.evaluation)
    test = extract(method, splits.test, views, readout=readout, **extraction(config, device))
    ends.append(time.perf_counter())
    num_classes = int(splits.train.labels.max()) + 1
    found = linear_probe(
        probe,
        test,
        num_classes=num_classes,
        penalty=config.evaluation.linear_penalty,
        seed=config.evaluation.seed,
        device=device,
    )
    ends.append(time.perf_counter())
    found |= knn(
        train,
        test,
        num_classes=num_classes,
        k=config.evaluation.knn_neighbors,
        temperature=config.evaluation.knn_temperature,
        components=config.evaluation.knn_components,
        device=device,
    )
    ends.append(time.perf_counter())
    return {**found, "numbers_read": train.z.shape[1]}


def _check_images(splits: Splits, data: str) -> None:
    """Raise InputError unless the images can be those of CIFAR-10 or CIFAR-100."""
    train, test = splits.train, splits.test
    labels = None if test is None or test.labels is None else train.labels
    num_classes = None if labels is None else int(labels.max()) + 1
    if train.image_shape != SHAPE or num_classes not in CLASSES:
        channels, height, width = train.image_shape
        classes = "no labeled test part" if num_classes is None else f"{num_classes} classes"
        raise InputError(
            "the speed run is one of CIFAR",
            received=f"{data}: {channels} x {height} x {width}, {classes}",
            expected="3 x 32 x 32, 10 or 100 classes, with a test part",
            fix="use --data hf:cifar10, hf:cifar100 or parquet:PATH; other images: falcon-ssl pretrain",
        )
