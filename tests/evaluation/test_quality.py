import json

import pytest
import torch
from torch import Tensor, nn

from falcon_ssl.core.errors import InputError
from falcon_ssl.core.monitor import Moment
from falcon_ssl.data import TensorSource, load_splits
from falcon_ssl.evaluation import QualityMonitor


class Scaled(nn.Module):
    """Pixels as representation; the first ``rank`` of them, the others nearly 0."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.scale = nn.Parameter((torch.arange(64) < rank).float() + 1e-4)

    def embed(self, images: Tensor) -> tuple[Tensor, None]:
        return images.flatten(1) * self.scale, None


class Views:
    def evaluate(self, images: Tensor) -> Tensor:
        return images.float() / 255


def moment(epoch: float, *, rank: int = 64, is_epoch_end: bool = True) -> Moment:
    return Moment(10, epoch, {}, torch.ones(2, 2), Scaled(rank).train(), is_epoch_end)


def monitor(**options: object) -> QualityMonitor:
    splits = load_splits("digits")
    return QualityMonitor(splits.test, Views(), **({"train": splits.train} | options))


def test_numbers_come_every_few_epochs_and_only_at_their_end():
    watcher = monitor(every_epochs=2)
    assert watcher(moment(1.0)).evaluation == {}
    assert watcher(moment(2.0, is_epoch_end=False)).evaluation == {}
    found = watcher(moment(2.0)).evaluation
    assert found.keys() == {"effective_rank_z", "rankme_best_epoch", "top1_knn", "knn_best_epoch"}
    assert found["top1_knn"] > 0.95


def test_the_linear_probe_is_there_when_asked_for():
    found = monitor(every_epochs=1, linear=True)(moment(1.0)).evaluation
    assert found["top1_linear"] > 0.9


def test_the_network_keeps_its_mode():
    at = moment(5.0)
    monitor()(at)
    assert at.method.training


def test_rankme_names_the_best_epoch_and_remembers_it_over_a_resume():
    watcher = monitor(train=None, every_epochs=1)
    ranks = {1: 10, 2: 50, 3: 20}
    best = [
        watcher(moment(epoch, rank=rank)).evaluation["rankme_best_epoch"]
        for epoch, rank in ranks.items()
    ]
    assert best == [1, 2, 2]
    resumed = monitor(train=None, every_epochs=1)
    resumed.load_state_dict(json.loads(json.dumps(watcher.state_dict())))
    assert resumed(moment(4, rank=30)).evaluation["rankme_best_epoch"] == 2
    assert resumed(moment(5, rank=64)).evaluation["rankme_best_epoch"] == 5


def test_the_last_epoch_is_evaluated_too():
    watcher = monitor(train=None, every_epochs=5, last_epoch=7)
    evaluated = [epoch for epoch in range(1, 8) if watcher(moment(epoch)).evaluation]
    assert evaluated == [5, 7]


def test_best_names_the_checkpoints_to_keep():
    watcher = monitor(every_epochs=1)
    assert watcher(moment(1, rank=10)).best == ("best", "best_knn")
    assert watcher(moment(2, rank=64)).best == ("best", "best_knn")
    assert watcher(moment(3, rank=64)).best == ()  # equal is not better


def test_a_plateau_is_noted_once_and_not_at_the_end():
    watcher = monitor(train=None, every_epochs=1, plateau=2, last_epoch=9)
    ranks = [30, 20, 20, 20, 40, 20, 20, 20, 20]
    notes = {epoch: watcher(moment(epoch, rank=rank)).note for epoch, rank in enumerate(ranks, 1)}
    assert [epoch for epoch, note in notes.items() if note] == [3, 7]
    assert "RankMe has not risen in 2 probes" in notes[7]
    assert "at epoch 5" in notes[7]
    silent = monitor(train=None, every_epochs=1, plateau=0)
    assert not any(silent(moment(epoch, rank=70 - 10 * epoch)).note for epoch in range(1, 6))


def test_the_plateau_is_that_of_knn_where_there_are_labels_and_survives_a_resume():
    watcher = monitor(every_epochs=1, plateau=1)
    watcher(moment(1, rank=64))
    resumed = monitor(every_epochs=1, plateau=1)
    resumed.load_state_dict(json.loads(json.dumps(watcher.state_dict())))
    assert resumed(moment(2, rank=3)).note.startswith("epoch 2: kNN has not risen")


def test_images_without_labels_still_have_a_rank():
    unlabeled = TensorSource(load_splits("digits").test.images(torch.arange(50)), name="digits")
    found = QualityMonitor(unlabeled, Views(), every_epochs=1)(moment(1.0)).evaluation
    assert found.keys() == {"effective_rank_z", "rankme_best_epoch"}


def test_bad_options():
    with pytest.raises(InputError, match="every_epochs is too small"):
        monitor(every_epochs=0)
    with pytest.raises(InputError, match="batch_size is too small"):
        monitor(batch_size=0)
    unlabeled = TensorSource(torch.zeros(4, 1, 8, 8), name="black")
    with pytest.raises(InputError, match="the classifiers of the monitor need labels"):
        monitor(train=unlabeled)
