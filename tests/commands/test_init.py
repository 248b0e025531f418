"""A run that starts from weights: where they come from, what it is compared with, what is refused."""

from __future__ import annotations

import json
import logging
import shutil
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from falcon_ssl import cli, commands
from falcon_ssl.config import (
    EncoderConfig,
    EngineConfig,
    FalconConfig,
    InitConfig,
    MonitorConfig,
    RunConfig,
    ViewsConfig,
)
from falcon_ssl.core.errors import InputError
from falcon_ssl.engine import progress
from falcon_ssl.networks import build_encoder
from falcon_ssl.networks.timm import import_beside_torchvision
from falcon_ssl.report import build_report
from support.images import pixels
from support.short_runs import FEW_CODES, SHORT, Interrupter

CONFIG = RunConfig(
    epochs=1,
    batch_size=256,
    falcon=SHORT.falcon,
    monitor=MonitorConfig(every_epochs=0),
    engine=EngineConfig(precision="no", log_every=1),
)


def from_weights(weights: Path | str, **options: Any) -> RunConfig:
    partial = options.pop("partial", ())
    return replace(CONFIG, init=InitConfig(str(weights), partial), **options)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of digits_cnn of another width than auto's."""
    config = replace(CONFIG, encoder=EncoderConfig("digits_cnn", width=48), epochs=2)
    return commands.pretrain(config, out=tmp_path_factory.mktemp("first") / "run", monitors=[])


def trained(run: Path) -> dict[str, torch.Tensor]:
    return dict(commands.load_run(run).method.encoder.state_dict())


def started(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "initial.safetensors")


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


def as_file(run: Path, folder: Path) -> Path:
    file = folder / "encoder.safetensors"
    save_file(trained(run), file)
    return file


def as_pickle(run: Path, folder: Path) -> Path:
    file = folder / "checkpoint.pth"
    tensors = {f"module.{name}": value for name, value in trained(run).items()}
    torch.save({"epoch": 3, "state_dict": tensors}, file)
    return file


@pytest.mark.parametrize(
    ("make", "says_the_encoder"),
    [
        (lambda run, folder: run, True),
        (lambda run, folder: commands.export(run, out=folder / "plain"), True),
        (lambda run, folder: commands.export(run, out=folder / "hf", to="hf"), True),
        (lambda run, folder: commands.export(run, out=folder / "p") / "model.safetensors", True),
        (as_file, False),
        (as_pickle, False),
    ],
    ids=["run", "export", "hf", "file of an export", "file", "pickle"],
)
def test_every_source_gives_the_same_start(
    first: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    make: Callable[[Path, Path], Path],
    says_the_encoder: bool,
) -> None:
    weights = make(first, tmp_path)
    encoder = EncoderConfig() if says_the_encoder else EncoderConfig("digits_cnn", width=48)
    with caplog.at_level(logging.INFO):
        run = commands.pretrain(
            from_weights(weights, encoder=encoder), out=tmp_path / "run", monitors=[]
        )
    assert same(started(run), trained(first))
    assert not same(trained(run), trained(first))
    assert "15 of 15 tensors" in caplog.text
    assert "width: 48" in (run / "config.yaml").read_text()


