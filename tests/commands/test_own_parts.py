"""A user's own encoder, data set and views in a run: resumed, read back by every command, refused in words."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import falcon_ssl
from falcon_ssl import commands
from falcon_ssl.config import EncoderConfig, FalconConfig, ReadingConfig, RunConfig, ViewsConfig
from falcon_ssl.core.errors import InputError
from falcon_ssl.core.parts import part_name
from falcon_ssl.data import DatasetSource, load_splits
from falcon_ssl.evaluation import load_features
from falcon_ssl.methods import build_method
from falcon_ssl.networks import build_encoder
from falcon_ssl.report import build_report
from falcon_ssl.views import BatchSlice, ImageTransform, Normalization, Views, build_views
from support.short_runs import SHORT, Interrupter, differing

EXAMPLES = Path(__file__).parents[2] / "examples"
sys.path.insert(0, str(EXAMPLES))
import my_parts  # noqa: E402

CONFIG = replace(SHORT, engine=replace(SHORT.engine, precision="no"))
OWN = {"encoder": my_parts.encoder, "data": my_parts.data, "views": my_parts.views}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return commands.pretrain(CONFIG, out=tmp_path_factory.mktemp("own") / "run", **OWN)


def test_the_configuration_names_the_parts(run: Path) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["data"] == "python:my_parts:data"
    assert config["encoder"]["name"] == "python:my_parts:encoder"
    assert config["views"]["preset"] == "python:my_parts:views"


def test_every_command_takes_the_run(run: Path, tmp_path: Path) -> None:
    numbers = commands.evaluate(run)
    assert numbers["top1_knn"] > 0.5, "ten classes"
    assert numbers["about"]["num_test"] == 357
    assert commands.diagnose(run).sentence
    assert "my_parts" in build_report(run).read_text()
    features = load_features(commands.embed(run, out=tmp_path / "z.npz", split="test"))
    assert features.z.shape == (357, 256)
    encoder = falcon_ssl.load_encoder(run)
    images = load_splits("python:my_parts:data").test.images(torch.arange(3))  # type: ignore[union-attr]
    found = encoder(encoder.preprocess(images)).numpy()
    assert np.allclose(found, features.z[:3], atol=1e-4)
    commands.export(run, to="safetensors", out=tmp_path / "out")
    again = falcon_ssl.load_encoder(tmp_path / "out")
    assert np.allclose(again(again.preprocess(images)).numpy(), found, atol=1e-5)


def test_a_stopped_run_resumes_bit_by_bit(run: Path, tmp_path: Path) -> None:
    stopped = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        commands.pretrain(CONFIG, out=stopped, monitors=[Interrupter(5)], **OWN)
    commands.pretrain(CONFIG, out=stopped, resume=True, monitors=[Interrupter()], **OWN)
    assert differing(run, stopped) == []


def test_a_method_of_ones_own_is_trained_read_back_and_resumed(tmp_path: Path) -> None:
    run, stopped = tmp_path / "run", tmp_path / "stopped"
    config = replace(CONFIG, falcon=FalconConfig())
    own = {"method": my_parts.AlignmentUniformity}
    commands.pretrain(config, out=run, **own)
    name = yaml.safe_load((run / "config.yaml").read_text())["method"]
    assert name == "python:my_parts:AlignmentUniformity"
    steps = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    values = [step["uniformity"] for step in steps if "uniformity" in step]
    assert values[-1] < values[0], "images part"
    assert commands.evaluate(run)["top1_knn"] > 0.5, "ten classes"
    assert "AlignmentUniformity" in build_report(run).read_text()
    with pytest.raises(KeyboardInterrupt):
        commands.pretrain(config, out=stopped, monitors=[Interrupter(5)], **own)
    commands.pretrain(config, out=stopped, resume=True, monitors=[Interrupter()], **own)
    assert differing(run, stopped) == []


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("python:builtins:len", "does not return a method"),
        ("python:my_parts:none", "cannot import the method"),
        ("vicregg", "unknown method"),
    ],
)
def test_names_of_no_method(method: str, words: str) -> None:
    with falcon_ssl.trusting_code(), pytest.raises(InputError, match=words):
        build_method(
            RunConfig(method=method, encoder=EncoderConfig("digits_cnn")), image_shape=(1, 8, 8)
        )


def test_a_method_of_ones_own_asks_for_consent_and_takes_no_options_of_others() -> None:
    config = RunConfig(
        method="python:elsewhere:AlignmentUniformity", encoder=EncoderConfig("digits_cnn")
    )
    with pytest.raises(InputError, match="AlignmentUniformity of the module elsewhere"):
        build_method(config, image_shape=(1, 8, 8))
    with pytest.raises(InputError, match=r"falcon\.beta does not apply"):
        RunConfig(method="python:my_parts:AlignmentUniformity", falcon=FalconConfig(beta=1.0))


def test_resuming_without_the_parts_is_refused(run: Path) -> None:
    with pytest.raises(InputError, match="other values of data"):
        commands.pretrain(CONFIG, out=run, resume=True)


@pytest.mark.parametrize(
    ("encoder", "error"),
    [
        (lambda: nn.Flatten(), "is not an importable function"),
        (nn.Flatten(), "is not an importable function"),
        ("resnet18", "is a name: .*RunConfig"),
    ],
    ids=["lambda", "module", "text"],
)
def test_parts_that_nobody_can_import_are_refused_before_any_work(
    encoder: object, error: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=f"encoder {error}"):
        commands.pretrain(SHORT, out=tmp_path / "run", encoder=encoder)  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("python:no_such_module:make", "No module named"),
        ("python:my_parts:none", "no attribute"),
        ("python:my_parts", "not enough values"),
        ("python:my_parts:data", "does not return an encoder"),
        ("python:math:pi", "not made by a function"),
    ],
)
def test_names_of_no_encoder(name: str, words: str) -> None:
    with falcon_ssl.trusting_code(), pytest.raises(InputError, match=words):
        build_encoder(name, in_channels=1)


def test_options_of_named_parts_are_refused() -> None:
    with pytest.raises(InputError, match="does not take the option width"):
        commands.pretrain(
            replace(SHORT, encoder=EncoderConfig(width=8)), out="unused", encoder=my_parts.encoder
        )
    with pytest.raises(InputError, match="do not take the option size"):
        build_views(ViewsConfig("python:my_parts:views", size=8))
    with falcon_ssl.trusting_code(), pytest.raises(InputError, match="does not return views"):
        build_views("python:my_parts:encoder")


class Photos:
    """Pillow images of several sizes, without labels."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Image.Image:
        return Image.new("RGB", (20 + index, 16), (10 * index, 0, 0))


