"""Fine-tune a pretrained encoder on labels, beside the same network from scratch: whether pretraining paid."""

from __future__ import annotations

import copy
import json
import logging
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch
from torch import Tensor

from falcon_ssl.commands.features import HELD_OUT, extraction, reads_bf16
from falcon_ssl.commands.files import new_folder
from falcon_ssl.commands.frozen import Preprocessing, described
from falcon_ssl.commands.loading import RunParts, build, load_run, log_skipped, seen_shape
from falcon_ssl.config.finetune import FinetuneConfig
from falcon_ssl.config.run import ReadingConfig
from falcon_ssl.core.consent import trusting_code
from falcon_ssl.core.devices import best_device, hardware
from falcon_ssl.core.errors import InputError
from falcon_ssl.data import hold_out
from falcon_ssl.engine.checkpoint import save_tensors
from falcon_ssl.engine.finetune import Classifier, LabeledImages, accuracy_of
from falcon_ssl.engine.finetune import finetune as train
from falcon_ssl.engine.progress import WorkProgress
from falcon_ssl.evaluation.features import extract
from falcon_ssl.evaluation.few_labels import drawn_rows
from falcon_ssl.evaluation.linear_probe import fit_probe
from falcon_ssl.networks import copy_fitted, representation_width
from falcon_ssl.records.files import replacing_folder, write_json
from falcon_ssl.records.folder import FINETUNE, MODEL
from falcon_ssl.records.provenance import environment
from falcon_ssl.views import supervised_views

logger = logging.getLogger(__name__)

STOPPED_BY = 0.2  # fraction of the labeled images that say when to stop
PRETRAINED, SCRATCH = "pretrained", "from_scratch"


def finetune(
    run: str | Path,
    *,
    out: str | Path,
    data: str | None = None,
    reading: ReadingConfig | None = None,
    config: FinetuneConfig | None = None,
    checkpoint: str = "last",
    overwrite: bool = False,
    trust_code: bool = False,
) -> dict[str, Any]:
    """Fine-tune the encoder of a run as a classifier; write ``finetune.json`` and the best ``model.safetensors``.

    The classifier begins as a linear probe, which is the first candidate. A fifth of the labeled images says when to
    stop; the test part is read once a training, at its end. From scratch the same network is trained in the same way,
    from random numbers and at one rate for all its layers.

    Args:
        run: The run folder.
        out: Folder to write.
        data: Labeled images instead of the run's own.
        reading: How to read them; None for the defaults.
        config: The recipe; None for its defaults.
        checkpoint: "last", or one that is kept beside it.
        overwrite: Replace the folder, if there is one.
        trust_code: Whether code that files name may be run, see `falcon_ssl.trusting_code`.

    Returns:
        What ``finetune.json`` holds: under "pretrained" and "from_scratch" the accuracy on test, "top1" and its "std"
        over draws, and every draw; "chance", "about".

    Raises:
        InputError: As `load_run`, images without labels, or too few of them.
    """
    started, config = time.perf_counter(), config or FinetuneConfig()
    folder = new_folder(out, marked_by=FINETUNE, overwrite=overwrite)
    device = best_device()
    opened = load_run(
        run,
        device=device,
        data=data,
        reading=reading,
        checkpoint=checkpoint,
        trust_code=trust_code,
    )
    if opened.splits.test is None:
        opened = opened._replace(splits=hold_out(opened.splits, HELD_OUT))
    labels, test = _labels(opened)
    arms: dict[str, list[dict[str, Any]]] = {
        PRETRAINED: [],
        **({SCRATCH: []} if config.scratch else {}),
    }
    source, best, best_held_out = opened.splits.train, None, -1.0
    options: dict[str, Any] = {
        "views": supervised_views(opened.config.views, opened.views, config.crop_scale),
        "device": device,
        "autocast": reads_bf16(opened.config, device),
    }
    with trusting_code(trust_code), WorkProgress() as progress:
        for draw in range(config.draws if config.labels is not None else 1):
            drawn = replace(config, seed=config.seed + draw)
            rows = torch.arange(len(labels))
            if config.labels is not None:
                rows = drawn_rows(labels, config.labels, seed=drawn.seed)
            kept, left_out = _stop_by(labels, rows, seed=drawn.seed)
            for arm, results in arms.items():
                subject = f"draw {draw + 1}, {len(rows)} labels, {arm.replace('_', ' ')}"
                progress.name(subject)
                progress.compute("initial classifier")
                network = _classifier(opened, arm, kept, labels, device=device, seed=drawn.seed)
                found = train(
                    network,
                    LabeledImages(source, kept, labels),
                    LabeledImages(source, left_out, labels),
                    config=drawn,
                    lr=config.lr if arm == PRETRAINED else config.scratch_lr,
                    layer_decay=config.layer_decay if arm == PRETRAINED else 1.0,
                    keep_statistics=arm == PRETRAINED,
                    progress=progress,
                    **options,
                )
                top1 = accuracy_of(network, test, **options)
                results.append({"top1": top1, **found._asdict()})
                best_of = f"best of {found.epochs} epochs: {found.epoch}"
                logger.info("%s: %.3f on test; %s", subject, top1, best_of)
                if arm == PRETRAINED and found.held_out > best_held_out:
                    best, best_held_out = network, found.held_out
    record = {arm: _summary(results) for arm, results in arms.items()} | {
        "chance": float(test.label_N.bincount().max()) / len(test.label_N),
        "about": {
            "run": str(run),
            "checkpoint": checkpoint,
            "data": opened.config.data,
            "note": opened.splits.note,
            "num_labels": len(rows),
            "num_test": len(test.rows),
            "class_names": opened.splits.train.class_names,
            "options": asdict(config),
            "seconds": round(time.perf_counter() - started, 1),
            **environment(hardware(device)),
        },
    }
    assert best is not None
    _write(folder, record, best, opened)
    log_skipped(opened.splits)
    return record


