"""An exported encoder computes the same in the library that it is for, and says how it is used."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import falcon_ssl
from falcon_ssl import cli, commands
from falcon_ssl.commands import formats
from falcon_ssl.commands.export import DisagreementError
from falcon_ssl.commands.frozen import ReadEncoder
from falcon_ssl.commands.initial import read_initial
from falcon_ssl.config import (
    EncoderConfig,
    EngineConfig,
    EvaluationConfig,
    MonitorConfig,
    ReadingConfig,
    RunConfig,
    ViewsConfig,
)
from falcon_ssl.core.errors import InputError
from falcon_ssl.core.parts import part_name
from falcon_ssl.data.decode import decode
from falcon_ssl.evaluation import load_features
from falcon_ssl.networks import Readout
from support.images import pixels
from support.short_runs import SHORT

CONFIG = RunConfig(
    epochs=1,
    batch_size=12,
    falcon=SHORT.falcon,
    monitor=MonitorConfig(every_epochs=0),
    engine=EngineConfig(precision="no"),
)
# What else a process needs that runs the code of a card: it has not imported this library, and for ONNX not torch.
BESIDE_TORCHVISION = """
import torch
try:
    import torchvision
except RuntimeError:  # built for another torch, see falcon_ssl.networks.timm
    for name in ("nms", "qnms"):
        torch.library.define(f"torchvision::{name}", "(Tensor a, Tensor b, float c) -> Tensor")
