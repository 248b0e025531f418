"""Monitors: what the training loop passes to them, and what it logs of their answers.

The loop depends on no evaluation: monitors are callables that it is given.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from torch import Tensor, nn


class Moment(NamedTuple):
    """One logged step, or the end of an epoch.

    Args:
        step: Optimizer steps taken so far.
        epoch: Passes over the data so far, a fraction inside an epoch.
        terms: Loss terms of this step as numbers.
        u_NF: Embeddings of the first view of this step, this rank's rows.
        method: The network, in training mode; a monitor that changes the mode restores it.
        is_epoch_end: Whether this was the last step of an epoch.
    """

    step: int
    epoch: float
    terms: Mapping[str, float]
    u_NF: Tensor
    method: nn.Module
    is_epoch_end: bool


@dataclass(frozen=True)
class Observation:
    """What a monitor found.

    Args:
        metrics: Numbers that join the step's line of metrics.jsonl.
        evaluation: Numbers on held-out data; a line of their own.
        alarms: What is wrong, in one sentence each, by name.
        stop: Whether the run should end here.
        best: Names to keep this moment's checkpoint under, because it is the best so far; at an epoch's end only.
        note: A sentence to log that is no alarm; "" is none.
    """

    metrics: Mapping[str, float] = field(default_factory=dict)
    evaluation: Mapping[str, float] = field(default_factory=dict)
    alarms: Mapping[str, str] = field(default_factory=dict)
    stop: bool = False
    best: tuple[str, ...] = ()
    note: str = ""


class Monitor(Protocol):
    """Called at logged steps; its state is plain JSON, so that a resumed run is as if never stopped."""

    def __call__(self, moment: Moment) -> Observation:
        """What there is to log of a moment."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What to keep in a checkpoint."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what a checkpoint kept."""
        ...


class StuckValue(NamedTuple):
    """A value at which a loss term stays when a method learns nothing.

    Args:
        term: Name of the term.
        value: Where it stays.
        words: What that means.
    """

    term: str
    value: float
    words: str
