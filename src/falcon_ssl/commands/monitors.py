"""What watches a run while it trains."""

from __future__ import annotations

import torch

from falcon_ssl.commands.features import reads_bf16
from falcon_ssl.commands.loading import RunParts
from falcon_ssl.core.devices import named_device
from falcon_ssl.core.monitor import Monitor
from falcon_ssl.data import Source
from falcon_ssl.data.subset import Subset
from falcon_ssl.evaluation import AlarmMonitor, QualityMonitor
from falcon_ssl.evaluation.quality import TRAIN_IMAGES
from falcon_ssl.methods import Falcon
from falcon_ssl.networks import Readout


def default_monitors(run: RunParts) -> list[Monitor]:
    """The library's own monitors: alarms at every logged step, RankMe and kNN every few epochs."""
    config, splits, views, method = run
    monitors: list[Monitor] = [
        AlarmMonitor(
            method.dictionary,
            logit_scale=method.logit_scale,
            beta=config.falcon.beta,
            prior_matching=method.loss.prior_matching if isinstance(method, Falcon) else "reverse",
            unbiased=isinstance(method, Falcon) and method.loss.is_estimate,
            marginal_momentum=config.falcon.marginal_momentum,
            uniform_prior=config.falcon.prior_exponent == 0,
            batch_size=config.batch_size,
            stuck_values=method.stuck_values(config.batch_size),
            few_codes_hint=method.few_codes_hint,
            on_collapse=config.monitor.on_collapse,
            patience=config.monitor.patience,
        )
    ]
    probed = splits.test
    if probed is None:
        probed = _training_images(splits.train, seed=config.evaluation.seed)
    if config.monitor.every_epochs and probed is not None:
        labeled = splits.num_classes is not None
        monitors.append(
            QualityMonitor(
                probed,
                views,
                train=splits.train if labeled else None,
                every_epochs=config.monitor.every_epochs,
                last_epoch=config.epochs,
                plateau=config.monitor.plateau,
                linear=config.monitor.linear and labeled,
                knn_components=config.evaluation.knn_components,
                readout=Readout.of(config.evaluation),
                autocast=reads_bf16(config, named_device(config.engine.device)),
                batch_size=config.evaluation.batch_size,
                seed=config.evaluation.seed,
            )
        )
    return monitors


def _training_images(source: Source, *, seed: int) -> Source | None:
    """At most `TRAIN_IMAGES` of them, to compute RankMe of; None for sets that are only read in one order."""
    if getattr(source, "blocks", None) is not None:
        return None
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randperm(len(source), generator=generator)[:TRAIN_IMAGES].sort().values
    return Subset(source, rows, name=f"{len(rows)} training images of {source.name}")
