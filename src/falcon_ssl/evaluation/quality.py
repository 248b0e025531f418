"""Quality while training: RankMe, classifiers on held-out images, the best epoch so far, when no more is gained."""

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
from falcon_ssl.records.best import MEASURES

TRAIN_IMAGES = 10_000  # drawn at random for the classifiers; the final evaluation uses all


@dataclass(eq=False)
class QualityMonitor:
    """Every few epochs: RankMe, and with labels kNN and a linear probe on held-out images.

    RankMe (Garrido et al., 2023) is the effective rank of z: it needs no labels and predicts well which of several
    checkpoints is best; its paper computes it on training images, so they serve where no others are. The epoch of its
    largest value is reported as ``rankme_best_epoch`` and its checkpoint is kept as "best"; with labels, the epoch of
    the highest kNN too, as "best_knn".

    Args:
        probed: Images that training does not see, as classifiers need them; without ``train`` also those of training.
            Labels, if any, are only read here.
        views: Its ``evaluate`` makes the network's input.
        train: Labeled images for the classifiers to learn from; None leaves RankMe alone.
        every_epochs: Epochs between two evaluations.
        last_epoch: Of the run, which is evaluated too; None leaves it to ``every_epochs``.
        plateau: Evaluations in a row without a new best, of kNN or else of RankMe, after which a note says so; 0 says
            nothing.
        linear: Whether to fit a linear probe too, which takes longer than kNN.
        readout: What the classifiers read; RankMe is that of the network's own representation.
        knn_components: Principal components that kNN compares; None compares z itself.
        autocast: Whether the network computes in bfloat16.
        batch_size: Images of a forward pass.
        seed: Of the choice of train images and of the linear probe.

    Raises:
        InputError: An option out of range, or a train set without labels while there are labels to evaluate by.

    Distributed:
        Ranks share the images; the numbers are computed by every rank, and the same.
    """

    probed: Source
    views: EvaluationView
    _: KW_ONLY
    train: Source | None = None
    every_epochs: int = 5
    last_epoch: int | None = None
    plateau: int = 3
    linear: bool = False
    readout: Readout = OWN
    knn_components: int | None = None
    autocast: bool = False
    batch_size: int = 512
    seed: int = 0
    _best: dict[str, dict[str, float]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        check_at_least("every_epochs", self.every_epochs, 1, fix="evaluate at most once an epoch")
        check_at_least("batch_size", self.batch_size, 1)
        if self.train is not None and (self.train.labels is None or self.probed.labels is None):
            raise InputError(
                "the classifiers of the monitor need labels",
                received="images without labels",
                expected="labels in train and in the probed images, or train=None",
                fix="leave train out to watch RankMe alone",
            )

    def __call__(self, moment: Moment) -> Observation:
        """Numbers at the end of every few epochs, nothing in between."""
        epoch = round(moment.epoch)
        is_due = epoch == self.last_epoch or epoch % self.every_epochs == 0
        if not moment.is_epoch_end or not is_due:
            return Observation()
        own = self._extract(moment, self.probed)
        rank = effective_rank(spectrum(moments(own.z)))
        found = {"effective_rank_z": rank}
        if self.train is not None:
            generator = torch.Generator().manual_seed(self.seed)
            some = torch.randperm(len(self.train), generator=generator)[:TRAIN_IMAGES]
            read = {"readout": self.readout}
            train = self._extract(moment, self.train, indices=some, **read)
            test = own if self.readout.is_own else self._extract(moment, self.probed, **read)
            assert train.label is not None
            assert test.label is not None
            num_classes = int(max(train.label.max(), test.label.max())) + 1
            found |= knn(train, test, num_classes=num_classes, components=self.knn_components)
            if self.linear:
                found |= linear_probe(train, test, num_classes=num_classes, seed=self.seed)
        best = tuple(name for name in MEASURES if self._is_best(name, epoch, found))
        found |= {MEASURES[name].best_epoch: best["epoch"] for name, best in self._best.items()}
        return Observation(evaluation=found, best=best, note=self._note(epoch))

    def _is_best(self, name: str, epoch: int, found: Mapping[str, float]) -> bool:
        """Whether a measure has risen above all before; counts the evaluations since it last did."""
        if (value := found.get(MEASURES[name].key)) is None:
            return False
        best = self._best.get(name)
        if best is None or value > best["value"]:
            self._best[name] = {"value": value, "epoch": float(epoch), "since": 0}
            return True
        best["since"] += 1
        return False

    def _note(self, epoch: int) -> str:
        """A sentence once no more is gained; nothing at the last epoch, whose summary says as much."""
        name = "best" if self.train is None else "best_knn"
        best = self._best[name]
        if not self.plateau or best["since"] != self.plateau or epoch == self.last_epoch:
            return ""
        measure = MEASURES[name]
        return (
            f"epoch {epoch}: {measure.title} has not risen in {self.plateau} probes; "
            f"best {measure.form.format(best['value'])} at epoch {best['epoch']:.0f}"
        )

    def state_dict(self) -> dict[str, Any]:
        """The best epochs so far."""
        return {"best": self._best}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state_dict``."""
        self._best = dict(state["best"])

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
