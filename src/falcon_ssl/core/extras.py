"""Packages that a part of the library needs beyond torch, numpy and safetensors: the extra "train"."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from falcon_ssl.core.errors import InputError


class MissingExtraError(InputError, ImportError):
    """A package is not installed; names it, what needs it, and how to install it."""


@contextmanager
def train_extra(part: str) -> Iterator[None]:
    """Make clear what is missing when an import in the block fails.

    Args:
        part: What needs the imports: "falcon_ssl.commands".

    Raises:
        MissingExtraError: A package is not installed.

    Example:
        >>> with train_extra("clustering"):
        ...     from sklearn.cluster import KMeans
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "falcon_ssl"):
            raise
        raise MissingExtraError(
            f"{part} needs the package {package}",
            received="an installation without it",
            expected="the extra train",
            fix='run pip install "falcon-ssl[train]"',
        ) from error
