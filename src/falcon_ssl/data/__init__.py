"""Images: where they come from, and in which order."""

from falcon_ssl.data.dataset import DatasetSource
from falcon_ssl.data.digits import DigitsSource
from falcon_ssl.data.encoded import EncodedSource, EncodedSplit, Records
from falcon_ssl.data.hub import HUB_SETS
from falcon_ssl.data.loader import ResidentLoader, StreamingLoader, build_loader, read_ahead
from falcon_ssl.data.opening import load_splits
from falcon_ssl.data.order import BatchPlan
from falcon_ssl.data.reading import open_records
from falcon_ssl.data.skipped import count_skipped, skipped_sentence
from falcon_ssl.data.source import (
    Source,
    Splits,
    TensorSource,
    as_pixels,
    data_paths,
    data_rows,
    read_images,
)
from falcon_ssl.data.subset import Subset, hold_out

__all__ = [
    "HUB_SETS",
    "BatchPlan",
    "DatasetSource",
    "DigitsSource",
    "EncodedSource",
    "EncodedSplit",
    "Records",
    "ResidentLoader",
    "Source",
    "Splits",
    "StreamingLoader",
    "Subset",
    "TensorSource",
    "as_pixels",
    "build_loader",
    "count_skipped",
    "data_paths",
    "data_rows",
    "hold_out",
    "load_splits",
    "open_records",
    "read_ahead",
    "read_images",
    "skipped_sentence",
]
