"""Quality while training: classifiers on held-out images, and a label-free choice of the best epoch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

import torch

from falcon_ssl.core.checks import check_at_least
from falcon_ssl.core.errors import InputError
from falcon_ssl.core.monitor import Moment, Observation
from falcon_ssl.data import Source
from falcon_ssl.evaluation.collapse import effective_rank, moments, spectrum
from falcon_ssl.evaluation.features import EvaluationView, Features, extract
from falcon_ssl.evaluation.knn import knn
from falcon_ssl.evaluation.linear_probe import linear_probe
from falcon_ssl.networks.readout import OWN, Readout

TRAIN_IMAGES = 10_000  # drawn at random for the classifiers; the final evaluation uses all


@dataclass(eq=False)
class QualityMonitor:
    """Every few epochs: kNN and linear probe on held-out images, and RankMe.

    RankMe (Garrido et al., 2023) is the effective rank of z: it needs no labels and predicts well which of several
    checkpoints is best. The epoch of its largest value is reported as ``rankme_best_epoch``.

    Args:
        held_out: Images that training does not see; the labels, if any, are only read here.
        views: Its ``evaluate`` makes the network's input.
        train: Labeled images for the classifiers to learn from; None leaves RankMe alone.
        every_epochs: Epochs between two evaluations.
        linear: Whether to fit a linear probe too, which takes longer than kNN.
        readout: What the classifiers read; RankMe is that of the network's own representation.
        knn_components: Principal components that kNN compares; None compares z itself.
        autocast: Whether the network computes in bfloat16.
        batch_size: Images of a forward pass.
        seed: Of the choice of train images and of the linear probe.

    Raises:
        InputError: An option out of range, or a train set without labels while there are labels to evaluate by.

    Distributed:
        Every rank does the whole of it and reports the same.
    """

    held_out: Source
    views: EvaluationView
    _: KW_ONLY
    train: Source | None = None
    every_epochs: int = 5
    linear: bool = False
    readout: Readout = OWN
    knn_components: int | None = None
    autocast: bool = False
    batch_size: int = 512
    seed: int = 0
    _best: dict[str, float] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        check_at_least("every_epochs", self.every_epochs, 1, fix="evaluate at most once an epoch")
        check_at_least("batch_size", self.batch_size, 1)
        if self.train is not None and (self.train.labels is None or self.held_out.labels is None):
            raise InputError(
                "the classifiers of the monitor need labels",
                received="images without labels",
                expected="labels in train and held_out, or train=None",
                fix="leave train out to watch RankMe alone",
            )

    def __call__(self, moment: Moment) -> Observation:
        """Numbers at the end of every few epochs, nothing in between."""
        epoch = round(moment.epoch)
        if not moment.is_epoch_end or epoch % self.every_epochs:
            return Observation()
        own = self._extract(moment, self.held_out)
        rank = effective_rank(spectrum(moments(own.z)))
        if self._best is None or rank > self._best["rank"]:
            self._best = {"rank": rank, "epoch": float(epoch)}
        found = {"effective_rank_z": rank, "rankme_best_epoch": self._best["epoch"]}
        if self.train is not None:
            generator = torch.Generator().manual_seed(self.seed)
            some = torch.randperm(len(self.train), generator=generator)[:TRAIN_IMAGES]
            read = {"readout": self.readout}
            train = self._extract(moment, self.train, indices=some, **read)
            test = own if self.readout.is_own else self._extract(moment, self.held_out, **read)
            assert train.label is not None
            assert test.label is not None
            num_classes = int(max(train.label.max(), test.label.max())) + 1
            found |= knn(train, test, num_classes=num_classes, components=self.knn_components)
            if self.linear:
                found |= linear_probe(train, test, num_classes=num_classes, seed=self.seed)
        return Observation(evaluation=found)

    def state_dict(self) -> dict[str, Any]:
        """The best epoch so far."""
        return {"best": self._best}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state_dict``."""
        self._best = state["best"]

    def _extract(self, moment: Moment, source: Source, **options: Any) -> Features:
        return extract(
            moment.method,
            source,
            self.views,
            batch_size=self.batch_size,
            device=moment.u_NF.device,
            autocast=self.autocast,
            **options,
        )
