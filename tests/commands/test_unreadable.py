"""Images that cannot be read: left out of everything, wherever they are found, and logged once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from falcon_ssl import commands
from falcon_ssl.commands.features import untrained
from falcon_ssl.commands.loading import build
from falcon_ssl.commands.resolve import resolve
from falcon_ssl.config.run import ReadingConfig, RunConfig, from_mapping
from falcon_ssl.data import Source, TensorSource, load_splits, reading
from falcon_ssl.data.folder import FolderRecords
from falcon_ssl.evaluation import load_features

GOOD, BROKEN = 40, ("cats/04.png", "dogs/21.png")  # one is held out and one trained on


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bright images in two class folders; two of them break off after their head."""
    root = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for i in range(GOOD + len(BROKEN)):
        path = root / ("dogs" if i % 3 == 0 else "cats") / f"{i:02d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(random.integers(64, 256, (16, 16, 3), dtype=np.uint8)).save(path)
    for name in BROKEN:
        (root / name).write_bytes((root / name).read_bytes()[:200])
    return root


def configuration(photos: Path, *, in_memory: bool) -> RunConfig:
    return from_mapping(
        {
            "data": f"folder:{photos}",
            "reading": {
                "folder_labels": True,
                "in_memory": in_memory,
                "max_unreadable": 0.2,
                "holdout": 0.3,
            },
            "encoder": {"name": "resnet8", "width": 4},
            "falcon": {"dictionary": "rademacher", "num_codes": 64, "embed_dim": 16},
            "batch_size": 8,
            "epochs": 1,
            "optim": {"warmup_epochs": 0},
            "monitor": {"every_epochs": 1},
        }
    )


@pytest.mark.parametrize("in_memory", [True, False])
def test_no_row_of_an_evaluation_is_a_black_image(
    photos: Path, tmp_path: Path, in_memory: bool
) -> None:
    run = commands.pretrain(configuration(photos, in_memory=in_memory), out=tmp_path / "run")
    about = commands.evaluate(run)["about"]
    assert about["num_train"] + about["num_test"] == GOOD
    with np.load(run / "arrays.npz") as arrays:
        thumbnails = arrays["map_thumbnails"]
    assert len(thumbnails) == about["num_test"]
    assert thumbnails.min() >= 64, "a picture of the report shows an image that cannot be read"


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("split", ["train", "test"])
def test_embedded_rows_are_found_again_among_the_files(
    photos: Path, tmp_path: Path, split: str, in_memory: bool
) -> None:
    run = commands.pretrain(configuration(photos, in_memory=in_memory), out=tmp_path / "run")
    features = load_features(commands.embed(run, out=tmp_path / "z.npz", split=split))
    files = sorted(photos.rglob("*.png"))
    named = [files[i] for i in np.load(tmp_path / "z.npz")["index"]]
    assert not {str(file.relative_to(photos)) for file in named} & set(BROKEN)
    assert [file.parent.name for file in named] == [("cats", "dogs")[c] for c in features.label]
    both = {split: len(features), "other": 0}
    assert 0 < both[split] < GOOD


@pytest.mark.parametrize("in_memory", [True, False])
def test_every_command_ends_with_their_number(
    photos: Path, tmp_path: Path, in_memory: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def logged() -> list[str]:
        lines = [line for line in caplog.messages if " images (" in line]
        caplog.clear()
        return lines

    run = commands.pretrain(configuration(photos, in_memory=in_memory), out=tmp_path / "run")
    sentence = f"skipped 2 of 42 images (4.8 %), see {run / 'skipped.txt'}"
    assert logged() == [sentence]
    assert json.loads((run / "data.json").read_text())["num_skipped"] == 2
    commands.evaluate(run)
    assert logged() == [sentence]
    commands.embed(run, out=tmp_path / "z.npz", split="test")
    assert logged() == [sentence]
    other = ReadingConfig(max_unreadable=0.2, image_size=16)
    commands.embed(run, out=tmp_path / "o.npz", data=f"folder:{photos / 'cats'}", reading=other)
    assert logged() == ["skipped 1 of 28 images (3.6 %)"], "not in the list of the run's own images"


def test_whole_images_end_without_such_a_line(
    photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = tmp_path / "whole"
    shutil.copytree(photos, whole, ignore=lambda *_: [Path(name).name for name in BROKEN])
    run = commands.pretrain(configuration(whole, in_memory=True), out=tmp_path / "run")
    assert "skipped" not in caplog.text
    assert not (run / "skipped.txt").exists()
    assert json.loads((run / "data.json").read_text())["num_skipped"] == 0


def test_a_resumed_run_goes_on_with_its_list(photos: Path, tmp_path: Path) -> None:
    config = configuration(photos, in_memory=True)
    run = commands.pretrain(config, out=tmp_path / "run")
    listing = run / "skipped.txt"
    listing.write_text("earlier.png\tfound in the first session\n" + listing.read_text())
    before = listing.read_text()
    commands.pretrain(config, out=run, resume=True)
    assert listing.read_text() == before
    assert json.loads((run / "data.json").read_text())["num_skipped"] == 3
    commands.pretrain(config, out=run, overwrite=True)
    assert "earlier.png" not in listing.read_text()


def test_a_contact_sheet_decodes_what_it_shows(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    one = FolderRecords.read
    monkeypatch.setattr(
        FolderRecords, "read", lambda self, i: (read.append(self.place(i)), one(self, i))[1]
    )
    monkeypatch.setattr(reading, "_NUM_HEADS", 1)
    config = configuration(photos, in_memory=True)
    commands.views_sheet(config, out=tmp_path / "few.png", num_images=3)
    assert len(read) < 10
    commands.views_sheet(config, out=tmp_path / "all.png", num_images=28)
    heights = []
    for name in ("few.png", "all.png"):
        with Image.open(tmp_path / name) as sheet:
            heights.append(sheet.height)
    assert heights[1] == heights[0] + 25 * 100
    assert {str(photos / name) for name in BROKEN} & set(read), "left out, another one instead"


def test_an_untrained_network_measures_no_black_images(photos: Path) -> None:
    config = configuration(photos, in_memory=False)
    source = load_splits(
        f"folder:{photos}", ReadingConfig(in_memory=False, max_unreadable=0.2)
    ).train
    kept = load_splits(f"folder:{photos}", ReadingConfig(in_memory=True, max_unreadable=0.2)).train
    assert (len(source), len(kept)) == (GOOD + len(BROKEN), GOOD)
    config = resolve(config, kept)
    _, method = build(config, kept.image_shape)

    def start_of(one: Source) -> dict[str, torch.Tensor]:
        return untrained(config, one, trained=method, device=torch.device("cpu")).state_dict()

    found, want = start_of(source), start_of(kept)
    for name, value in want.items():
        if "running" in name:  # one batch holds all images, in another order
            torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5, msg=name)
    black = TensorSource(
        torch.cat([kept.tensor, torch.zeros(2, 3, 16, 16, dtype=torch.uint8)]), name="control"
    )
    control = start_of(black)
    assert any(
        not torch.allclose(control[name], want[name], rtol=1e-3, atol=1e-4)
        for name in want
        if "running" in name
    )