torch.set_grad_enabled(False)
"""
BY_ITSELF = {
    ("digits_cnn", "onnx"): "",
    ("whitened_cnn", "onnx"): "",
    ("vit", "onnx"): "",
    ("resnet10", "hf"): BESIDE_TORCHVISION,
}
SAVE_ALONE = """
import sys
import numpy
assert "falcon_ssl" not in sys.modules
assert ("torch" in sys.modules) == hasattr(z, "detach")
numpy.save("z.npy", numpy.asarray(z))
"""
READ_MORE = EvaluationConfig(representation="last_two", mirror=True)
CELLS = EvaluationConfig(representation="pooled2x2", mirror=True)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(24):
        image = Image.fromarray(pixels(seed, size=(6, 7))).resize((50, 40 + seed))
        image.save(folder / f"{seed:02}.png")
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> dict[str, Path]:
    """One run a kind of network."""
    out = tmp_path_factory.mktemp("runs")
    of_photos = replace(CONFIG, data=f"folder:{photos}", reading=ReadingConfig(image_size=32))
    configs = {
        "digits_cnn": replace(CONFIG, batch_size=512, evaluation=READ_MORE),
        "whitened_cnn": replace(
            of_photos,
            encoder=EncoderConfig("whitened_cnn", width=16, head_width=24),
            views=ViewsConfig("cifar", size=24),
            evaluation=CELLS,
        ),
        "resnet8": replace(of_photos, encoder=EncoderConfig("resnet8", width=8)),
        "resnet10": replace(of_photos, encoder=EncoderConfig("resnet10", stem="imagenet")),
        "vit": replace(of_photos, encoder=EncoderConfig("timm:vit_tiny_patch16_224")),
    }
    for name, config in configs.items():
        commands.pretrain(config, out=out / name, monitors=[])
    return {name: out / name for name in configs}


def about(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "falcon_ssl.json").read_text())
    return found


@pytest.mark.parametrize(
    ("network", "to"),
    [
        ("digits_cnn", "safetensors"),
        ("digits_cnn", "onnx"),
        ("whitened_cnn", "hf"),
        ("whitened_cnn", "onnx"),
        ("whitened_cnn", "torch"),
        ("resnet8", "hf"),
        ("resnet10", "timm"),
        ("resnet10", "hf"),
        ("vit", "timm"),
        ("vit", "hf"),
        ("vit", "onnx"),
    ],
)
def test_a_folder_gives_the_features_of_the_run(
    runs: dict[str, Path],
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    network: str,
    to: formats.Format,
) -> None:
    """Checked against `embed`, which goes another way; then the code of the model card runs."""
    run, folder = runs[network], commands.export(runs[network], out=tmp_path / "out", to=to)
    verified = about(folder)["verified"]
    assert verified["relative_difference"] <= 1e-5
    assert verified["images"] == (100 if network == "digits_cnn" else 24)

    want = load_features(commands.embed(run, out=tmp_path / "z.npz", split="train")).z[:3]
    if network == "digits_cnn":
        files = [f"{tmp_path}/{n}.png" for n in range(3)]
        digits = falcon_ssl.data.load_splits("digits").train.images(torch.arange(3))
        for file, digit in zip(files, digits, strict=True):
            Image.fromarray(digit[0].numpy()).save(file)
    else:
        files = sorted(map(str, photos.iterdir()))[:3]
    encoder = falcon_ssl.load_encoder(folder, trust_code=to == "torch").train()
    assert not encoder.training
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    found = encoder(encoder.preprocess(files))
    torch.testing.assert_close(found, want, rtol=1e-5, atol=1e-5 * float(want.abs().max()))
    again = falcon_ssl.load_encoder(run)
    torch.testing.assert_close(found, again(again.preprocess(files)), rtol=1e-4, atol=1e-5)

    card = (folder / "README.md").read_text()
    assert "License" in card
    assert str(photos) not in card
    (code,) = re.findall(r"```python\n(.*?)```", card, re.S)
    seen = decode(Path(files[0]).read_bytes(), encoder.preprocess.image_shape)
    Image.fromarray(seen.permute(1, 2, 0).squeeze(2).numpy()).save(tmp_path / "cat.png")
    code = code.replace("cat.jpg", "cat.png")
    if (network, to) in BY_ITSELF:
        code = f"{BY_ITSELF[network, to]}\n{code}\n{SAVE_ALONE}"
        command = [sys.executable, "-I", "-c", code]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        z = torch.from_numpy(np.load(tmp_path / "z.npy"))
    else:
        monkeypatch.chdir(tmp_path)
        names: dict[str, Any] = {}
        exec(code, names)
        z = names["z"].detach()
    # Other libraries round to whole pixel values where they resize.
    rounded = 1e-5 if encoder.preprocess.size is None else 0.05
    torch.testing.assert_close(z, found[:1], rtol=rounded, atol=rounded * float(found.abs().max()))


def test_images_that_are_no_squares(tmp_path: Path) -> None:
    """They are resized to a square, as the run does, not cropped."""
    (tmp_path / "wide").mkdir()
    for seed in range(16):
        Image.fromarray(pixels(seed, size=(24, 40))).save(tmp_path / "wide" / f"{seed}.png")
    config = replace(CONFIG, data=f"folder:{tmp_path}/wide", batch_size=8)
    config = replace(config, encoder=EncoderConfig("resnet10", stem="imagenet"))
    config = replace(config, views=ViewsConfig("cifar", size=32))
    run = commands.pretrain(config, out=tmp_path / "run", monitors=[])
    for to in ("timm", "hf"):
        verified = about(commands.export(run, out=tmp_path / to, to=to))["verified"]
        assert verified["own_preprocessing"] < 0.05


def test_what_disagrees_is_not_left(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = formats._write_weights

    def slightly_wrong(folder: Path, encoder: torch.nn.Module, *rest: Any) -> None:
        encoder.body[0].weight.data *= 1 + 1e-4
        written(folder, encoder, *rest)
        encoder.body[0].weight.data /= 1 + 1e-4

    monkeypatch.setattr(formats, "_write_weights", slightly_wrong)
    with pytest.raises(DisagreementError, match="differs from the trained one"):
        commands.export(runs["digits_cnn"], out=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    commands.export(runs["digits_cnn"], out=tmp_path / "out")
    before = {file: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    monkeypatch.setattr(formats, "_write_weights", slightly_wrong)
    with pytest.raises(DisagreementError):
        commands.export(runs["digits_cnn"], out=tmp_path / "out", overwrite=True)
    assert before == {file: file.read_bytes() for file in (tmp_path / "out").iterdir()}


def test_timm_and_the_readout(
    runs: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """timm reads its own representation and the folder says so; transformers read what the run reads."""
    options = {"evaluation": {"representation": "last_n", "crops": 9}}
    for to in ("timm", "hf"):
        commands.export(runs["vit"], out=tmp_path / to, to=to, **options)
        assert about(tmp_path / to)["numbers_read"] == 4 * 192
        z = falcon_ssl.load_encoder(tmp_path / to)(torch.zeros(2, 3, 32, 32))
        assert z.shape == (2, 4 * 192)
    assert "timm reads the pooled representation, the run last_n, 9 crops" in caplog.text
    assert about(tmp_path / "timm")["verified"]["of"] == "pooled"
    assert about(tmp_path / "hf")["verified"]["of"] == "readout"
    assert "which timm does not have" in " ".join((tmp_path / "timm/README.md").read_text().split())


def test_the_card_has_the_numbers(runs: dict[str, Path], tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(runs["digits_cnn"], run)
    card = (commands.export(run, out=tmp_path / "before") / "README.md").read_text()
    assert "Not measured" in card
    found = commands.evaluate(run)
    card = (commands.export(run, out=tmp_path / "after") / "README.md").read_text()
    (row,) = re.findall(r"\| kNN, top-1 \| (.*?) \| (.*?) \| (.*?) \|", card)
    numbers = found["top1_knn"], found["random_encoder"]["top1_knn"], found["chance"]["top1"]
    assert row == tuple(f"{100 * number:.1f}\u202f%" for number in numbers)
    assert "over 100 images (test images of digits)" in card
    assert re.search(r"\| AMI of k-means on z \| .* \| 0\.000 \|", card), "adjusted for chance"
    assert "| precision | float32 |" in card


def test_without_the_images_random_ones_do(
    runs: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "moved"
    shutil.copytree(runs["resnet8"], run)
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(re.sub("folder:.*", "folder:gone", text))
    verified = about(commands.export(run, out=tmp_path / "out"))["verified"]
    assert (verified["images"], verified["source"]) == (100, "random images")
    assert "cannot be read" in caplog.text
    with pytest.raises(InputError, match="gone"):
        commands.export(run, out=tmp_path / "other", data="folder:gone")


def test_refusals_come_before_the_work(
    runs: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run, out = str(runs["digits_cnn"]), tmp_path / "out"
    cases = {
        "timm does not have this encoder": ["--to", "timm"],
        "unknown to: received tensorflow": ["--to", "tensorflow"],
        "no repository of the hub": ["--push_to_hub", "mine"],
        "does not let you in": ["--push_to_hub", "me/mine"],
        "does not fit the encoder DigitsCNN": ["--representation", "cls"],
    }
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for message, words in cases.items():
        assert cli.main(["export", run, "--out", str(out), *words]) == 2
        assert message in capsys.readouterr().err
        assert not out.exists()
    out.mkdir()
    (out / "thesis.txt").write_text("dear")
    assert cli.main(["export", run, "--out", str(out)]) == 2
    assert cli.main(["export", run, "--out", str(out), "--overwrite"]) == 2
    assert "would delete something else" in capsys.readouterr().err
    assert (out / "thesis.txt").read_text() == "dear"


def test_push(runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a stand-in of the hub: what is asked of it, and when."""
    calls: list[Any] = []

    class Hub:
        def whoami(self) -> None:
            calls.append("whoami")

        def create_repo(self, repo: str, *, private: bool, exist_ok: bool) -> None:
            calls.append((repo, private, exist_ok))

        def upload_folder(self, *, repo_id: str, folder_path: Path) -> None:
            calls.append((repo_id, sorted(file.name for file in Path(folder_path).iterdir())))

    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    commands.export(runs["digits_cnn"], out=tmp_path / "out", push_to_hub="me/mine")
    files = ["README.md", "falcon_ssl.json", "model.safetensors", "preprocessor_config.json"]
    assert calls == ["whoami", ("me/mine", True, True), ("me/mine", files)]


