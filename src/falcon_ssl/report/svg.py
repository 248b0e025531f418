"""Charts as inline SVG, colored by the page's style sheet, so light and dark both work.

A chart is drawn in a box of 440 x 236 units that the page scales to its column. Colors are the
classes ``c0`` to ``c7`` and ``muted`` (what a run is compared with). ``page.js`` reads
``data-axis`` and ``data-series`` to show the values under the pointer.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from falcon_ssl.records.run import Array
from falcon_ssl.report.axes import Axis, Scale, make_axis, thin
from falcon_ssl.report.document import render
from falcon_ssl.report.formatting import format_number
from falcon_ssl.report.sheet import NUM_COLORS, Sheet

WIDTH, HEIGHT = 440.0, 236.0
LEFT, RIGHT, TOP, BOTTOM = 50.0, 430.0, 12.0, 198.0  # where the curves are
TEXT_HEIGHT = 12  # of a level's name


@dataclass(frozen=True)
class Series:
    """One line of a chart.

    Attributes:
        name: What the legend says.
        x: Positions [T].
        y: Values [T]; those that are not finite leave a gap.
        color: Index of the color, or None for the muted one.
        spread: Half-width [T] of an error bar at each point, or None.
        dots: Whether to mark every point.
    """

    name: str
    x: Array
    y: Array
    color: int | None = 0
    spread: Array | None = None
    dots: bool = False

    @property
    def css(self) -> str:
        """Class of the style sheet that colors this line."""
        return "muted" if self.color is None else f"c{self.color % NUM_COLORS}"


@dataclass(frozen=True)
class Level:
    """A horizontal dashed line with its meaning: a bound, an ideal, a chance value."""

    value: float
    text: str


@dataclass(frozen=True)
class Chart:
    """Curves over a common axis: a part of a page, or a drawing of its own.

    Attributes:
        values: What the templates fill in.
    """

    values: Mapping[str, Any]

    def __html__(self) -> str:
        """The legend and the SVG, colored and made alive by the page."""
        return str(render("chart.html", **self.values))

    __str__ = __html__

    def sheet(self) -> Sheet:
        """The same as a drawing of its own."""
        keys = [("", str(self.values["y_label"]))] if self.values["y_label"] else []
        keys += [(css, name) for name, css in self.values["keys"]]
        return Sheet(WIDTH, HEIGHT, render("marks.html", **self.values), keys)


def _path(points: Sequence[tuple[float, float] | None]) -> str:
    """SVG path through the points; None breaks the line."""
    parts, pen_down = [], False
    for point in points:
        if point is not None:
            parts.append(f"{'L' if pen_down else 'M'}{point[0]:.1f} {point[1]:.1f}")
        pen_down = point is not None
    return "".join(parts)


def _curve(series: Series, x_axis: Axis, y_axis: Axis) -> dict[str, Any]:
    """What the template draws of a curve: the line, its dots, and its error bars (x, low, high)."""
    data = list(zip(series.x.tolist(), series.y.tolist(), strict=True))
    points = [(x_axis(x), y_axis(y)) if y_axis.can_show(y) else None for x, y in data]
    solid = [point for point in points if point is not None]
    whiskers = []
    for (x, y), s in zip(
        data, [] if series.spread is None else series.spread.tolist(), strict=False
    ):
        if math.isfinite(y) and math.isfinite(s) and s > 0:
            whiskers.append((x, max(y - s, y_axis.low), min(y + s, y_axis.high)))
    dots = solid if series.dots or len(solid) == 1 else []
    return {"css": series.css, "path": _path(points), "dots": dots, "whiskers": whiskers}


def _rise(level: Level, levels: Sequence[Level], y_axis: Axis) -> float:
    """How far a level's text stands above its line: above the text of another line just below it, too."""
    below = [y_axis(one.value) - y_axis(level.value) for one in levels if one is not level]
    return 4 + TEXT_HEIGHT if any(0 < gap < TEXT_HEIGHT for gap in below) else 4


