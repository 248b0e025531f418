"""Whether a short run on the digits learned their classes."""

from __future__ import annotations

import functools
from pathlib import Path

import torch
from sklearn.metrics import adjusted_mutual_info_score

from falcon_ssl.commands.features import untrained
from falcon_ssl.commands.loading import load_run, prepare
from falcon_ssl.config import RunConfig
from falcon_ssl.data import Source
from falcon_ssl.evaluation import extract
from falcon_ssl.evaluation.clustering import kmeans_clusters
from falcon_ssl.methods import Method
from falcon_ssl.views import Views


def learned_classes(run: Path) -> float:
    """AMI of the classes and k-means on z, beyond that of the untrained encoder.

    Untrained convolutions already classify digits by neighbors, but do not cluster them.
    """
    loaded = load_run(run)
    assert loaded.splits.test is not None
    return _ami(loaded.method, loaded.splits.test, loaded.views) - _untrained_ami()


@functools.cache
def _untrained_ami() -> float:
    """The same for all methods: the encoder is initialized before the head."""
    run = prepare(RunConfig(data="digits"))
    assert run.splits.test is not None
    start = untrained(run.config, run.splits.train, trained=run.method, device=torch.device("cpu"))
    return _ami(start.eval(), run.splits.test, run.views)


def _ami(method: Method, test: Source, views: Views) -> float:
    features = extract(method, test, views)
    assert features.label is not None
    clusters = kmeans_clusters(features.z, num_clusters=10, seed=0)
    return float(adjusted_mutual_info_score(features.label.numpy(), clusters.numpy()))
