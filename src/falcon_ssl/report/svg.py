"""Charts as inline SVG, colored by the page's style sheet, so light and dark both work.

A chart is drawn in a box of 440 x 236 units that the page scales to its column. Colors are the
classes ``c0`` to ``c7`` and ``muted`` (what a run is compared with). ``page.js`` reads
``data-axis`` and ``data-series`` to show the values under the pointer.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from falcon_ssl.records.run import Array
from falcon_ssl.report.axes import Axis, Scale, make_axis, thin
from falcon_ssl.report.formatting import format_number

WIDTH, HEIGHT = 440.0, 236.0
LEFT, RIGHT, TOP, BOTTOM = 50.0, 430.0, 2.0, 198.0
NUM_COLORS = 8


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


def _path(points: Sequence[tuple[float, float] | None]) -> str:
    """SVG path through the points; None breaks the line."""
    parts, pen_down = [], False
    for point in points:
        if point is not None:
            parts.append(f"{'L' if pen_down else 'M'}{point[0]:.1f} {point[1]:.1f}")
        pen_down = point is not None
    return "".join(parts)


def _draw_series(series: Series, x_axis: Axis, y_axis: Axis) -> Markup:
    points: list[tuple[float, float] | None] = []
    for x, y in zip(series.x.tolist(), series.y.tolist(), strict=True):
        drawable = math.isfinite(y) and (y > 0 or y_axis.scale == "linear")
        points.append((x_axis(x), y_axis(y)) if drawable else None)
    body = Markup('<path class="line" d="{}"/>').format(_path(points))
    solid = [p for p in points if p is not None]
    if series.dots or len(solid) == 1:
        for px, py in solid:
            body += Markup('<circle cx="{:.1f}" cy="{:.1f}" r="3.2"/>').format(px, py)
    if series.spread is not None:
        for x, y, s in zip(
            series.x.tolist(), series.y.tolist(), series.spread.tolist(), strict=True
        ):
            if math.isfinite(y) and math.isfinite(s) and s > 0:
                low = max(y - s, y_axis.low)
                d = f"M{x_axis(x):.1f} {y_axis(low):.1f}V{y_axis(min(y + s, y_axis.high)):.1f}"
                body += Markup('<path class="whisker" d="{}"/>').format(d)
    return Markup('<g class="series {}">{}</g>').format(series.css, body)


def _draw_axes(
    x_axis: Axis, y_axis: Axis, x_label: str, x_names: Sequence[tuple[float, str]]
) -> Markup:
    body = Markup("")
    for v in y_axis.ticks():
        body += Markup(
            '<path class="grid" d="M{l} {y:.1f}H{r}"/>'
            '<text class="tick" x="{t}" y="{b:.1f}" text-anchor="end">{v}</text>'
        ).format(l=LEFT, r=RIGHT, y=y_axis(v), t=LEFT - 7, b=y_axis(v) + 4, v=_tick_text(v))
    for v, name in x_names:
        body += Markup(
            '<path class="axis" d="M{x:.1f} {b}v4"/>'
            '<text class="tick" x="{x:.1f}" y="{t}" text-anchor="middle">{v}</text>'
        ).format(x=x_axis(v), b=BOTTOM, t=BOTTOM + 17, v=name)
    return body + Markup(
        '<path class="axis" d="M{l} {b}H{r}"/>'
        '<text class="label" x="{r}" y="{xb}" text-anchor="end">{x}</text>'
    ).format(l=LEFT, r=RIGHT, b=BOTTOM, xb=BOTTOM + 33, x=x_label)


def _roomier_side(levels: Sequence[Level], series: Sequence[Series], y_axis: Axis) -> str:
    """The end of a single level where the curves leave more room for its text."""
    room = {"start": HEIGHT, "end": HEIGHT}
    for level in levels:
        for curve in series:
            drawable = np.isfinite(curve.y) & ((curve.y > 0) | (y_axis.scale == "linear"))
            gaps = [abs(y_axis(v) - y_axis(level.value)) for v in curve.y[drawable].tolist()]
            reach = max(1, round(0.4 * len(gaps)))
            room["start"] = min([room["start"], *gaps[:reach]])
            room["end"] = min([room["end"], *gaps[-reach:]])
    return "start" if room["start"] > room["end"] else "end"


def _draw_levels(levels: Sequence[Level], series: Sequence[Series], y_axis: Axis) -> Markup:
    """Dashed lines, then their texts over them: at the roomier end, or at alternate ones."""
    sides = ("start", "end") if len(levels) > 1 else (_roomier_side(levels, series, y_axis),)
    lines, texts = Markup(""), Markup("")
    for k, level in enumerate(levels):
        side, y = sides[k % len(sides)], y_axis(level.value)
        x = LEFT + 4 if side == "start" else RIGHT
        lines += Markup('<path class="level" d="M{} {:.1f}H{}"/>').format(LEFT, y, RIGHT)
        texts += Markup('<text class="level" x="{}" y="{:.1f}" text-anchor="{}">{}</text>').format(
            x, y - 4, side, level.text
        )
    return lines + texts


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
) -> Markup:
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
        The legend and the SVG.
    """
    drawn = [_thinned(s) for s in series]
    y_values = [s.y for s in drawn] + [np.array([level.value]) for level in levels]
    y_values += [s.y + s.spread for s in drawn if s.spread is not None]
    y_values += [np.zeros(1)] if from_zero and y_scale == "linear" else []
    x_values = [np.array(x_range)] if x_range else [s.x for s in drawn]
    x_axis = make_axis(np.concatenate(x_values), LEFT, RIGHT, x_scale, 0.0)
    y_axis = make_axis(np.concatenate(y_values), BOTTOM, TOP + 10, y_scale, 0.04)
    names = x_names or [(v, _tick_text(v)) for v in x_axis.ticks()]
    body = _draw_axes(x_axis, y_axis, x_label, names)
    for x, text in events:
        body += Markup(
            '<path class="event" d="M{x:.1f} {t}V{b}"><title>{text}</title></path>'
        ).format(x=x_axis(x), t=TOP, b=BOTTOM, text=text)
    body += Markup("").join(_draw_series(s, x_axis, y_axis) for s in drawn)
    body += _draw_levels(levels, drawn, y_axis)
    axis_data = json.dumps([x_axis.low, x_axis.high, LEFT, RIGHT, x_scale])
    return _legend(y_label, [(s.name, s.css) for s in drawn]) + Markup(
        '<svg class="chart" viewBox="0 0 {w:.0f} {h:.0f}" role="img" aria-label="{d}"'
        ' data-axis="{axis}" data-series="{data}">{body}'
        '<path class="cursor" d="M0 {t}V{b}"/></svg>'
    ).format(
        w=WIDTH, h=HEIGHT, d=description, t=TOP, b=BOTTOM, body=body, axis=axis_data,
        data=_series_data(drawn),
    )  # fmt: skip


def _thinned(series: Series) -> Series:
    if series.spread is not None:
        return series
    x, y = thin(series.x, series.y)
    return Series(series.name, x, y, series.color, None, series.dots)


def _series_data(series: Sequence[Series]) -> str:
    """What the pointer reads: per curve its name, class, positions and values."""

    def short(values: Array) -> list[float | None]:
        return [float(f"{v:.4g}") if math.isfinite(v) else None for v in values.tolist()]

    data = [[s.name, s.css, short(s.x), short(s.y)] for s in series]
    return json.dumps(data, separators=(",", ":"), ensure_ascii=False)


def _legend(unit: str, entries: Sequence[tuple[str, str]]) -> Markup:
    """The unit of the y axis and the color keys; a single curve is named by the title already."""
    keys = Markup("").join(
        Markup('<li class="{}">{}</li>').format(css, name) for name, css in dict.fromkeys(entries)
    )
    return Markup('<ul class="legend"><li class="unit">{}</li>{}</ul>').format(
        unit, keys if len(set(entries)) > 1 else ""
    )
