"""Packages that a part of the library needs beyond torch, numpy and safetensors: the extras "train" and "export"."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from falcon_ssl.core.errors import InputError


class MissingExtraError(InputError, ImportError):
    """A package is not installed; names it, what needs it, and how to install it."""


@contextmanager
def train_extra(part: str, *, extra: str = "train") -> Iterator[None]:
    """Make clear what is missing when an import in the block fails.

    Args:
        part: What needs the imports: "falcon_ssl.commands".
        extra: Of which they are.

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
            expected=f"the extra {extra}",
            fix=f'run pip install "falcon-ssl[{extra}]"',
        ) from error