def test_images_that_cannot_be_read(runs: dict[str, Path], tmp_path: Path) -> None:
    encoder = falcon_ssl.load_encoder(runs["resnet8"])
    photo = Image.fromarray(pixels(3, size=(40, 60)))
    photo.save(tmp_path / "a.png")
    one, several = encoder.preprocess(photo), encoder.preprocess([tmp_path / "a.png", photo])
    assert torch.equal(torch.cat([one, one]), several)
    whole = torch.randint(256, (5, 3, 32, 32), dtype=torch.uint8)
    assert encoder.preprocess(whole).shape == (5, 3, 32, 32)
    (tmp_path / "b.jpg").write_text("no image")
    for wrong in (whole, whole[:, :1].float(), whole[0].float()):
        with pytest.raises(InputError, match=r"pass what encoder\.preprocess returns"):
            encoder(wrong)
    for wrong in (whole.float(), whole[:, :, :8], tmp_path / "b.jpg", tmp_path / "none.jpg", [], 3):
        with pytest.raises(InputError):
            encoder.preprocess(wrong)
    with pytest.raises(InputError, match="no encoder"):
        falcon_ssl.load_encoder(tmp_path)
    pixels_NCHW = encoder.preprocess(whole)
    z, half = encoder(pixels_NCHW), encoder.half()(pixels_NCHW)
    torch.testing.assert_close(half, z, atol=0.02 * float(z.abs().max()), rtol=0.02)