def _labels(opened: RunParts) -> tuple[Tensor, LabeledImages]:
    """Classes of the training images, and the test images."""
    train_source, test_source = opened.splits.train, opened.splits.test
    assert test_source is not None
    if train_source.labels is None or test_source.labels is None:
        raise InputError(
            "fine-tuning needs labels",
            received=opened.config.data,
            expected="labeled images in train and test",
            fix="name others with --data; --reading.folder_labels true takes folders as classes",
        )
    if opened.splits.num_classes is None:
        raise InputError(
            "there is nothing to tell apart",
            received=f"{opened.config.data}, training images all of one class",
            expected="labels of two classes or more",
        )
    rows = torch.arange(len(test_source))
    return train_source.labels.cpu(), LabeledImages(test_source, rows, test_source.labels.cpu())


def _stop_by(label_N: Tensor, rows: Tensor, *, seed: int) -> tuple[Tensor, Tensor]:
    """Rows to learn from, and those that say when to stop: a fifth of every class that has two images."""
    counts = label_N[rows].bincount()
    shared = rows[counts[label_N[rows]] > 1]
    if len(shared) == 0:
        raise InputError(
            "too few labeled images",
            received=f"{len(rows)}, one a class",
            expected="two of a class: one to learn from, one that says when to stop",
            fix="give --finetune.labels at least 2",
        )
    left_out = shared[drawn_rows(label_N[shared], STOPPED_BY, seed=seed)]
    return rows[~torch.isin(rows, left_out)], left_out


def _classifier(
    opened: RunParts,
    arm: str,
    rows: Tensor,
    label_N: Tensor,
    *,
    device: torch.device,
    seed: int,
) -> Classifier:
    """A linear probe on the pretrained encoder; or a new one on the encoder that a run would begin with."""
    config, splits, views, method = opened
    num_classes, source = int(label_N.max()) + 1, splits.train
    if arm == SCRATCH:
        _, fresh = build(replace(config, seed=seed), source.image_shape)
        fresh.to(device)
        copy_fitted(fresh, method)
        encoder, probe = fresh.evaluated_encoder, None
        width = representation_width(encoder, seen_shape(source.image_shape, views))
    else:
        encoder = copy.deepcopy(method.evaluated_encoder)
        features = extract(method, source, views, indices=rows, **extraction(config, device))
        found = fit_probe(features, num_classes=num_classes, seed=seed, device=device)
        probe, width = found.on_z(), features.z.shape[1]
    encoder.requires_grad_(True)
    torch.manual_seed(seed)
    return Classifier(encoder, width=width, num_classes=num_classes, probe=probe).to(device)


def _summary(draws: list[dict[str, Any]]) -> dict[str, Any]:
    values = [draw["top1"] for draw in draws]
    return {
        "top1": fmean(values),
        "std": stdev(values) if len(values) > 1 else None,
        "draws": draws,
    }


def _write(folder: Path, record: dict[str, Any], best: Classifier, opened: RunParts) -> None:
    config, source = opened.config, opened.splits.train
    preprocess = Preprocessing.of(source.image_shape, opened.views, config.reading)
    about = {
        **described(config.encoder, preprocess),
        "class_names": source.class_names,
    }
    with replacing_folder(folder) as unfinished:
        save_tensors(
            best.state_dict(), unfinished / MODEL, metadata={"falcon_ssl": json.dumps(about)}
        )
        write_json(unfinished / FINETUNE, record)


def lines_of(record: dict[str, Any]) -> Iterator[str]:
    """What the command line prints."""
    about = record["about"]
    yield f"{about['note']}; {about['num_labels']} labels, {about['num_test']} test images"
    for arm in (PRETRAINED, SCRATCH):
        if arm in record:
            spread = record[arm]["std"]
            more = "" if spread is None else f" ± {100 * spread:.1f}"
            epochs = [draw["epoch"] for draw in record[arm]["draws"]]
            yield f"{arm.replace('_', ' '):<13}{100 * record[arm]['top1']:5.1f} %{more}   best epochs {epochs}"
    yield f"{'chance':<13}{100 * record['chance']:5.1f} %"