def photos() -> Photos:
    return Photos()


def test_pillow_images_are_brought_to_one_size() -> None:
    name = part_name("data", photos)
    splits = load_splits(name, ReadingConfig(image_size=8))
    assert splits.train.image_shape == (3, 8, 8)
    assert splits.train.images(torch.tensor([2]))[0, 0].float().mean() == 20
    assert splits.train.labels is None
    assert splits.test is None
    on_demand = load_splits(name, ReadingConfig(image_size=8, in_memory=False)).train
    assert torch.equal(on_demand.images(torch.arange(3)), splits.train.images(torch.arange(3)))


@pytest.mark.parametrize(
    ("items", "words"),
    [
        ([], "is empty"),
        (["a.jpg"], "is no image"),
        ([torch.zeros(3, 8, 8), torch.zeros(3, 9, 8)], "image 1 of x has another shape"),
        ([torch.full((3, 8, 8), 7.0)], "out of range"),
        ([torch.full((3, 8, 8), torch.nan)], "NaN"),
    ],
)
def test_data_sets_that_are_none(items: list[object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        DatasetSource(items, name="x").decoded()


def test_labels_come_from_targets_or_items() -> None:
    images, labels = torch.zeros(4, 1, 8, 8), torch.tensor([3, 1, 2, 0])
    assert torch.equal(
        DatasetSource(TensorDataset(images, labels), name="x").decoded().labels, labels
    )
    arrays = [(np.zeros((8, 6, 3), np.uint8), 1)]
    assert DatasetSource(arrays, name="x").decoded().image_shape == (3, 8, 6)


@pytest.mark.parametrize(
    "label",
    ["cat.jpg", 0.5, -1, None, np.array([1, 2]), {"boxes": 1}],
    ids=["word", "fraction", "unknown", "none", "several", "mapping"],
)
def test_what_is_no_label_is_not_taken_for_one(label: object) -> None:
    """A set may return a path beside an image, or -1 where the class is not known."""
    source = DatasetSource([(torch.zeros(1, 8, 8), label)] * 3, name="x")
    assert source.decoded().labels is None
    assert (
        DatasetSource([(torch.zeros(1, 8, 8), np.int64(2))] * 3, name="x").decoded().labels
        is not None
    )

    class Named(list[object]):
        targets = (label,) * 3

    assert DatasetSource(Named([torch.zeros(1, 8, 8)] * 3), name="x").labels is None


def noisy(image: Tensor) -> Tensor:
    return (image + torch.randn_like(image)).clamp(0, 1)


def test_transforms_are_a_function_of_the_generator_and_leave_the_global_one() -> None:
    views = Views([[ImageTransform(noisy)]], normalization=Normalization((0.5,), (0.5,)))
    images = torch.full((6, 1, 4, 4), 128, dtype=torch.uint8)
    state = torch.get_rng_state()
    (whole,) = views(images, generator=torch.Generator().manual_seed(1))
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(whole[0], whole[1]), "every image has a draw of its own"
    slices = [
        views(images[at : at + 3], generator=BatchSlice(torch.Generator().manual_seed(1), at, 6))[0]
        for at in (0, 3)
    ]
    assert torch.equal(torch.cat(slices), whole), "ranks draw what one process would"
    assert not torch.equal(views(images, generator=torch.Generator().manual_seed(2))[0], whole)


def test_a_transform_that_returns_no_images_is_named() -> None:
    views = Views([[ImageTransform(torch.mean)]], normalization=Normalization((0.5,), (0.5,)))
    with pytest.raises(InputError, match="does not return images"):
        views(torch.zeros(2, 1, 4, 4, dtype=torch.uint8), generator=torch.Generator())


def test_the_command_line_takes_the_same_names() -> None:
    from falcon_ssl.cli.commands import COMMANDS
    from falcon_ssl.cli.parser import parse

    words = [
        "--encoder.name",
        "python:my_parts:encoder",
        "--data",
        "python:my_parts:data",
        "--out",
        "x",
    ]
    assert parse("pretrain", COMMANDS["pretrain"], words)
    assert RunConfig(data="python:my_parts:data")
