"""An evaluation and its pictures for the trackers of a run."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from falcon_ssl.config.run import RunConfig
from falcon_ssl.core.errors import InputError
from falcon_ssl.core.extras import train_extra
from falcon_ssl.engine.tracking import open_tracker
from falcon_ssl.records.metrics import METRICS
from falcon_ssl.records.run import Run, read_run
from falcon_ssl.report import figures
from falcon_ssl.report.document import Figure
from falcon_ssl.report.sheet import png_bytes

logger = logging.getLogger(__name__)

PICTURES: Mapping[str, Callable[[Run], Figure]] = {
    "spectrum": figures.spectrum,
    "covariance": figures.covariance,
    "codes": figures.codes,
    "blocks": figures.blocks,
}


def track_evaluation(folder: Path, config: RunConfig, record: Mapping[str, Any]) -> None:
    """Log an evaluation to the trackers of its run: its numbers, and those pictures of the report that the run has.

    A tracker that is not installed here is no reason to lose an evaluation: a warning says so.

    Args:
        folder: With the records of the evaluation.
        config: Of the run.
        record: What ``evaluation.json`` holds.
    """
    if not config.engine.trackers:
        return
    step = record["about"]["step"]
    numbers = {f"evaluation/{name}": record[name] for name in METRICS if name in record}
    pictures = _pictures(read_run(folder))
    for name in config.engine.trackers:
        if find_spec(name) is None:
            logger.warning("the evaluation is not tracked by %s, which is not installed", name)
            continue
        tracker = open_tracker(name, folder, part="evaluation")
        tracker.log(numbers, step=step)
        options = {"dataformats": "NHWC"} if name == "tensorboard" else {}
        tracker.log_images(pictures, step=step, **options)
        tracker.finish()


def _pictures(run: Run) -> dict[str, np.ndarray[Any, Any]]:
    """Pictures by name, uint8 [1, H, W, 3]; without those that the run's method has no numbers for."""
    with train_extra("a picture"):
        from PIL import Image

    found = {}
    for name, draw in PICTURES.items():
        try:
            svg = draw(run).svg()
        except InputError as error:
            logger.debug("%s: %s", name, error)
            continue
        image = Image.open(io.BytesIO(png_bytes(svg))).convert("RGBA")
        paper = Image.new("RGBA", image.size, "white")
        found[f"report/{name}"] = np.asarray(Image.alpha_composite(paper, image).convert("RGB"))[
            None
        ]
    return found
