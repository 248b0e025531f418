"""Further places to log to, through Accelerate: TensorBoard, and Weights & Biases.

Their files lie in the run folder. Weights & Biases sends nothing where its own ``WANDB_MODE=offline`` says so; ``wandb
sync`` does it later.
"""

from __future__ import annotations

from pathlib import Path

from accelerate import Accelerator, PartialState
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker

from falcon_ssl.config.mapping import flat_mapping
from falcon_ssl.config.run import RunConfig, to_mapping
from falcon_ssl.records.folder import TRACKED


def start_trackers(accelerator: Accelerator, config: RunConfig, folder: Path) -> None:
    """Begin to log a training to the trackers that the accelerator was built for: the run's name, and its options."""
    if not config.engine.trackers:
        return
    accelerator.init_trackers(
        TRACKED,
        config={name: _plain(value) for name, value in flat_mapping(to_mapping(config)).items()},
        init_kwargs={"wandb": _of_wandb(folder, "")} if accelerator.is_main_process else {},
    )


def open_tracker(name: str, folder: Path, *, part: str) -> GeneralTracker:
    """A tracker by itself, for what follows the training; as one of the run's.

    Args:
        name: tensorboard, whose numbers join those of the training, or wandb, which groups runs.
        folder: The run folder.
        part: What follows.
    """
    PartialState()  # which trackers ask whether they are the first process
    options = {"logging_dir": folder} if name == "tensorboard" else _of_wandb(folder, part)
    tracker: GeneralTracker = LOGGER_TYPE_TO_CLASS[name](TRACKED, **options)
    tracker.start()
    return tracker


def _of_wandb(folder: Path, part: str) -> dict[str, str]:
    name, inside = folder.resolve().name, folder / TRACKED
    inside.mkdir(parents=True, exist_ok=True)
    return {"name": f"{name} {part}".rstrip(), "group": name, "dir": str(inside)}


def _plain(value: object) -> bool | float | str:
    """A value as trackers take it: a number, or words."""
    return value if isinstance(value, (bool, int, float)) else str(value)