def test_a_damaged_folder_is_named(runs: dict[str, Path], tmp_path: Path) -> None:
    folder = commands.export(runs["digits_cnn"], out=tmp_path / "out")
    assert set(load_file(folder / "model.safetensors")) > {"body.0.weight"}
    about = (folder / "falcon_ssl.json").read_text()
    (folder / "falcon_ssl.json").write_text('{"to": "safetensors", "encoder": {"name": "resnet8"}}')
    for read in (falcon_ssl.load_encoder, lambda path: read_initial(str(path))):
        with pytest.raises(InputError, match=r"cannot read .*falcon_ssl\.json"):
            read(folder)
    (folder / "falcon_ssl.json").write_text(about)
    (folder / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(InputError, match="cannot read the exported encoder"):
        falcon_ssl.load_encoder(folder)


def test_a_card_takes_what_an_evaluation_has(runs: dict[str, Path], tmp_path: Path) -> None:
    """Accuracies with few labels stand beside chance; older records do not say what was read."""
    run = shutil.copytree(runs["digits_cnn"], tmp_path / "run")
    record = {
        "top1_linear_5shot": 0.4,
        "chance": {"top1": 0.101},
        "about": {"note": "the digits", "num_test": 360},
    }
    (run / "evaluation.json").write_text(json.dumps(record))
    card = (commands.export(run, out=tmp_path / "out") / "README.md").read_text()
    assert "the digits; 360 images." in card
    (line,) = [line for line in card.splitlines() if "5 labels a class" in line]
    assert line.endswith("|  | 10.1\u202f% |")


class Wrapped(torch.nn.Module):
    """Every name of its weights begins as those in a model of transformers do."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 4))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.encoder(images)
        return found


@pytest.mark.parametrize("to", ["safetensors", "hf"])
def test_a_network_that_calls_its_own_part_encoder(to: Any, tmp_path: Path) -> None:
    network = ReadEncoder(Wrapped(), Readout())
    about = {
        "to": to,
        "encoder": {"name": part_name("encoder", Wrapped)},
        "preprocessing": {"image_shape": [1, 8, 8], "size": None, "mean": [0.5], "std": [0.5]},
        "readout": asdict(Readout()),
    }
    formats.kind_of(to, network).write(tmp_path, network, about)
    images = torch.randn(3, 1, 8, 8)
    assert torch.equal(formats.read_network(tmp_path, about)(images), network(images))
