"""Checkpoints that are kept beside the last one: the best so far, and every N epochs.

    checkpoint/             the last: what a resumed run continues from
    checkpoint-step_120/    those before it, see `falcon_ssl.records.checkpoints`
    checkpoint-best/        largest RankMe
    checkpoint-best_knn/    highest kNN on held-out images, where there are labels
    checkpoint-epoch_10/    --engine.keep every:10

Each is a whole checkpoint. Its files are linked to those of the last one and not copied, where the disk can: they cost
nothing until the last one is replaced.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from falcon_ssl.config.engine import EngineConfig
from falcon_ssl.core.monitor import Moment, Observation
from falcon_ssl.records.files import replacing_folder


def kept_names(
    config: EngineConfig, moment: Moment, observations: Sequence[Observation]
) -> list[str]:
    """Names to keep the checkpoint of a moment under: none, except at the end of an epoch."""
    if not moment.is_epoch_end:
        return []
    epoch, every = round(moment.epoch), config.keep_every
    best = [name for observation in observations for name in observation.best]
    is_due = every is not None and epoch % every == 0
    return [*(best if "best" in config.keep else ()), *([f"epoch_{epoch}"] if is_due else ())]


def keep_checkpoint(checkpoint: Path, kept: Path) -> None:
    """Keep a checkpoint as it is now; a crash at any moment leaves ``kept`` whole, or absent."""
    with replacing_folder(kept) as unfinished:
        shutil.copytree(checkpoint, unfinished, copy_function=_link, dirs_exist_ok=True)


def _link(source: str, target: str) -> None:
    """A second name of a file that is never written again, or a copy where the disk has no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