def test_a_run_is_compared_with_what_it_started_from(
    first: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = tmp_path / "source"
    shutil.copytree(first, source)
    run = tmp_path / "run"
    words = ["pretrain", "--init", str(source), "--out", str(run), "--epochs", "1"]
    assert cli.main([*words, *FEW_CODES]) == 0
    shutil.rmtree(source)  # nobody needs it any more
    want = commands.evaluate(first)
    monkeypatch.setattr(progress, "_SOON", -1.0)
    monkeypatch.setattr(progress, "_EVERY", -1.0)
    caplog.clear()
    with caplog.at_level(logging.INFO, "falcon_ssl"):
        assert cli.main(["evaluate", str(run)]) == 0
    assert "initial weights: kNN" in caplog.messages
    assert "untrained" not in caplog.text
    printed = capsys.readouterr().out
    assert "initial weights" in printed
    assert "random encoder" not in printed
    found = json.loads((run / "evaluation.json").read_text())
    # The same numbers as the run that the weights are of, down to the statistics of its normalization.
    for name in ("top1_linear", "top1_knn", "effective_rank_z"):
        assert found["random_encoder"][name] == pytest.approx(want[name], abs=1e-6)
    assert found["random_encoder"]["effective_rank_z"] != want["random_encoder"]["effective_rank_z"]
    assert cli.main(["diagnose", str(run)]) == 0
    assert "initial" in capsys.readouterr().out
    page = build_report(run).read_text()
    assert "initial weights" in page
    assert "random encoder" not in page
    card = commands.export(run, out=tmp_path / "out") / "README.md"
    assert "| initial weights | source |" in card.read_text()


def test_a_stopped_run_resumes_without_its_source(first: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(first, source)
    config = from_weights(source, epochs=2)
    whole = commands.pretrain(config, out=tmp_path / "whole", monitors=[Interrupter()])
    broken = tmp_path / "broken"
    with pytest.raises(KeyboardInterrupt):
        commands.pretrain(config, out=broken, monitors=[Interrupter(7)])  # in the second epoch
    shutil.rmtree(source)
    commands.pretrain(config, out=broken, resume=True, monitors=[Interrupter()])
    assert same(trained(broken), trained(whole))
    assert same(started(broken), started(whole))
    mine, others = (
        stat.S_IMODE((whole / name).stat().st_mode)
        for name in ("initial.safetensors", "config.yaml")
    )
    assert mine == others, "readable by whom the umask lets"
    with pytest.raises(InputError, match="other values of init"):
        commands.pretrain(from_weights(first, epochs=2), out=broken, resume=True, monitors=[])


def test_the_teacher_starts_there_too(first: Path, tmp_path: Path) -> None:
    options = {"falcon": FalconConfig(), "method": "byol"}
    run = commands.pretrain(from_weights(first, **options), out=tmp_path / "run", monitors=[])
    from falcon_ssl.commands.features import untrained

    config, splits, _, method = commands.load_run(run)
    device = torch.device("cpu")
    before = untrained(config, splits.train, trained=method, device=device, run=run)
    assert same(dict(before.encoder.state_dict()), trained(first))
    assert same(dict(before.evaluated_encoder.state_dict()), trained(first))


def photos(folder: Path, *, seed: int = 0, channels: int = 3) -> Path:
    """Sixteen images."""
    folder.mkdir()
    for number in range(16):
        image = pixels(seed + number, size=(24, 24), channels=channels)
        Image.fromarray(image).save(folder / f"{number:02}.png")
    return folder


def test_a_fitted_stem_is_kept(tmp_path: Path) -> None:
    """The stem of whitened_cnn is part of the weights; only one that is missing is fitted to the new images."""
    photos(tmp_path / "one")
    photos(tmp_path / "two", seed=100)
    encoder = EncoderConfig("whitened_cnn", width=8, eigenvectors=8)
    own = {"encoder": encoder, "batch_size": 8, "data": f"folder:{tmp_path}/one"}
    run = commands.pretrain(replace(CONFIG, **own), out=tmp_path / "run", monitors=[])
    other = from_weights(run, **(own | {"data": f"folder:{tmp_path}/two"}))
    more = commands.pretrain(other, out=tmp_path / "more", monitors=[])
    assert torch.equal(trained(more)["stem.weight"], trained(run)["stem.weight"])
    file = tmp_path / "no_stem.safetensors"
    save_file({n: v for n, v in trained(run).items() if not n.startswith("stem")}, file)
    fresh = replace(other, init=InitConfig(str(file), ("stem",)))
    again = commands.pretrain(fresh, out=tmp_path / "again", monitors=[])
    assert torch.isfinite(trained(again)["stem.weight"]).all()
    assert not torch.equal(trained(again)["stem.weight"], trained(run)["stem.weight"])


def test_weights_of_timm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Against a local stand-in of timm's download: another image size, other channels, another normalization."""
    timm = import_beside_torchvision("timm")
    create = timm.create_model

    def downloaded(name: str, *, pretrained: bool = False, **options: Any) -> torch.nn.Module:
        torch.manual_seed(0)
        model: torch.nn.Module = create(name, pretrained=False, **options)
        return model

    monkeypatch.setattr(timm, "create_model", downloaded)
    name = "vit_tiny_patch16_224"
    config = from_weights(f"timm:{name}", encoder=EncoderConfig(patch_size=16))
    data = f"folder:{photos(tmp_path / 'gray', channels=1)}"
    config = replace(config, data=data, batch_size=8, views=ViewsConfig("grayscale", size=32))
    with caplog.at_level(logging.INFO):
        run = commands.pretrain(config, out=tmp_path / "run", monitors=[])
    assert f"encoder: timm:{name}, that of the initial weights" in caplog.text
    assert "pos_embed: 14 x 14 -> 2 x 2 positions, bicubic" in caplog.text
    assert "patch_embed.proj.weight: 3 -> 1 channels, summed" in caplog.text
    assert "trained with mean 0.5, 0.5, 0.5" in caplog.text
    theirs = downloaded(name, num_classes=0).state_dict()
    assert torch.equal(started(run)["blocks.3.mlp.fc1.weight"], theirs["blocks.3.mlp.fc1.weight"])
    monkeypatch.undo()
    commands.export(run, out=tmp_path / "hf", to="hf")  # of gray images
    folder = commands.export(run, out=tmp_path / "timm", to="timm")
    (folder / "falcon_ssl.json").unlink()  # as somebody else's folder, or repository
    again = replace(config, init=InitConfig(str(folder)), encoder=EncoderConfig())
    more = commands.pretrain(again, out=tmp_path / "more", monitors=[])
    assert same(started(more), trained(run))


def test_a_repository_of_the_hub(
    first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against a stand-in of the download, which gives a folder."""
    folder = commands.export(first, out=tmp_path / "hub", to="hf")
    asked: list[str] = []

    def downloaded(repo: str, *, allow_patterns: list[str]) -> str:
        asked.extend([repo, *allow_patterns])
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", downloaded)
    run = commands.pretrain(from_weights("hf:me/mine"), out=tmp_path / "run", monitors=[])
    assert same(started(run), trained(first))
    assert asked == ["me/mine", "*.json", "*.safetensors", "*.bin"]  # nothing that is code


def test_diagnose_takes_all_of_them(first: Path, tmp_path: Path) -> None:
    found = commands.diagnose("digits_cnn", data="digits", weights=save(tmp_path))
    assert found.verdict
    with pytest.raises(InputError, match="does not fit the encoder DigitsCNN"):
        commands.diagnose("digits_cnn", data="digits", weights=first)


def save(folder: Path) -> Path:
    file = folder / "own.safetensors"
    save_file(dict(build_encoder("digits_cnn", in_channels=1).state_dict()), file)
    return file


class _Evil:
    def __reduce__(self) -> Any:
        return print, ("ran",)


def test_what_is_refused_before_any_work(
    first: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    torch.save({"state_dict": _Evil()}, tmp_path / "evil.pth")
    (tmp_path / "broken.safetensors").write_bytes(b"no tensors")
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "empty").mkdir()
    torch.save({"a": torch.ones(2)}, tmp_path / "other.pth")
    program = commands.export(first, out=tmp_path / "torch", to="torch")
    cases = {
        "no initial weights": [tmp_path / "nowhere"],
        "hold more than tensors": [tmp_path / "evil.pth"],
        "cannot read the weights ": [tmp_path / "broken.safetensors"],
        "unknown kind of weights": [tmp_path / "notes.txt"],
        "holds no weights": [tmp_path / "empty"],
        "ONNX and torch.export hold programs": [program],
        "received 0 of 15 tensors": [tmp_path / "other.pth"],
        "unknown timm model": ["timm:resnet1818"],
        "cannot download": ["hf:me/nothing"],
        "and not 32x1x3x3": [first, "--encoder", "digits_cnn"],
        "names nothing that the weights lack": [first, "--init.partial", "body.0"],
    }
    for message, words in cases.items():
        out = tmp_path / "out"
        assert cli.main(["pretrain", "--out", str(out), "--init", *map(str, words)]) == 2, message
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1 or "falcon-ssl: error" in error.splitlines()[-1]
        assert not out.exists()
    assert cli.main(["pretrain", "--out", str(out), "--init.partial", "layer4"]) == 2
    assert "does nothing without init.weights" in capsys.readouterr().err
