"""What features without a gradient reach on the same images: whitened patches and k-means."""

from __future__ import annotations

import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from falcon_ssl.commands.loading import data_record
from falcon_ssl.config.evaluation import EvaluationConfig
from falcon_ssl.config.run import ReadingConfig
from falcon_ssl.core.consent import trusting_code
from falcon_ssl.core.devices import best_device, hardware, multiplies_bf16
from falcon_ssl.core.errors import InputError
from falcon_ssl.core.pixels import unit_range
from falcon_ssl.data import Source, load_splits, read_images
from falcon_ssl.evaluation import Features, extract
from falcon_ssl.evaluation.knn import knn
from falcon_ssl.evaluation.linear_probe import linear_probe
from falcon_ssl.networks.patch_kmeans import PatchKMeans
from falcon_ssl.records.files import write_json
from falcon_ssl.records.folder import BASELINE
from falcon_ssl.records.provenance import environment

MOST_IMAGES = 10_000  # that patches are drawn from


class _Unit:
    """The view of the baseline: pixels in [0, 1]."""

    def evaluate(self, images: Tensor, /) -> Tensor:
        return unit_range(images)


def baseline(
    data: str,
    *,
    out: str | Path,
    reading: ReadingConfig | None = None,
    num_centers: int = 400,
    patch_size: int = 6,
    stride: int = 1,
    grid: int = 2,
    evaluation: EvaluationConfig | None = None,
    trust_code: bool = False,
) -> dict[str, Any]:
    """Fit `PatchKMeans` to the training images, evaluate it as a run is evaluated, write ``baseline.json``.

    Args:
        data: Labeled images with a test part, for example "parquet:PATH".
        out: Folder of the record.
        reading: How to read them; None for the defaults.
        num_centers: K; the representation has grid^2 K numbers.
        patch_size: Side of a patch in pixels.
        stride: Pixels between two patches.
        grid: Cells a side that features are averaged over.
        evaluation: Options of kNN, and the seed.
        trust_code: Whether code that files name may be run, see `falcon_ssl.trusting_code`.

    Returns:
        What the record holds: ``top1_linear``, ``top1_knn``, ``numbers_read``, seconds of each part, CPU seconds,
            options and environment.

    Raises:
        InputError: Images without labels or without a test part, or options out of range.
    """
    evaluation = evaluation or EvaluationConfig()
    with trusting_code(trust_code):
        splits = load_splits(data, reading)
    train, test = splits.train, splits.test
    if test is None or train.labels is None or test.labels is None:
        raise InputError(
            "the baseline needs labels and a test part",
            received=data,
            expected="labeled training and test images",
            fix="use --reading.holdout 0.2, or --reading.folder_labels true for folders of classes",
        )
    device = best_device()
    options = {
        "num_centers": num_centers,
        "patch_size": patch_size,
        "stride": stride,
        "grid": grid,
    }
    network = PatchKMeans(
        train.image_shape[0],
        **options,
        dtype=torch.bfloat16 if multiplies_bf16(device) else torch.float32,
    )
    ends, began = [time.perf_counter()], time.process_time()
    generator = torch.Generator().manual_seed(evaluation.seed)
    rows = torch.randperm(len(train), generator=generator)[:MOST_IMAGES]
    network.fit(unit_range(read_images(train, rows)[1]), seed=evaluation.seed)
    network.to(device)
    ends.append(time.perf_counter())

    def features(source: Source) -> Features:
        return extract(network, source, _Unit(), batch_size=64, device=device)

    train_features, test_features = features(train), features(test)
    ends.append(time.perf_counter())
    num_classes = int(train.labels.max()) + 1
    found = linear_probe(
        train_features, test_features, num_classes=num_classes, seed=evaluation.seed, device=device
    )
    ends.append(time.perf_counter())
    found |= knn(
        train_features,
        test_features,
        num_classes=num_classes,
        k=evaluation.knn_neighbors,
        temperature=evaluation.knn_temperature,
        components=evaluation.knn_components,
        device=device,
    )
    ends.append(time.perf_counter())
    parts = zip(("fit", "extract", "linear", "knn"), pairwise(ends), strict=True)
    record = {
        **found,
        "numbers_read": network.width,
        "seconds": {name: round(end - begin, 2) for name, (begin, end) in parts},
        # Of all threads: a busy machine does not stretch them.
        "cpu_seconds": round(time.process_time() - began, 2),
        "options": {
            **options,
            "knn_components": evaluation.knn_components,
            "seed": evaluation.seed,
        },
        "about": {**data_record(data, splits), **environment(hardware(device))},
    }
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / BASELINE, record)
    return record
