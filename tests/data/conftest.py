"""Small image files and tables, written by the tests themselves."""

import io
import tarfile
from pathlib import Path

import pytest

from support.images import encoded, pixels


@pytest.fixture
def png():
    """Content of a random PNG file by its seed."""
    return lambda seed, **options: encoded(pixels(seed, **options))


@pytest.fixture
def write_folder(tmp_path, png):
    """Write images to a folder: {relative path: seed, or the content itself}."""

    def write(files: dict[str, int | bytes]) -> Path:
        root = tmp_path / "images"
        for path, content in files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(content if isinstance(content, bytes) else png(content))
        return root

    return write


@pytest.fixture
def write_tar(tmp_path, png):
    """Write a tar file: {member: seed of an image, or the content itself}."""

    def write(path: str, members: dict[str, int | bytes]) -> Path:
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(file, "w") as archive:
            for name, content in members.items():
                data = content if isinstance(content, bytes) else png(content)
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
        return file

    return write


@pytest.fixture
def write_parquet(tmp_path, png, monkeypatch):
    """Write a parquet file laid out like the hub's, with labels 0, 1, 0, 1, ..."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()

    def write(
        path: str,
        count: int,
        *,
        image: str = "image",
        label: str | None = "label",
        labels: list[int] | None = None,
        names: tuple[str, ...] = ("cat", "dog"),
        first_seed: int = 0,
        rows_per_group: int | None = None,
    ) -> Path:
        seeds = range(first_seed, first_seed + count)
        columns: dict[str, list[object]] = {
            image: [{"bytes": png(seed), "path": f"{seed}.png"} for seed in seeds]
        }
        features = {image: datasets.Image()}
        if label is not None:
            columns[label] = list(labels or [row % len(names) for row in range(count)])
            features[label] = datasets.ClassLabel(names=list(names))
        table = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        table.to_parquet(file, batch_size=rows_per_group)
        return file.parent

    yield write
    datasets.enable_progress_bars()
