"""Read the folder of one run into memory: what was asked for, what was logged, what was measured.

Needed: ``config.yaml`` and ``metrics.jsonl``. Welcome when there: ``evaluation.json``,
``arrays.npz``, ``environment.json``, ``diagnosis.json``. An absent record is empty here and named on
the page; one that is there but cannot be read raises `InputError`.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from falcon_ssl.config.mapping import read_yaml
from falcon_ssl.core.errors import InputError
from falcon_ssl.records.arrays import read_arrays
from falcon_ssl.records.checkpoints import unfinished_sentence
from falcon_ssl.records.files import WRITE_AGAIN, read_json, read_json_lines, unreadable
from falcon_ssl.records.folder import (
    ARRAYS,
    CONFIG,
    DIAGNOSIS,
    ENVIRONMENT,
    EVALUATION,
    METRICS,
    RECORD_FORMS,
)
from falcon_ssl.records.metrics import is_few_labels, start_label
from falcon_ssl.records.schema import CONFIG_FORM, check_form

Array: TypeAlias = "NDArray[Any]"

# The last word of an array's name has a letter for each of its dimensions, except that of these.
PROJECTION = "projection"  # the only text: how the map was made
HUGE = 1e30
LABELS = "neighbors_label_T"  # of the last of these:
THUMBNAILS = ("map_thumbnails", "neighbors_thumbnails")
OTHER_DIMENSIONS = {PROJECTION: (0,)} | dict.fromkeys(THUMBNAILS, (3, 4))


@dataclass(frozen=True)
class Alarm:
    """A warning that training gave, and where it was given."""

    step: int
    epoch: float
    name: str
    text: str


@dataclass(frozen=True)
class Curve:
    """One logged quantity over training: ``y`` [T] at ``x`` [T] epochs (steps when none logged)."""

    x: Array
    y: Array


@dataclass(frozen=True)
class Run:
    """Everything recorded about one run; absent records are empty.

    Attributes:
        name: Name of the run folder.
        config: The complete configuration, nested.
        curves: Logged quantity -> its curve; only numbers become curves.
        monitors: Online evaluation -> its curve.
        alarms: Warnings given while training, in order.
        evaluation: The metrics of ``evaluation.json``.
        arrays: The pictures' data, as `falcon_ssl.evaluation.picture_arrays` names them.
        environment: Command, versions, hardware, time.
        diagnosis: The verdicts of ``diagnosis.json``.
        others: Evaluations of other images and checkpoints, by NAME of ``evaluation-NAME.json``.
        cut_off: Whether the last line of ``metrics.jsonl`` was cut off, and left out.
        unfinished: That training has not come to its end, in words; "" where it has.
    """

    name: str
    config: Mapping[str, Any]
    curves: Mapping[str, Curve]
    monitors: Mapping[str, Curve] = field(default_factory=dict)
    alarms: tuple[Alarm, ...] = ()
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, Array] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    diagnosis: Mapping[str, Any] = field(default_factory=dict)
    others: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    cut_off: bool = False
    unfinished: str = ""

    def setting(self, name: str) -> Any:
        """The configuration's value of this name at any depth, the level nearest to the top first; None without any."""
        levels: deque[Mapping[str, Any]] = deque([self.config])
        while levels:
            level = levels.popleft()
            value = level.get(name)
            if value is not None and not isinstance(value, Mapping):
                return value
            levels.extend(v for v in level.values() if isinstance(v, Mapping))
        return None

    def number_setting(self, name: str) -> float | None:
        """`setting` as a number; None when there is none or it is no number."""
        return as_number(self.setting(name))

    def metric(self, *path: str) -> float | None:
        """A number of ``evaluation.json``: ``metric("chance", "top1")``; None when absent."""
        value: Any = self.evaluation
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        return as_number(value)

    def chance(self, key: str) -> float | None:
        """See `chance_of`."""
        return chance_of(self.evaluation, key)

    def about(self, key: str) -> Any:
        """What ``evaluation.json`` says about the data and sizes; None when it does not."""
        about = self.evaluation.get("about")
        return about.get(key) if isinstance(about, Mapping) else None

    @property
    def started_from(self) -> str:
        """What the network was before training, which stands beside it: "random encoder" or "initial weights"."""
        init = self.config.get("init")
        return start_label(init.get("weights") if isinstance(init, Mapping) else None)

    @property
    def embed_dim(self) -> float | None:
        """F, the width of the embedding u, when recorded."""
        recorded = as_number(self.about("embed_dim"))
        return recorded if recorded is not None else self.number_setting("embed_dim")

    @property
    def representation_width(self) -> float | None:
        """D, the width of the representation z, when its spectrum was recorded."""
        return float(len(self.arrays["spectrum_z"])) if "spectrum_z" in self.arrays else None

    def most_directions(self, width: float | None) -> float | None:
        """How many directions centered rows of a width can take: N test images no more than N - 1."""
        num_test = as_number(self.about("num_test"))
        return width if width is None or num_test is None else min(width, num_test - 1)