def _roomier_side(levels: Sequence[Level], series: Sequence[Series], y_axis: Axis) -> str:
    """The end of a single level where the curves leave more room for its text."""
    room = {"start": math.inf, "end": math.inf}
    for level in levels:
        for curve in series:
            shown = [y_axis(v) for v in curve.y.tolist() if y_axis.can_show(v)]
            gaps = [abs(place - y_axis(level.value)) for place in shown]
            reach = max(1, round(0.4 * len(gaps)))
            room["start"] = min([room["start"], *gaps[:reach]])
            room["end"] = min([room["end"], *gaps[-reach:]])
    return "start" if room["start"] > room["end"] else "end"


def _tick_text(value: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            unit = 1e3 if letter == "k" else size
            return format_number(value / unit) + letter
    return format_number(round(value, 12))


def line_chart(
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str,
    description: str,
    x_scale: Scale = "linear",
    y_scale: Scale = "linear",
    x_range: tuple[float, float] | None = None,
    x_names: Sequence[tuple[float, str]] = (),
    levels: Sequence[Level] = (),
    events: Sequence[tuple[float, str]] = (),
    from_zero: bool = False,
) -> Chart:
    """Draw curves over a common x axis, under a line with the unit and the color keys.

    Args:
        series: The curves; each keeps at most 400 points (longer ones are averaged in bins).
        x_label: What the x axis counts.
        y_label: Unit of the y axis, written above it.
        description: Text alternative for screen readers.
        x_scale: "linear" or "log" (then x must be positive).
        y_scale: "linear" or "log" (then values that are not positive leave a gap).
        x_range: Least and largest x; those of the curves when None.
        x_names: Positions of the ticks of the x axis and their texts; round numbers when empty.
        levels: Dashed horizontal lines with their meaning.
        events: Positions on the x axis to mark, each with its text.
        from_zero: Whether the y axis must show zero.

    Returns:
        The chart.
    """
    drawn = []
    for s in series:
        x, y = (s.x, s.y) if s.spread is not None else thin(s.x, s.y)
        drawn.append(replace(s, x=x, y=y))
    y_values = [s.y for s in drawn] + [np.array([level.value]) for level in levels]
    y_values += [s.y + s.spread for s in drawn if s.spread is not None]
    y_values += [np.zeros(1)] if from_zero and y_scale == "linear" else []
    x_values = [np.array(x_range)] if x_range else [s.x for s in drawn]
    x_axis = make_axis(np.concatenate(x_values), LEFT, RIGHT, x_scale, 0.0)
    y_axis = make_axis(np.concatenate(y_values), BOTTOM, TOP, y_scale, 0.04)
    keys = list(dict.fromkeys((s.name, s.css) for s in drawn))
    # Texts of levels: at the roomier end of a single one, at alternate ends of several.
    sides = ["start", "end"] if len(levels) > 1 else [_roomier_side(levels, drawn, y_axis)]
    return Chart(
        {
            "x": x_axis,
            "y": y_axis,
            "x_label": x_label,
            "y_label": y_label,
            "description": description,
            "keys": keys if len(keys) > 1 else [],  # a single curve is named by the title already
            "x_names": x_names or [(v, _tick_text(v)) for v in x_axis.ticks()],
            "y_names": [(v, _tick_text(v)) for v in y_axis.ticks()],
            "events": events,
            "curves": [_curve(s, x_axis, y_axis) for s in drawn],
            "levels": [
                (level, sides[k % len(sides)], _rise(level, levels, y_axis))
                for k, level in enumerate(levels)
            ],
            "axis": json.dumps([x_axis.low, x_axis.high, LEFT, RIGHT, x_scale]),
            "data": _series_data(drawn),
        }
    )


def _series_data(series: Sequence[Series]) -> str:
    """What the pointer reads: per curve its name, class, positions and values."""

    def short(values: Array) -> list[float | None]:
        return [float(f"{v:.4g}") if math.isfinite(v) else None for v in values.tolist()]

    data = [[s.name, s.css, short(s.x), short(s.y)] for s in series]
    return json.dumps(data, separators=(",", ":"), ensure_ascii=False)
