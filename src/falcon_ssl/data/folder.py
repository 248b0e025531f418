"""Any nested folder of image files."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from falcon_ssl.core.errors import InputError
from falcon_ssl.core.extras import train_extra
from falcon_ssl.data.classes import class_numbers
from falcon_ssl.data.encoded import EncodedSplit, Records
from falcon_ssl.data.files import path_text, read_file

logger = logging.getLogger(__name__)

SUFFIXES = {
    ".jpg",
    ".jpeg",
    ".jfif",
    ".png",
    ".bmp",
    ".gif",
    ".webp",
    ".tif",
    ".tiff",
    ".ppm",
    ".pgm",
}
TEST_FOLDERS = ("test", "val", "valid", "validation")


class FolderRecords(Records):
    """All image files below a folder, in the order of their paths.

    Links are followed, but no folder is read twice. Names that begin with a dot are left out.

    Raises:
        InputError: There is no such folder, or no image in it.
    """

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise InputError(
                "there is no such image folder",
                received=root,
                expected="a folder with images in it",
                fix="" if root.is_absolute() else f"paths are relative to {Path.cwd()}",
            )
        self.root = root
        paths, suffixes = sorted(_files(root)), known_suffixes()
        self._paths = [path for path in paths if path.suffix.lower() in suffixes]
        others = Counter(path.suffix for path in paths if path.suffix.lower() not in suffixes)
        kinds = ", ".join(suffix or "no ending" for suffix, _ in others.most_common(5))
        left_out = f"{others.total()} files of other kinds: {kinds}"
        if not self._paths:
            raise InputError(
                f"{root} has no images",
                received=left_out if others else "no files",
                expected=f"files {', '.join(sorted(suffixes))} at any depth",
            )
        if others:
            logger.info("%s: left out %s", root, left_out)

    def __len__(self) -> int:
        return len(self._paths)

    def read(self, index: int) -> bytes:
        """Content of a file."""
        return read_file(self.root / self._paths[index])

    def place(self, index: int) -> str:
        """Path of a file."""
        return path_text(self.root / self._paths[index])

    def path(self, index: int) -> str:
        """Path of a file."""
        return self.place(index)

    def has_class_folders(self) -> bool:
        """Whether every image is directly in one of several folders below the root."""
        folders = {path.parts[0] for path in self._paths if len(path.parts) == 2}
        return len(folders) > 1 and all(len(path.parts) == 2 for path in self._paths)

    def classes(self) -> list[str]:
        """Name of every image's class: the folder below the root that it is in.

        Raises:
            InputError: An image is in no class folder.
        """
        if loose := [path for path in self._paths if len(path.parts) < 2]:
            raise InputError(
                "an image is in no class folder",
                received=self.root / loose[0],
                expected="images in one folder for each class",
                fix="move it, or leave out folder_labels",
            )
        return [path_text(path.parts[0]) for path in self._paths]


def folder_splits(root: Path, *, labeled: bool) -> tuple[list[EncodedSplit], str]:
    """The training part of a folder of images and, if there is one, its test part; and a note for reports.

    A folder ``train`` in it is the training part, and ``test`` (or ``val``, ``valid``, ``validation``) the test part;
    ``train`` is a class like others, though, when it is beside other folders of images and no test part. ``labeled``:
    the folders directly below a part name classes.

    Raises:
        InputError: No such folder, no images in it, or images without class folder.
    """
    train_root, test_root = _part_roots(root)
    parts = [FolderRecords(part) for part in (train_root, test_root) if part is not None]
    if not labeled and parts[0].has_class_folders():
        logger.info(
            "%s: if its folders are classes, --reading.folder_labels true lets evaluation read them",
            root,
        )
    names = sorted(set(parts[0].classes())) if labeled else None
    splits = [
        EncodedSplit(
            path_text(part.root),
            part,
            class_numbers(part.classes(), names) if names else None,
            names,
        )
        for part in parts
    ]
    split = f"folders train and {test_root.name}" if test_root else "all images; no test part"
    return splits, f"{root.name}: {split}"


def known_suffixes() -> set[str]:
    """Endings of the image files that this Pillow reads."""
    with train_extra("reading image files"):
        from PIL import features

    return SUFFIXES | {".avif"} if features.check("avif") else SUFFIXES


def _part_roots(root: Path) -> tuple[Path, Path | None]:
    """Folders of the training and test part: the root alone when its folder ``train`` is a class."""
    train = root / "train"
    if not train.is_dir():
        return root, None
    suffixes = known_suffixes()
    beside = [
        folder.name
        for folder in sorted(root.iterdir())
        if folder.is_dir() and folder.name != "train" and not _hidden(folder.name)
        if any(path.suffix.lower() in suffixes for path in _files(folder))
    ]
    tests = [name for name in TEST_FOLDERS if name in beside]
    others = ", ".join(name for name in beside if name not in TEST_FOLDERS)
    if others and not tests:
        logger.info("%s: train is read as a class, like %s beside it", root, others)
        return root, None
    if others:
        logger.warning("%s: left out, because there is a folder train: %s", root, others)
    return train, root / tests[0] if tests else None


def _files(root: Path) -> Iterator[Path]:
    """Files below a folder, relative to it; no folder is read twice, however many links lead to it."""
    seen = {os.path.realpath(root)}
    for folder, folders, names in os.walk(root, followlinks=True):
        links_last = sorted((os.path.islink(Path(folder) / name), name) for name in folders)
        folders.clear()
        for _, name in links_last:
            real = os.path.realpath(Path(folder) / name)
            if not _hidden(name) and real not in seen:
                seen.add(real)
                folders.append(name)
        for name in names:
            if not _hidden(name):
                yield (Path(folder) / name).relative_to(root)


def _hidden(name: str) -> bool:
    """Whether a name begins with a dot: macOS writes ._1.jpg beside 1.jpg."""
    return name.startswith(".")
