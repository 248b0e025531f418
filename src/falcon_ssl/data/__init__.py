"""Images: where they come from, and in which order."""

from falcon_ssl.checks import check_choice
from falcon_ssl.data.digits import DigitsSource, digits_splits
from falcon_ssl.data.loader import ResidentLoader
from falcon_ssl.data.order import BatchPlan
from falcon_ssl.data.source import Source, Splits, TensorSource, as_uint8

__all__ = [
    "BatchPlan",
    "DigitsSource",
    "ResidentLoader",
    "Source",
    "Splits",
    "TensorSource",
    "as_uint8",
    "load_splits",
]


def load_splits(data: str) -> Splits:
    """Open a data set by name.

    Args:
        data: "digits".

    Raises:
        InputError: An unknown name.

    Example:
        >>> len(load_splits("digits").train)
        1437
    """
    check_choice("data", data, ("digits",))
    return digits_splits()
