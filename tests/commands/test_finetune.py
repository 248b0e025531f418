"""Fine-tuning beside the same from scratch: rates by depth, an early stop that never ends below the probe."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from falcon_ssl import cli, commands
from falcon_ssl.commands.finetune import _stop_by
from falcon_ssl.commands.initial import read_initial
from falcon_ssl.config import EncoderConfig, FalconConfig, RunConfig
from falcon_ssl.config.finetune import FinetuneConfig
from falcon_ssl.core.errors import InputError
from falcon_ssl.engine import progress
from falcon_ssl.engine.finetune import Classifier, _groups, block_numbers
from falcon_ssl.networks import build_encoder

FEW = FinetuneConfig(labels=4, draws=2, epochs=2, lr=1e-3)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = RunConfig(
        epochs=6, falcon=FalconConfig(dictionary="rademacher", num_codes=64, embed_dim=16)
    )
    return commands.pretrain(config, out=tmp_path_factory.mktemp("finetune") / "run", monitors=[])


def test_both_arms_are_trained_and_recorded(
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(progress, "_SOON", -1.0)
    monkeypatch.setattr(progress, "_EVERY", -1.0)
    monkeypatch.setattr(progress, "_WORTH_SAYING", 0.0)  # a fast machine has too little left
    caplog.set_level(logging.INFO, "falcon_ssl")
    record = commands.finetune(run, out=tmp_path / "f", config=FEW)
    assert record == json.loads((tmp_path / "f" / "finetune.json").read_text())
    assert record["about"]["num_labels"] == 40
    for arm in ("pretrained", "from_scratch"):
        assert len(record[arm]["draws"]) == 2
        assert record["chance"] < record[arm]["top1"] < 1
    assert record["pretrained"]["top1"] > record["from_scratch"]["top1"] + 0.1
    lines = "\n".join(caplog.messages)
    for arm in ("pretrained", "from scratch"):
        begun = f"draw 2, 40 labels, {arm}: 16 of 32 images in at most 2 epochs"
        assert re.search(rf"^{begun}, \d+ a second, about .+ left$", lines, re.M)
    weights = load_file(tmp_path / "f" / "model.safetensors")
    assert weights["head.weight"].shape == (10, 256)
    initial = read_initial(str(tmp_path / "f" / "model.safetensors"))  # a run may start from it
    assert initial.encoder == EncoderConfig(name="digits_cnn")
    encoder = build_encoder("digits_cnn", in_channels=1)
    initial.fill(encoder, in_channels=1)
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, weights[f"encoder.{name}"])


def test_it_begins_as_the_linear_probe(run: Path, tmp_path: Path) -> None:
    """With a rate of nearly nothing the first epoch is never beaten, and the probe is what is left."""
    config = FinetuneConfig(labels=0.1, draws=1, epochs=1, lr=1e-12, scratch=False)
    record = commands.finetune(run, out=tmp_path / "f", config=config)
    (draw,) = record["pretrained"]["draws"]
    assert draw["epoch"] == 0
    assert draw["top1"] > 0.75
    assert "from_scratch" not in record
    name, value = next(iter(commands.load_run(run).method.evaluated_encoder.state_dict().items()))
    kept = load_file(tmp_path / "f" / "model.safetensors")
    torch.testing.assert_close(kept[f"encoder.{name}"], value)


@pytest.mark.parametrize(
    ("name", "blocks"),
    [
        (
            "digits_cnn",
            {"body.0.weight": 1, "body.1.weight": 1, "body.3.weight": 2, "body.6.weight": 3},
        ),
        (
            "resnet10",
            {
                "conv1.weight": 0,
                "bn1.weight": 0,
                "layer1.0.conv1.weight": 1,
                "layer4.0.bn2.bias": 4,
            },
        ),
    ],
)
def test_blocks_are_counted_from_the_images_on(name: str, blocks: dict[str, int]) -> None:
    found = block_numbers(build_encoder(name, in_channels=1, width=8))
    assert {key: found[key] for key in blocks} == blocks


def test_early_blocks_learn_more_slowly_and_vectors_do_not_decay() -> None:
    encoder = build_encoder("digits_cnn", in_channels=1, width=8)
    classifier = Classifier(encoder, width=32, num_classes=3)
    groups = _groups(classifier, FinetuneConfig(weight_decay=0.1), 1.0, 0.5)
    names = [name for name, _ in classifier.named_parameters()]
    rates = {name: group["lr"] for name, group in zip(names, groups, strict=True)}
    assert rates["head.weight"] == 1.0
    assert rates["encoder.body.6.weight"] == 0.5
    assert rates["encoder.body.0.weight"] == rates["encoder.body.1.bias"] == 0.125
    decays = {name: group["weight_decay"] for name, group in zip(names, groups, strict=True)}
    assert (decays["head.weight"], decays["head.bias"]) == (0.1, 0.0)


def test_every_class_that_can_gives_an_image_to_stop_by() -> None:
    label = torch.tensor([0] * 10 + [1] * 2 + [2])
    kept, left_out = _stop_by(label, torch.arange(13), seed=0)
    assert label[left_out].bincount(minlength=3).tolist() == [2, 1, 0]
    assert sorted([*kept.tolist(), *left_out.tolist()]) == list(range(13))
    with pytest.raises(InputError, match="two of a class"):
        _stop_by(label, torch.tensor([0, 10, 12]), seed=0)


def test_the_command_line(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "f"
    words = ["finetune", str(run), "--out", str(out)]
    few = ["--finetune.labels", "3", "--finetune.draws", "1", "--finetune.epochs", "1"]
    assert cli.main([*words, *few]) == 0
    printed = capsys.readouterr().out
    assert "30 labels, 360 test images" in printed
    assert "from scratch" in printed
    photos = tmp_path / "photos"
    photos.mkdir()
    for bad, message in (
        (words, "the folder exists"),
        ([*words, "--overwrite", "--finetune.labels", "1"], "too few labeled images"),
        ([*words, "--overwrite", "--finetune.labels", "2.5"], "unknown amount in finetune.labels"),
        ([*words, "--overwrite", "--finetune.labels", "0"], "finetune.labels is not positive"),
        ([*words, "--overwrite", "--data", f"folder:{photos}"], "has no images"),
    ):
        assert cli.main(bad) == 2
        assert message in capsys.readouterr().err
    assert (out / "finetune.json").is_file()


def test_pretrained_statistics_are_kept(run: Path, tmp_path: Path) -> None:
    """With a rate of nothing the classifier of the last epoch is that of the first: few images change no statistics."""
    before = commands.load_run(run).method.evaluated_encoder.state_dict()
    commands.finetune(run, out=tmp_path / "f", config=replace(FEW, draws=1, scratch=False))
    after = load_file(tmp_path / "f" / "model.safetensors")
    statistics = [name for name in before if name.endswith("running_mean")]
    assert statistics
    for name in statistics:
        assert torch.equal(after[f"encoder.{name}"], before[name]), name
