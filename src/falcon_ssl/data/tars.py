"""Tar files of images in the WebDataset format, read where they are: nothing is unpacked or copied.

A sample is the members of a file that share a name up to its first dot, "0001.jpg" and "0001.cls"; its image is the
first member with the ending of one, its label the integer or the word in ``cls``
(https://github.com/webdataset/webdataset). An index of all members is made once; an image is read at its place then, in
any order.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import torch

from falcon_ssl.core.errors import InputError
from falcon_ssl.data.classes import check_same_kind, class_names, class_numbers
from falcon_ssl.data.encoded import TEST_NAMES, EncodedSplit, Records
from falcon_ssl.data.files import LARGEST, OPENERS
from falcon_ssl.data.folder import known_suffixes

_LABEL = "cls"
_LONGEST = 100  # bytes of a label


class _Sample(NamedTuple):
    """Where the image of a sample is, and its label."""

    file: Path
    name: str
    start: int
    size: int
    label: int | str | None


class TarRecords(Records):
    """The images of some tar files, in their order there.

    Args:
        files: All of them; uncompressed, so that an image can be read at its place.
        stream: Whether an epoch reads file after file, for disks on which jumping is slow.

    Raises:
        InputError: A file that is no plain tar file, or no image in any of them.
    """

    def __init__(self, files: list[Path], *, stream: bool) -> None:
        with ThreadPoolExecutor(OPENERS) as pool:
            found = list(pool.map(_samples, files))
        self._samples = [sample for samples in found for sample in samples]
        if not self._samples:
            raise InputError(
                "there are no images in the tar files",
                received=f"{len(files)} files, the first {files[0]}",
                expected="members like 0001.jpg, and 0001.cls with its label",
            )
        self.blocks = tuple(map(len, found)) if stream else None

    def __len__(self) -> int:
        return len(self._samples)

    def read(self, index: int) -> bytes:
        """Content of one image file."""
        sample = self._samples[index]
        if sample.size > LARGEST:
            raise OSError(f"a member of {sample.size} bytes, larger than any image")
        with sample.file.open("rb") as file:
            file.seek(sample.start)
            return file.read(sample.size)

    def place(self, index: int) -> str:
        """Tar file and member."""
        return f"{self._samples[index].file}/{self._samples[index].name}"

    def path(self, index: int) -> str:
        """Tar file and member."""
        return self.place(index)

    @property
    def labels(self) -> list[int | str | None]:
        """What the samples are labeled with, N of them."""
        return [sample.label for sample in self._samples]


def tar_splits(path: Path, *, stream: bool) -> tuple[list[EncodedSplit], str]:
    """The training part of a tar file, or of a folder of them, and a test part if there is one; a note for reports.

    Files whose names begin with ``train`` are the training part, ``test`` (or ``validation``, ``valid``, ``val``) the
    test part; all are for training where none begins with ``train``.

    Raises:
        InputError: No tar file, or as `TarRecords`.
    """
    files = sorted(path.rglob("*.tar")) if path.is_dir() else [path] if path.is_file() else []
    if not files:
        raise InputError(
            "there are no tar files",
            received=path,
            expected="a file in the WebDataset format, or a folder with *.tar in it",
            fix="unpack compressed ones: images are read at their place",
        )
    train = [file for file in files if file.name.startswith("train")]
    tests = [[f for f in files if f.name.startswith(name)] for name in TEST_NAMES] if train else []
    test = next((found for found in tests if found), [])
    parts: list[EncodedSplit] = []
    for name, chosen in (("train", train or files), ("test", test)):
        if chosen:
            names = parts[0].class_names if parts else None
            records = TarRecords(chosen, stream=stream)
            parts.append(_labeled(f"{path.name} {name}", records, names))
    if test:
        check_same_kind(*parts)
    named = "files train*.tar" if train else "all images"
    return parts, f"{path.name}: {named}" + (
        f" and {test[0].name}, ..." if test else "; no test part"
    )


def _labeled(name: str, records: TarRecords, names: list[str] | None) -> EncodedSplit:
    """A part with labels, where every sample has one and none is hidden as -1; words as ``names`` number them."""
    found = [label for label in records.labels if label is not None]
    numbers = [label for label in found if isinstance(label, int)]
    if len(found) < len(records) or (numbers and min(numbers) < 0):
        return EncodedSplit(name, records)
    if len(numbers) == len(found):
        return EncodedSplit(name, records, torch.tensor(numbers))
    words = [str(label) for label in found]
    if names is None:
        names = class_names(set(words), num_images=len(words), where=f"{_LABEL} of {name}")
    return EncodedSplit(name, records, class_numbers(words, names), names, in_words=True)


def _samples(file: Path) -> list[_Sample]:
    """The samples of a tar file that have an image."""
    suffixes = known_suffixes()
    try:
        with tarfile.open(file, "r:", errors="backslashreplace") as archive:
            return list(_indexed(file, archive, suffixes))
    except (OSError, tarfile.TarError, ValueError) as error:
        raise InputError(
            "cannot read a tar file",
            received=f"{file} ({error})",
            expected="an uncompressed tar file in the WebDataset format",
            fix="unpack a compressed one with gunzip, write a damaged one again",
        ) from error


def _indexed(file: Path, archive: tarfile.TarFile, suffixes: set[str]) -> Iterator[_Sample]:
    for _, group in groupby(_files(archive), key=lambda one: _key(one.name)):
        parts = list(group)
        image = next((p for p in parts if Path(p.name).suffix.lower() in suffixes), None)
        if image is None:
            continue
        label = next((p for p in parts if p.name.endswith(f".{_LABEL}")), None)
        found = None if label is None else _label(archive, label)
        yield _Sample(file, image.name, image.offset_data, image.size, found)


def _label(archive: tarfile.TarFile, member: tarfile.TarInfo) -> int | str | None:
    """What a file holds. ValueError: neither an integer of up to 63 bits nor a word."""
    content = archive.extractfile(member)
    if content is None:
        return None
    text = content.read(_LONGEST + 1).decode().strip()
    try:
        number = int(text)
    except ValueError:
        if text and text.isprintable() and len(text) <= _LONGEST:
            return text
        raise
    if abs(number) >= 2**63:
        raise ValueError(f"the label {number} in {member.name}")
    return number


def _files(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The regular files of an archive whose names do not begin with a dot.

    Raises:
        ValueError: A member of negative size, after which tarfile would read the ones before it again, for ever.
    """
    for one in archive:
        archive.members.clear()  # type: ignore[attr-defined]  # all so far, about a KB each
        if one.size < 0:
            raise ValueError(f"{one.name} has {one.size} bytes")
        if one.isreg() and not Path(one.name).name.startswith("."):
            yield one


def _key(name: str) -> str:
    """What the members of a sample share: the path up to the first dot of the file's name."""
    path = Path(name)
    return str(path.with_name(path.name.partition(".")[0]))
