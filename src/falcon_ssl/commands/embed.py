"""Write the features of images to a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from falcon_ssl.commands.features import extraction, listed_dictionary
from falcon_ssl.commands.files import new_file
from falcon_ssl.commands.loading import load_run, log_skipped
from falcon_ssl.config.run import ReadingConfig
from falcon_ssl.core.devices import best_device
from falcon_ssl.core.errors import InputError
from falcon_ssl.data import data_rows
from falcon_ssl.evaluation import Features, extract
from falcon_ssl.networks import Readout


def embed(
    run: str | Path,
    *,
    out: str | Path,
    data: str | None = None,
    reading: ReadingConfig | None = None,
    evaluation: Mapping[str, Any] | None = None,
    split: Literal["train", "test", "auto"] = "auto",
    overwrite: bool = False,
) -> Features:
    """Write the features of images: z as the readout says, u, code, label and index, as .npz or .safetensors.

    ``index`` finds the images again: their places among the files of a folder in the order of paths, or their rows in
    a table's split.

    Args:
        run: The run folder.
        out: The file.
        data: Images to embed instead of the run's own, for example "folder:PATH".
        reading: How to read them; None for the defaults.
        evaluation: Options of `EvaluationConfig` in place of the run's own, for example another readout.
        split: Which part; auto takes the test part, or all images where there is none.
        overwrite: Replace the file if there is one.

    Raises:
        InputError: As `load_run`, no such split, or a file that may not be written.
    """
    out = new_file(out, suffixes=(".npz", ".safetensors"), overwrite=overwrite)
    device = best_device()
    config, splits, views, method = load_run(
        run, device=device, data=data, reading=reading, evaluation=evaluation
    )
    source = splits.train if split == "train" or splits.test is None else splits.test
    if split == "test" and splits.test is None:
        raise InputError(
            "the data has no test split",
            received=config.data,
            expected="images that are not trained on",
            fix="use --split train, which are all images",
        )
    extracted = partial(extract, method, source, views, **extraction(config, device))
    features = extracted(dictionary=listed_dictionary(method))
    readout = Readout.of(config.evaluation)
    if not readout.is_own:
        features = replace(features, z=extracted(readout=readout).z)
    assert features.index is not None
    features = replace(features, index=data_rows(source, features.index))
    features.save(out)
    log_skipped(splits)
    return features
