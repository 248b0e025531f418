"""Families: runs that differ only by their seeds, and the mean and spread of what they reach."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from falcon_ssl.config.mapping import flat_mapping
from falcon_ssl.records.metrics import Kind
from falcon_ssl.records.run import Run, as_number
from falcon_ssl.report.formatting import NARROW_SPACE, format_number

Options: TypeAlias = Mapping[str, Any]

# A label that names more options than this is longer than a folder's name.
MOST_OPTIONS = 3


@dataclass(frozen=True)
class Family:
    """Runs of one configuration with different seeds.

    Attributes:
        label: What sets the family apart, for legends and column titles.
        runs: Its members, in the order given.
    """

    label: str
    runs: tuple[Run, ...]


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation (n - 1) over the runs that have a number."""

    mean: float
    deviation: float | None
    count: int

    def text(self, kind: Kind) -> str:
        """As "98.6 ± 0.2 %"; the deviation only where there are several runs."""
        mean = format_number(self.mean, kind)
        if self.deviation is None:
            return mean
        if kind in ("count", "real"):
            return f"{mean} ± {self.deviation:.2g}"
        return f"{mean.removesuffix(NARROW_SPACE + '%')} ± {format_number(self.deviation, kind)}"


def spread(values: Sequence[float | None]) -> Spread | None:
    r"""Mean and spread of the numbers that are there; None when there are none.

    Example:
        >>> spread([0.98, 1.0, None]).text("percent")
        '99.0 ± 1.4\u202f%'
    """
    known = np.array([value for value in values if value is not None])
    if known.size == 0:
        return None
    mean = float(known.mean())
    deviation = float(known.std(ddof=1)) if known.size > 1 else None
    if deviation is not None and deviation < 1e-9 * abs(mean):
        deviation = 0.0  # equal numbers, up to the rounding of their mean
    return Spread(mean, deviation, int(known.size))


def families(runs: Sequence[Run]) -> list[Family]:
    """Group runs that differ only by seeds, in order of first appearance.

    Two runs belong together when every option is equal but those named ``seed`` or ``..._seed``. A
    family is labeled by the options in which it differs from the others of its method, and by the
    method where there are several; by its first folder where that would be long or empty.
    """
    members: dict[str, list[Run]] = {}
    for run in runs:
        members.setdefault(json.dumps(options(run), sort_keys=True, default=str), []).append(run)
    groups = list(members.values())
    methods = [str(group[0].setting("method") or "falcon") for group in groups]
    found = []
    for group, method in zip(groups, methods, strict=True):
        peers = [g[0] for g, m in zip(groups, methods, strict=True) if m == method]
        words = [method] if len(set(methods)) > 1 else []
        changed = differing(peers)
        own = options(group[0])
        # The complete dictionary has no num_codes to choose.
        is_complete = "complete" in own.values()
        named = [name for name in changed if not (is_complete and name.endswith("num_codes"))]
        words += [_words(name, own.get(name)) for name in named]
        short = words and len(changed) <= MOST_OPTIONS
        found.append(Family(", ".join(words) if short else group[0].name, tuple(group)))
    return found


def options(run: Run) -> Options:
    """The configuration as one level, ``optim.lr`` for a nested name, without the seeds."""
    flat = flat_mapping(run.config)
    return {name: value for name, value in flat.items() if not name.endswith("seed")}


def differing(runs: Sequence[Run]) -> list[str]:
    """Names of the options, seeds apart, that are not equal in all runs."""
    flat = [options(run) for run in runs]
    names = dict.fromkeys(name for one in flat for name in one)
    return [name for name in names if any(one.get(name) != flat[0].get(name) for one in flat)]


def _words(name: str, value: Any) -> str:
    """An option in a label: a string stands alone, a number after its name."""
    if isinstance(value, str):
        return value
    short = name.rsplit(".", 1)[-1].replace("_", " ")
    number = as_number(value)
    if isinstance(value, float) and number is not None:
        return f"{short} {format_number(number)}"
    return f"{short} {'default' if value is None else value}"
