"""Scales of a chart: from data to units of the drawing, with round ticks; and thinning."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from falcon_ssl.records.run import Array

Scale: TypeAlias = Literal["linear", "log"]

MOST_POINTS = 400


@dataclass(frozen=True)
class Axis:
    """A scale from data to units of the drawing."""

    low: float
    high: float
    start: float
    end: float
    scale: Scale

    def __call__(self, value: float) -> float:
        """Position of a value."""
        low, high, v = self.low, self.high, value
        if self.scale == "log":
            low, high, v = math.log(low), math.log(high), math.log(value)
        return self.start + (self.end - self.start) * (v - low) / (high - low)

    def can_show(self, value: float) -> bool:
        """Whether the value has a place on the axis."""
        return math.isfinite(value) and (value > 0 or self.scale == "linear")

    def ticks(self) -> list[float]:
        """Round values inside the axis, about one in 50 units of the drawing."""
        powers = _log_ticks(self.low, self.high) if self.scale == "log" else []
        return powers if len(powers) >= 2 else _ticks(self)


def _ticks(axis: Axis) -> list[float]:
    """Multiples of the 1, 2 or 5 times a power of ten that is nearest to a fair distance."""
    fair = (axis.high - axis.low) * 50 / abs(axis.end - axis.start)
    power = 10.0 ** math.floor(math.log10(fair))
    # Changing over at the geometric means keeps every distance within a factor 1.6 of the fair one.
    ratio = (fair / power) ** 2
    step = power * next(m for m, n in ((1, 2), (2, 5), (5, 10), (10, 20)) if ratio <= m * n)
    first, last = math.ceil(axis.low / step - 1e-9), math.floor(axis.high / step + 1e-9)
    return [k * step for k in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten, thinned to six; with 2 and 5 in between when there are fewer than three."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    powers = [
        k for k in range(first, last + 1) if low <= 10.0**k * 1.001 and 10.0**k <= high * 1.001
    ]
    if len(powers) >= 3:
        stride = math.ceil(len(powers) / 6)
        return [10.0**k for k in powers[::stride]]
    fine = [m * 10.0**k for k in range(first, last + 1) for m in (1, 2, 5)]
    return [v for v in fine if low <= v * 1.001 and v <= high * 1.001]


def make_axis(values: Array, start: float, end: float, scale: Scale, pad: float) -> Axis:
    """An axis that holds all drawable ``values``, with a fraction ``pad`` of air at both ends."""
    drawable = values[np.isfinite(values) & ((values > 0) | (scale == "linear"))]
    low, high = (float(drawable.min()), float(drawable.max())) if drawable.size else (1.0, 1.0)
    if scale == "log":
        if high < low * 1.05:
            low, high = low / 2, high * 2
        air = (high / low) ** pad
        return Axis(low / air, high * air, start, end, scale)
    if high - low <= 1e-9 * max(abs(low), abs(high), 1e-9):
        air = abs(low) / 2 or 0.5
        low, high = low - air, high + air
    air = pad * (high - low)
    # Air must not push an axis of non-negative values below zero: there is nothing there to show.
    return Axis(max(low - air, 0.0) if low >= 0 else low - air, high + air, start, end, scale)


def thin(x: Array, y: Array, *, most: int = MOST_POINTS) -> tuple[Array, Array]:
    """Average consecutive points until at most ``most`` remain; a short curve stays as it is.

    Values that are not finite stay visible as gaps only when a whole bin holds nothing else.
    """
    if len(x) <= most:
        return x, y
    edges = np.linspace(0, len(x), most + 1).astype(int)[:-1]
    finite = np.isfinite(y)
    counts = np.add.reduceat(finite.astype(float), edges)
    sums = np.add.reduceat(np.where(finite, y, 0.0), edges)
    means = np.divide(sums, counts, out=np.full(most, np.nan), where=counts > 0)
    return np.add.reduceat(x, edges) / np.diff(np.append(edges, len(x))), means