def chance_of(evaluation: Mapping[str, Any], key: str) -> float | None:
    """What chance reaches by a number of an ``evaluation.json``; None where that is not known.

    Example:
        >>> chance_of({"chance": {"top1": 0.1}}, "top1_linear_1pct"), chance_of({}, "ami_codes")
        (0.1, 0.0)
    """
    if key.startswith(("ami_", "ari_")):  # adjusted for it
        return 0.0
    if key == "nmi_codes":
        return as_number(evaluation.get("chance_nmi_codes"))
    name = "top1" if is_few_labels(key) else key.removesuffix("_linear").removesuffix("_knn")
    return as_number((evaluation.get("chance") or {}).get(name))


def as_number(value: object) -> float | None:
    """``value`` as a float when it is a number (or a string of one, as YAML reads 1e-8)."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        return float(value)
    except ValueError:
        return None
    except OverflowError:  # 2^2048 codes
        return math.inf


def read_run(run_dir: Path) -> Run:
    """Read every record of a run folder.

    Args:
        run_dir: The folder that the trainer wrote.

    Returns:
        The records; those that are absent are empty.

    Raises:
        InputError: When the folder, ``config.yaml`` or ``metrics.jsonl`` is missing, or when any
            record that is there cannot be read.
    """
    run_dir = Path(run_dir)
    if not run_dir.is_dir():
        expected = "a folder written by `falcon-ssl pretrain`"
        raise InputError("no run folder", received=run_dir, expected=expected)
    lines, cut_off = read_json_lines(run_dir / METRICS, RECORD_FORMS[METRICS])
    curves, monitors, alarms = _split_lines(lines)

    def record(name: str) -> Mapping[str, Any]:
        path = run_dir / name
        return read_json(path, RECORD_FORMS[name]) if path.exists() else {}

    beside = f"{Path(EVALUATION).stem}-"
    config = read_yaml(run_dir / CONFIG)
    check_form(run_dir / CONFIG, config, CONFIG_FORM)
    return Run(
        name=run_dir.resolve().name,
        config=config,
        curves=curves,
        monitors=monitors,
        alarms=alarms,
        evaluation=record(EVALUATION),
        arrays=_read_arrays(run_dir / ARRAYS),
        environment=record(ENVIRONMENT),
        diagnosis=record(DIAGNOSIS),
        others={
            path.stem.removeprefix(beside): read_json(path, RECORD_FORMS[EVALUATION])
            for path in sorted(run_dir.glob(f"{beside}*.json"))
        },
        cut_off=cut_off,
        unfinished=unfinished_sentence(run_dir),
    )


def _split_lines(
    lines: Sequence[Mapping[str, Any]],
) -> tuple[dict[str, Curve], dict[str, Curve], tuple[Alarm, ...]]:
    """Sort lines into training curves, monitors and alarms.

    A resumed run logs the steps after its checkpoint again: the last line of a step counts.
    """
    trained: dict[int, Mapping[str, Any]] = {}
    monitored: dict[int, Mapping[str, Any]] = {}
    alarms: dict[tuple[int, str], Alarm] = {}
    for line in lines:
        step = int(line["step"])
        if isinstance(line.get("monitor"), Mapping):
            monitored[step] = {**line["monitor"], "epoch": line.get("epoch", step)}
        elif isinstance(line.get("alarm"), Mapping):
            name = str(line["alarm"].get("name", "alarm"))
            epoch = as_number(line.get("epoch"))
            text = str(line["alarm"].get("text", name))
            alarms[step, name] = Alarm(step, float(step) if epoch is None else epoch, name, text)
        else:
            trained[step] = line
    return _columns(trained), _columns(monitored), tuple(alarms[key] for key in sorted(alarms))


def _columns(rows: Mapping[int, Mapping[str, Any]]) -> dict[str, Curve]:
    """Turn one mapping per step into one curve per name."""
    x: dict[str, list[float]] = {}
    y: dict[str, list[float]] = {}
    for step in sorted(rows):
        row = rows[step]
        epoch = as_number(row.get("epoch"))
        for name, value in row.items():
            if name in ("step", "epoch") or isinstance(value, (str, bool)):
                continue
            number = as_number(value)
            if number is not None:
                x.setdefault(name, []).append(float(step) if epoch is None else epoch)
                y.setdefault(name, []).append(number if abs(number) <= HUGE else math.nan)
    return {name: Curve(np.array(x[name]), np.array(y[name])) for name in x}


def _read_arrays(path: Path) -> dict[str, Array]:
    if not path.exists():
        return {}
    arrays = read_arrays(path, with_text=True, fix=WRITE_AGAIN)
    for name, array in arrays.items():
        is_text = array.dtype.kind in "US"
        if is_text != (name == PROJECTION) or (not is_text and np.abs(array).max(initial=0) > HUGE):
            received = (
                f"{name} of {array.dtype}" if is_text else f"{name} with numbers beyond {HUGE:g}"
            )
            raise unreadable(path, received, "numbers that can be drawn", WRITE_AGAIN)
        letters = "" if name in OTHER_DIMENSIONS else name.rsplit("_", 1)[-1]
        sizes = dict(zip(letters, array.shape, strict=False))
        fits = all(
            sizes[letter] == size for letter, size in zip(letters, array.shape, strict=False)
        )
        is_picture = array.dtype == np.uint8 and (array.ndim == 3 or array.shape[-1] == 3)
        if not fits or (name in THUMBNAILS and not is_picture):
            shape = f"{name} of shape {array.shape}"
            raise unreadable(path, shape, f"the shape {letters or 'of pictures'}", WRITE_AGAIN)
        if (
            name.endswith(("_label_M", "_code_M", "_label_T", "_QK"))
            and array.dtype.kind not in "iu"
        ):
            raise unreadable(path, f"{name} of {array.dtype}", "integers", WRITE_AGAIN)
        dimensions = OTHER_DIMENSIONS.get(name, (len(name.rsplit("_", 1)[-1]),))
        if array.ndim not in dimensions or (array.ndim and not array.size):
            shape = f"{name} of shape {array.shape}"
            raise unreadable(path, shape, f"{dimensions} dimensions", WRITE_AGAIN)
    shown = len(arrays.get(THUMBNAILS[1], ()))
    for name in (name for name in arrays if name.endswith("_QK")):
        if arrays[name].min() < 0 or arrays[name].max() >= shown:
            received = f"{name} from {arrays[name].min()} to {arrays[name].max()}"
            raise unreadable(path, received, f"places among {shown} pictures", WRITE_AGAIN)
    if LABELS in arrays and len(arrays[LABELS]) != shown:
        received = f"{LABELS} of {len(arrays[LABELS])}"
        raise unreadable(path, received, f"one for each of {shown} pictures", WRITE_AGAIN)
    for prefix in ("adjacency_", "map_"):
        lengths = {name: len(a) for name, a in arrays.items() if name.startswith(prefix)}
        if len(set(lengths.values())) > 1:
            raise unreadable(path, lengths, f"equal lengths of all {prefix} arrays", WRITE_AGAIN)
    return arrays
