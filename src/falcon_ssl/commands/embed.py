"""Write the features of images to a file, as they come."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from falcon_ssl.commands.features import extraction, listed_dictionary
from falcon_ssl.commands.files import new_file
from falcon_ssl.commands.loading import RunParts, load_run, log_skipped
from falcon_ssl.commands.processes import Processes
from falcon_ssl.config.run import ReadingConfig
from falcon_ssl.config.sources import with_places
from falcon_ssl.core.errors import InputError
from falcon_ssl.core.version import __version__
from falcon_ssl.data import Source, Splits, data_paths, data_rows
from falcon_ssl.dictionary.assign import assign, nearest_codes
from falcon_ssl.dictionary.base import StreamedDictionary
from falcon_ssl.engine.progress import WorkProgress
from falcon_ssl.evaluation.features import ExtractedBatch, extracted
from falcon_ssl.methods import Method
from falcon_ssl.networks import Readout
from falcon_ssl.records.checkpoints import find_checkpoint
from falcon_ssl.records.embeddings import ARRAY_SUFFIXES, PARQUET, PartsFolder
from falcon_ssl.records.folder import MODEL

logger = logging.getLogger(__name__)

PART = 4096  # images of a row group: an interruption costs no more than these
Split: TypeAlias = Literal["auto", "train", "test", "all"]


def embed(
    run: str | Path,
    *,
    out: str | Path,
    data: str | None = None,
    reading: ReadingConfig | None = None,
    evaluation: Mapping[str, Any] | None = None,
    checkpoint: str = "last",
    split: Split = "auto",
    overwrite: bool = False,
    trust_code: bool = False,
) -> Path:
    """Write the features of images as a table, .parquet, or as arrays, .npz or .safetensors.

    The columns are those of `falcon_ssl.records.embeddings`: ``path`` and ``row`` find an image again, the latter its
    place among the files of a folder in the order of paths, or its row of a table's split. Arrays have the names of
    `Features`, ``index`` for ``row``. The same command again continues an interrupted one. Under torchrun every process
    embeds its share of the images, and the file is the same.

    Args:
        run: The run folder.
        out: The file.
        data: Images to embed instead of the run's own, for example "folder:PATH".
        reading: How to read them; None for the defaults.
        evaluation: Options of `EvaluationConfig` in place of the run's own, for example another readout.
        checkpoint: "last", or one that is kept beside it.
        split: Which part; auto takes the test part, or all images where there is none; all takes both.
        overwrite: Replace the file if there is one.
        trust_code: Whether code that files name may be run, see `falcon_ssl.trusting_code`.

    Returns:
        The file.

    Raises:
        InputError: As `load_run`, no such split, a file that may not be written, or an unfinished one of other options.

    Memory:
        Some batches of images and 4096 rows; all rows for .npz and .safetensors.
    """
    processes = Processes()
    out = new_file(out, suffixes=(PARQUET, *ARRAY_SUFFIXES), overwrite=overwrite)
    opened = load_run(
        run,
        device=processes.device,
        data=data,
        reading=reading,
        evaluation=evaluation,
        checkpoint=checkpoint,
        on_demand=True,
        trust_code=trust_code,
    )
    parts = _parts(_sources(opened.splits, split))
    about = _about(run, opened, split=split, checkpoint=checkpoint)
    folder = PartsFolder(out, about)
    if processes.is_main:
        folder.begin(overwrite=overwrite)
    processes.wait()
    mine = parts[processes.rank :: processes.count]
    left = [part for part in mine if not folder.has(part.number)]
    if len(left) < len(mine):
        logger.info("continued: %d of %d row groups are there", len(mine) - len(left), len(mine))
    images = sum(len(part.indices) for part in left)
    began = time.monotonic()
    with WorkProgress(shown=processes.is_main) as progress:
        count = progress.read("images", images)
        for part in left:
            batches = []
            for batch in _batches(opened, part, processes):
                batches.append(_columns(opened.method, part, batch))
                count(len(batch.index_B))
            folder.write(part.number, _joined(batches))
    processes.wait()
    if processes.is_main:
        rows = folder.finish(len(parts))
        speed = f", {images / (time.monotonic() - began):.0f} a second" if images else ""
        logger.info("%d images in %s%s", rows, out, speed)
    log_skipped(opened.splits)
    processes.wait()
    return out


class _Part(NamedTuple):
    """Images that make one row group."""

    number: int
    split: str
    source: Source
    indices: Tensor


def _sources(splits: Splits, split: Split) -> dict[str, Source]:
    """The images to embed, by the name of their split."""
    if split == "test" and splits.test is None:
        raise InputError(
            "the data has no test split",
            received=splits.train.name,
            expected="images that are not trained on",
            fix="use --split train, which are all images",
        )
    if splits.test is None or split == "train":
        return {"train": splits.train}
    if split == "all":
        return {"train": splits.train, "test": splits.test}
    return {"test": splits.test}


def _parts(sources: Mapping[str, Source]) -> list[_Part]:
    found: list[_Part] = []
    for split, source in sources.items():
        for indices in torch.split(torch.arange(len(source)), PART):
            found.append(_Part(len(found), split, source, indices))
    return found


def _about(run: str | Path, opened: RunParts, *, split: str, checkpoint: str) -> dict[str, Any]:
    """What the table is of: enough to find its images and its network again, and to know another table from it."""
    config, splits = opened.config, opened.splits
    state = find_checkpoint(Path(run), checkpoint).state
    return {
        "falcon_ssl": __version__,
        "run": str(Path(run).resolve()),
        "checkpoint": checkpoint,
        "step": state["step"],
        "weights": state["sha256"][MODEL],
        "method": config.method,
        "encoder": config.encoder.name,
        "readout": asdict(Readout.of(config.evaluation)),
        "data": with_places(config.data, lambda where: str(Path(where).resolve())),
        "reading": asdict(config.reading),
        "image_shape": list(splits.train.image_shape),
        "split": split,
        "images": {name: len(source) for name, source in _sources(splits, split).items()},  # type: ignore[arg-type]
        "class_names": splits.train.class_names,
    }


def _batches(opened: RunParts, part: _Part, processes: Processes) -> Iterator[ExtractedBatch]:
    return extracted(
        opened.method,
        part.source,
        opened.views,
        indices=part.indices,
        readout=Readout.of(opened.config.evaluation),
        embedding=True,
        **extraction(opened.config, processes.device),
    )


def _columns(method: Method, part: _Part, batch: ExtractedBatch) -> dict[str, Any]:
    """The columns of a batch."""
    source, index_B = part.source, batch.index_B
    found: dict[str, Any] = {
        "row": data_rows(source, index_B).numpy(),
        "split": [part.split] * len(index_B),
        "z": batch.z_BD.cpu().numpy(),
    }
    if any(paths := data_paths(source, index_B)):
        found["path"] = paths
    if source.labels is not None:
        found["label"] = source.labels[index_B].cpu().numpy()
        if names := source.class_names:
            found["class_name"] = [names[label] for label in found["label"]]
    if batch.u_BF is not None:
        found["u"] = batch.u_BF.cpu().numpy()
        dictionary, scale = listed_dictionary(method), method.logit_scale
        if isinstance(dictionary, StreamedDictionary) and scale is not None:
            assigned = assign(batch.u_BF, dictionary, logit_scale=scale)
            found["code"] = assigned.code.cpu().numpy()
            found["probability"] = assigned.probability.float().cpu().numpy()
        elif dictionary is not None:
            found["code"] = nearest_codes(batch.u_BF, dictionary).cpu().numpy()
    return found


def _joined(batches: list[dict[str, Any]]) -> dict[str, Any]:
    """The columns of a part; none where no image of it could be read."""
    if not batches:
        return {}
    whole: dict[str, Any] = {}
    for name in batches[0]:
        columns = [batch[name] for batch in batches]
        if isinstance(columns[0], list):
            whole[name] = [value for column in columns for value in column]
        else:
            whole[name] = np.concatenate(columns)
    return whole
