"""A whole run on images of a microscope: two sources, five bands of twelve bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

import falcon_ssl
from falcon_ssl import commands
from falcon_ssl.config import FalconConfig, ReadingConfig, RunConfig
from falcon_ssl.core.errors import InputError
from falcon_ssl.records.files import read_json
from falcon_ssl.report import build_report

READING = ReadingConfig(channels=5, keep_16bit=True, value_range=(0, 4095))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    root, random = tmp_path_factory.mktemp("cells"), np.random.default_rng(0)
    for plate in ("first", "second"):
        (root / plate).mkdir()
        for cell in range(30):
            pixels = random.integers(0, 400, (5, 16, 16)) + 300 * np.arange(5)[:, None, None]
            tifffile.imwrite(root / plate / f"{cell:02}.tif", pixels.astype(np.uint16))
    return f"folder:{root / 'first'} + folder:{root / 'second'}"


@pytest.fixture(scope="module")
def run(data: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = RunConfig(
        data=data,
        reading=READING,
        epochs=1,
        batch_size=20,
        falcon=FalconConfig(dictionary="rademacher", num_codes=64, embed_dim=16),
    )
    return commands.pretrain(config, out=tmp_path_factory.mktemp("bands") / "run", monitors=[])


def test_views_and_normalization_are_written_down(run: Path) -> None:
    config = commands.loading.from_mapping(commands.loading.read_yaml(run / "config.yaml"))
    assert config.views.preset == "bands"
    wanted = [(199.5 + 300 * band) / 4095 for band in range(5)]
    assert np.allclose(config.views.mean, wanted, atol=0.002)
    assert np.allclose(config.views.std, 115.5 / 4095, atol=0.002)
    record = read_json(run / "data.json")
    assert (record["image_shape"], list(record["sources"].values())) == ([5, 16, 16], [30, 30])


def test_it_is_evaluated_reported_embedded_and_searched(run: Path, data: str) -> None:
    commands.evaluate(run)
    assert build_report(run).is_file()
    table = commands.embed(run, out=run.parent / "z.parquet")
    image = Path(data.rpartition(":")[2]) / "07.tif"
    (hits,) = commands.search(table, [image], k=1)
    assert hits[0].place == str(image)
    assert commands.views_sheet(
        RunConfig(data=data, reading=READING), out=run.parent / "views.png"
    ).is_file()
    one = commands.embed(run, out=run.parent / "one.parquet", data=data.split(" + ")[0])
    assert one.is_file()


def test_an_exported_encoder_reads_the_same_files(run: Path, data: str) -> None:
    folder = commands.export(run, to="safetensors", out=run.parent / "exported")
    image = Path(data.rpartition(":")[2]) / "07.tif"
    own, exported = falcon_ssl.load_encoder(run), falcon_ssl.load_encoder(folder)
    seen = own.preprocess(image)
    assert torch.equal(seen, exported.preprocess(image))
    wanted = tifffile.imread(image)[1] / 4095
    mean, std = own.preprocess.mean[1], own.preprocess.std[1]
    assert np.allclose(seen[0, 1].numpy(), (wanted - mean) / std, atol=1e-3)
    assert "of 16 bits, values from 0 to 4095" in (folder / "README.md").read_text()


def test_color_views_of_bands_are_refused(data: str, tmp_path: Path) -> None:
    config = RunConfig(
        data=data, reading=READING, views=falcon_ssl.config.ViewsConfig("cifar"), batch_size=8
    )
    with pytest.raises(InputError, match="bands for others"):
        commands.pretrain(config, out=tmp_path / "run")
