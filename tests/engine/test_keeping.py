"""Checkpoints that stay beside the last one are whole, named by what they are, and can be evaluated."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from falcon_ssl import commands
from falcon_ssl.config import EncoderConfig, EngineConfig, FalconConfig, OptimConfig, RunConfig
from falcon_ssl.config.evaluation import MonitorConfig
from falcon_ssl.core.errors import InputError
from falcon_ssl.core.monitor import Moment, Observation
from falcon_ssl.engine import RunFolder, read_state
from support.images import pixels

CONFIG = RunConfig(
    epochs=4,
    batch_size=512,
    falcon=FalconConfig(dictionary="rademacher", num_codes=64, embed_dim=16),
    optim=OptimConfig(warmup_epochs=1),
    engine=EngineConfig(device="cpu", log_every=1, keep=("best", "every:2")),
)
STEPS = 2  # an epoch


class BestAt:
    """A monitor to which one epoch is the best."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def __call__(self, moment: Moment) -> Observation:
        return Observation(best=("best",) if moment.epoch == self.epoch else ())

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("kept") / "run"
    return commands.pretrain(CONFIG, out=out, monitors=[BestAt(3)])


def test_best_and_every_nth_epoch_are_kept_as_they_were(run: Path) -> None:
    folder = RunFolder.open(run)
    assert folder.kept_names() == ["last", "best", "epoch_2", "epoch_4"]
    steps = {name: read_state(folder.kept(name))["step"] for name in folder.kept_names()}
    assert steps == {name: STEPS * e for name, e in zip(steps, (4, 3, 2, 4), strict=True)}
    weights = {
        name: load_file(folder.kept(name) / "model.safetensors") for name in folder.kept_names()
    }
    key = next(name for name, value in weights["last"].items() if value.dim() > 1)
    assert torch.equal(weights["epoch_4"][key], weights["last"][key])
    assert not torch.equal(weights["best"][key], weights["last"][key])


def test_a_kept_checkpoint_is_loaded_by_its_name(run: Path) -> None:
    best, last = (commands.load_run(run, checkpoint=name).method for name in ("best", "last"))
    assert any(
        not torch.equal(one, other)
        for one, other in zip(best.parameters(), last.parameters(), strict=True)
    )
    with pytest.raises(InputError, match=r"no such checkpoint.*epoch_3.*last, best, epoch_2"):
        commands.load_run(run, checkpoint="epoch_3")


def test_links_take_no_space_and_survive_the_next_checkpoint(run: Path) -> None:
    folder = RunFolder.open(run)
    model = [folder.kept(name) / "model.safetensors" for name in ("last", "epoch_4")]
    assert model[0].stat().st_ino == model[1].stat().st_ino


def test_a_crash_before_the_link_is_made_up_for_on_resume(run: Path, tmp_path: Path) -> None:
    copied = tmp_path / "run"
    shutil.copytree(run, copied)
    shutil.rmtree(copied / "checkpoint-epoch_4")
    commands.pretrain(CONFIG, out=copied, resume=True, monitors=[BestAt(3)])
    assert "epoch_4" in RunFolder.open(copied).kept_names()


def test_nothing_but_the_last_is_kept_where_nothing_else_is_asked_for(tmp_path: Path) -> None:
    engine = replace(CONFIG.engine, keep=("last",))
    out = tmp_path / "run"
    commands.pretrain(replace(CONFIG, epochs=1, engine=engine), out=out, monitors=[BestAt(1)])
    assert RunFolder.open(out).kept_names() == ["last"]


@pytest.mark.parametrize("word", ["first", "every:0", "every:", "every:x", "best_knn"])
def test_unknown_words_are_refused(word: str) -> None:
    with pytest.raises(InputError, match=r"unknown engine\.keep"):
        EngineConfig(keep=("best", word))


def test_a_run_says_which_epoch_was_best_and_keeps_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="falcon_ssl")
    run = commands.pretrain(replace(CONFIG, epochs=2), out=tmp_path / "run")
    assert "best of 1 epochs probed: epoch 2 by RankMe" in caplog.text
    assert "kept: best, best_knn" in caplog.text
    assert read_state(RunFolder.open(run).kept("best_knn"))["step"] == 2 * STEPS


def test_photographs_without_a_test_part_have_a_best_epoch_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="falcon_ssl")
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(16):
        Image.fromarray(pixels(number, size=(20, 20))).save(photos / f"{number}.png")
    config = replace(
        CONFIG,
        data=f"folder:{photos}",
        batch_size=8,
        encoder=EncoderConfig("resnet8", width=4),
        monitor=MonitorConfig(every_epochs=2),
    )
    run = commands.pretrain(config, out=tmp_path / "run")
    probed = [line for line in RunFolder.open(run).metrics() if "monitor" in line]
    assert [line["epoch"] for line in probed] == [2, 4]
    assert {*probed[0]["monitor"]} == {"effective_rank_z", "rankme_best_epoch"}
    assert "best of 2 epochs probed: epoch" in caplog.text
    assert "best" in RunFolder.open(run).kept_names()
