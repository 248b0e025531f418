"""Image sets of the Hugging Face hub, and parquet files laid out like them."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch

from falcon_ssl.core.errors import InputError, did_you_mean, one_line
from falcon_ssl.core.extras import train_extra
from falcon_ssl.data.classes import check_same_kind
from falcon_ssl.data.encoded import TEST_NAMES, EncodedSplit
from falcon_ssl.data.shards import ShardTable
from falcon_ssl.data.table import ArrowTable, Table, image_records, table_labels

# Two lists of a hundred ImageNet classes are in use; they share 12 classes.
# imagenet100-scan (Van Gansbeke et al. 2020), as labels of ImageNet-1K (WordNet ids in order).
SCAN_CLASSES: tuple[int, ...] = (
    15, 20, 37, 65, 67, 68, 71, 99, 101, 137, 143, 146, 158, 164, 179, 182, 185, 192, 197,
    199, 205, 213, 223, 230, 231, 232, 236, 251, 272, 279, 280, 286, 288, 295, 322, 330,
    338, 370, 376, 409, 412, 444, 462, 463, 508, 515, 518, 525, 543, 546, 549, 553, 578,
    589, 596, 599, 615, 621, 639, 640, 646, 650, 658, 678, 682, 683, 687, 715, 716, 726,
    727, 737, 742, 748, 757, 788, 794, 797, 821, 824, 830, 832, 846, 856, 860, 863, 871,
    880, 881, 886, 897, 906, 908, 913, 924, 927, 931, 935, 954, 984,
)  # fmt: skip


@dataclass(frozen=True)
class HubSet:
    """Where a known set is on the hub."""

    repo: str  # repository of the hub
    config: str | None = None  # configuration of the repository, where it has several
    train: str = "train"  # name of the training split
    test: str = "test"  # name of the split to report on
    classes: tuple[int, ...] | None = None  # labels to keep, in their new order; None keeps all
    note: str = "official split"  # what every report says about the data


HUB_SETS = {
    "cifar10": HubSet("uoft-cs/cifar10"),
    "cifar100": HubSet("uoft-cs/cifar100", note="official split, 100 fine classes"),
    "svhn": HubSet(
        "ufldl-stanford/svhn", config="cropped_digits", note="official split, without extra"
    ),
    "imagenet100-cmc": HubSet(
        "clane9/imagenet-100",
        test="validation",
        note="class list imagenet100-cmc, shorter side 160 pixels, ImageNet's validation images",
    ),
    "imagenet100-scan": HubSet(
        "ILSVRC/imagenet-1k",
        test="validation",
        classes=SCAN_CLASSES,
        note="class list imagenet100-scan, ImageNet's validation images",
    ),
    "imagenet1k": HubSet(
        "ILSVRC/imagenet-1k", test="validation", note="ImageNet-1K, its validation images"
    ),
}


def hub_splits(name: str, *, stream: bool) -> tuple[list[EncodedSplit], str]:
    """The training part of a set and, if there is one, its test part; and a note for reports.

    ``name`` is a key of `HUB_SETS`, or OWNER/REPOSITORY; ``stream`` reads piece by piece and stores nothing.

    Raises:
        InputError: An unknown name, or a set that cannot be opened.
    """
    if name not in HUB_SETS and "/" not in name:
        raise InputError(
            "unknown hub data set",
            received=repr(name),
            expected=f"one of {', '.join(HUB_SETS)}, or OWNER/REPOSITORY",
            fix=did_you_mean(name, HUB_SETS),
        )
    if name not in HUB_SETS:
        return _guessed_splits(name, _tables(name, stream=stream))
    known = HUB_SETS[name]
    splits = [known.train, known.test]
    tables = _tables(known.repo, config=known.config, splits=splits, stream=stream)
    parts = [_split(name, split, tables[split], classes=known.classes) for split in splits]
    return parts, f"{name}: {known.note}"


def parquet_splits(folder: Path, *, stream: bool) -> tuple[list[EncodedSplit], str]:
    """Open files ``train*.parquet`` and ``test*.parquet`` (or ``validation*``) at any depth; else as `hub_splits`.

    Raises:
        InputError: No such folder, no training file, or a table without images.
    """
    if not folder.is_dir():
        if folder.is_file():
            raise InputError(
                "parquet: takes a folder",
                received=f"the file {folder}",
                expected="a folder with train*.parquet, and test*.parquet where there are test images",
                fix=f"name the folder: parquet:{folder.parent}",
            )
        raise InputError(
            "there is no such folder of parquet files",
            received=folder,
            expected="a folder with train*.parquet in it",
        )
    files = {
        split: sorted(str(path) for path in folder.rglob(f"{split}*.parquet"))
        for split in ("train", *TEST_NAMES)
    }
    found = {split: paths for split, paths in files.items() if paths}
    if "train" not in found:
        raise InputError(
            "there are no parquet files to train on",
            received=folder,
            expected="files train.parquet or train-*.parquet in that folder",
        )
    tables = _tables("parquet", data_files=found, stream=stream, root=folder)
    return _guessed_splits(folder.name, tables)


def _guessed_splits(name: str, tables: dict[str, Table]) -> tuple[list[EncodedSplit], str]:
    train_split = "train" if "train" in tables else next(iter(tables))
    train = _split(name, train_split, tables[train_split])
    tests = [
        (split, _split(name, split, tables[split], names=train.class_names))
        for split in TEST_NAMES
        if split in tables
    ]
    if not tests:
        return [train], f"{name}: its {train_split} split; no test split"
    # A test split may hide its labels; then the validation split is the one to report on.
    test_split, test = min(tests, key=lambda found: found[1].labels is None)
    check_same_kind(train, test)
    return [train, test], f"{name}: its {train_split} and {test_split} splits"


def _split(
    name: str,
    split: str,
    table: Table,
    *,
    classes: tuple[int, ...] | None = None,
    names: list[str] | None = None,
) -> EncodedSplit:
    """One split: all of it, or the images of some classes, numbered in the order of ``classes``.

    ``names`` are the classes of the training part, for labels that are words.
    """
    name, rows = f"{name} {split}", None
    labels, class_names, in_words = table_labels(table, names)
    if classes is not None:
        if labels is None:
            raise InputError(
                "a class list needs labels",
                received=f"split {split} without labels",
                expected="labels in every split",
            )
        number = torch.full((max(int(labels.max()), *classes) + 1,), -1)
        number[list(classes)] = torch.arange(len(classes))
        rows = torch.nonzero(number[labels] >= 0).flatten()
        labels = number[labels[rows]]
        class_names = class_names and [class_names[index] for index in classes]
    records = image_records(table, rows=rows, name=name)
    return EncodedSplit(name, records, labels, class_names, in_words)


def _tables(
    repo: str,
    *,
    stream: bool,
    config: str | None = None,
    splits: list[str] | None = None,
    data_files: dict[str, list[str]] | None = None,
    root: Path | None = None,
) -> dict[str, Table]:
    """Tables by split, of a repository or of local files; all splits when none are named.

    Cells may name image files below ``root``; those of a repository, what was downloaded of it.
    """
    with train_extra("reading parquet files and hub sets"):
        import datasets
        from datasets.exceptions import DatasetsError

    root = Path(datasets.config.HF_CACHE_HOME) if root is None else root
    try:
        if stream:
            builder = datasets.load_dataset_builder(repo, config, data_files=data_files)
            files = {str(split): paths for split, paths in builder.config.data_files.items()}
            return {split: ShardTable(list(files[split]), root) for split in splits or files}
        with ExitStack() as after:
            # Progress bars that draw over themselves have no place in a log file.
            if not sys.stderr.isatty() and datasets.is_progress_bar_enabled():
                datasets.disable_progress_bars()
                after.callback(datasets.enable_progress_bars)
            loaded = datasets.load_dataset(repo, config, split=splits, data_files=data_files)
    except (OSError, ValueError, KeyError, AttributeError, DatasetsError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"cannot open the data set {repo}",
            received=one_line(error.__cause__ or error),
            expected="a readable set of images",
            fix="check its name and the network; for a gated set, accept its terms and log in with `hf auth login`"
            if data_files is None
            else "",
        ) from error
    found = dict(loaded) if splits is None else dict(zip(splits, loaded, strict=True))
    return {split: ArrowTable(dataset, root) for split, dataset in found.items()}
