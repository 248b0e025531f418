"""Classes that are words where images are stored: names of folders, cells of a table, files of an archive."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from falcon_ssl.core.errors import InputError
from falcon_ssl.data.encoded import EncodedSplit


def class_names(words: Collection[str], *, num_images: int, where: str) -> list[str]:
    """Different words in their order, as names of classes.

    Args:
        words: The different ones.
        num_images: How many images have one of them.
        where: What holds them, for the error.

    Raises:
        InputError: Fewer than two images a word: captions or identifiers.
    """
    if 2 * len(words) > num_images:
        raise InputError(
            f"{where} holds no labels",
            received=f"{len(words)} different words for {num_images} images",
            expected="words that name classes, each of two images or more",
            fix="give it another name",
        )
    return sorted(words)


def class_numbers(classes: Sequence[str], names: Sequence[str]) -> Tensor:
    """The place of every class in the list of all names, int64 [N]; InputError: one is not in it."""
    number = {name: index for index, name in enumerate(names)}
    unknown = sorted(set(classes) - set(names))
    if unknown:
        raise InputError(
            "test images have classes that training images lack",
            received=", ".join(unknown[:5]),
            expected=f"classes among {', '.join(names[:5])}, ...",
        )
    return torch.tensor([number[name] for name in classes], dtype=torch.int64)


def check_same_kind(train: EncodedSplit, test: EncodedSplit) -> None:
    """Raise InputError where one part has numbers for classes and the other words, which may stand for anything."""
    if train.labels is None or test.labels is None or train.in_words == test.in_words:
        return
    raise InputError(
        "training and test images are labeled in two ways",
        received="numbers in one part, words in the other",
        expected="the same classes, as numbers or as words",
        fix="write one part's labels as the other's",
    )
