"""Quality and geometry against the size of the dictionary: the paper's figures, with honest chance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from falcon_ssl.core.errors import InputError
from falcon_ssl.core.theory import codes_needed, effective_temperature
from falcon_ssl.records.metrics import describe
from falcon_ssl.records.run import Run
from falcon_ssl.report.compared import doubt, family_spread
from falcon_ssl.report.comparison import (
    legend_of,
    number_blocks,
    pictures,
    read_runs,
    spectrum_overlays,
)
from falcon_ssl.report.curves import Panel
from falcon_ssl.report.document import Figure, Page, Section, write_page
from falcon_ssl.report.families import Family, Spread, differing, spread
from falcon_ssl.report.formatting import format_number
from falcon_ssl.report.plots import off_diagonal_rms
from falcon_ssl.report.svg import Level, Series, line_chart
from falcon_ssl.report.theory import optimum_of

# What may change along a sweep: the dictionary, and how its scale is stated and its loss computed.
SIZE_OPTIONS = frozenset({"dictionary", "num_codes", "epsilon", "temperature", "backend"})
# The complete dictionary has a divergence of its own.
COMPLETE_OPTIONS = SIZE_OPTIONS | {"prior_matching"}

ACCURACY = 0.1  # of Z, to which a finite dictionary is called as good as the complete one

DIGITS, RAISED = "0123456789F", "⁰¹²³⁴⁵⁶⁷⁸⁹ᶠ"


@dataclass(frozen=True)
class Point:
    """One dictionary of the sweep.

    Attributes:
        family: Its runs.
        x: Position on the axis: C, or one step of the axis further for the complete dictionary.
        name: C in short, or 2^F.
        num_codes: C; infinite for the complete dictionary as far as a plot is concerned.
    """

    family: Family
    x: float
    name: str
    num_codes: float


QUALITY = (
    Panel(
        "Accuracy of frozen representations",
        ("top1_linear", "top1_knn"),
        "top-1, in [0, 1]",
        "Fraction of test images classified correctly. Dashed: the same for the random encoder.",
        random=True,
        from_zero=False,
    ),
    Panel(
        "Codes as clusters",
        ("ami_codes", "nmi_codes", "chance_nmi_codes"),
        "agreement with the classes",
        "NMI (arithmetic mean) grows with the number of codes even when labels are permuted:"
        " that chance level is drawn beside it. AMI is adjusted for it. Test split.",
        from_zero=False,
    ),
    Panel(
        "k-means clusters",
        ("ami_kmeans_z", "ami_kmeans_u"),
        "agreement with the classes",
        "k-means with as many clusters as classes; AMI is adjusted for chance. Test split."
        " Dashed: the same for the random encoder.",
        random=True,
        from_zero=False,
    ),
)
GEOMETRY = (
    Panel(
        "Effective rank of the embedding",
        ("effective_rank_u",),
        "directions",
        "exp(entropy of the normalized singular values), centered, test split.",
    ),
    Panel(
        "Codes used",
        ("codes_used",),
        "codes",
        "Codes that are the most probable one of at least one test image.",
    ),
)


def build_sweep(run_dirs: Sequence[Path], out: Path) -> Path:
    """Write one self-contained page about a sweep over dictionary sizes.

    Args:
        run_dirs: Run folders of at least two sizes; several seeds of a size are averaged.
        out: File to write; an older one is replaced.

    Returns:
        ``out``.

    Raises:
        InputError: When there are fewer than two sizes, the runs differ in anything else than the
            dictionary and seeds, or a record is missing or broken.
    """
    return write_page(sweep_page(sweep_points(read_runs(run_dirs))), Path(out))


def sweep_points(runs: Sequence[Run]) -> list[Point]:
    """Order runs by the size of their dictionary; raises InputError unless it is a sweep."""
    complete = [run for run in runs if run.setting("dictionary") == "complete"]
    finite = [run for run in runs if run.setting("dictionary") != "complete"]
    _check_only(finite, SIZE_OPTIONS)
    _check_only(runs, COMPLETE_OPTIONS if complete else SIZE_OPTIONS)
    sized: dict[int, list[Run]] = {}
    for run in finite:
        size = run.number_setting("num_codes")
        if size is None or not 1 <= size < math.inf:
            received, expected = run.setting("num_codes"), "num_codes >= 1 in its config.yaml"
            raise InputError(
                f"run {run.name} has no dictionary size", received=received, expected=expected
            )
        sized.setdefault(int(size), []).append(run)
    points = []
    for size in sorted(sized):
        family = Family(f"C = {format_number(size, 'count')}", tuple(sized[size]))
        points.append(Point(family, size, _short(size), size))
    if complete:
        widths = [run.embed_dim for run in complete]
        width = f"{widths[0]:.0f}" if widths[0] and len(set(widths)) == 1 else "F"
        name = "2" + width.translate(str.maketrans(DIGITS, RAISED))
        last = points[-1].x if points else 1.0
        step = last / points[-2].x if len(points) > 1 else 4.0
        family = Family(f"complete, {name}", tuple(complete))
        points.append(Point(family, last * step, name, math.inf))
    if len(points) < 2:
        received, expected = f"{len(points)} dictionary size", "at least 2 different num_codes"
        raise InputError("this is no sweep", received=received, expected=expected)
    return points


def _check_only(runs: Sequence[Run], allowed: frozenset[str]) -> None:
    others = [name for name in differing(runs) if name.rsplit(".", 1)[-1] not in allowed]
    if others:
        what, fix = "the runs differ in more than their dictionary", "compare them instead"
        expected = "equal options except dictionary and seeds"
        raise InputError(what, received=", ".join(others), expected=expected, fix=fix)


def _short(size: int) -> str:
    """A size as people say it: 1024 is 1K.

    Example:
        >>> [_short(size) for size in (64, 1000, 1024, 16384, 1048576)]
        ['64', '1000', '1K', '16K', '1M']
    """
    for unit, letter in ((2**20, "M"), (2**10, "K")):
        if size >= unit and size % unit == 0:
            return f"{size // unit}{letter}"
    return str(size)


def sweep_page(points: Sequence[Point]) -> Page:
    """The page of a sweep."""
    compared = [point.family for point in points]
    legend = legend_of(compared)
    return Page(
        title="Dictionary size",
        eyebrow=f"{len(legend)} runs, {len(points)} dictionaries from {points[0].name} to {points[-1].name}",
        status=None,
        verdict=_sentence(points),
        sections=[
            Section(
                "quality",
                "Quality",
                "Each point is the mean over seeds, the bar its sample standard deviation.",
                _figures(points, QUALITY),
            ),
            Section(
                "geometry",
                "Geometry",
                "In theory more codes bring the covariance nearer to the identity, shrink the blocks of the"
                " adjacency and flatten the spectrum, as long as all codes are used. What was measured:",
                [
                    *_decorrelation(points),
                    *_completeness(points),
                    *_figures(points, GEOMETRY),
                    *spectrum_overlays(legend),
                ],
            ),
            pictures(compared, "The first run of each size."),
            Section("numbers", "All numbers", "Mean ± spread over seeds.", number_blocks(compared)),
        ],
    )


def _sentence(points: Sequence[Point]) -> str:
    for key in ("top1_linear", "top1_knn", "ami_codes", "effective_rank_u"):
        spreads = [family_spread(point.family, key) for point in points]
        known = [(s, p) for s, p in zip(spreads, points, strict=True) if s is not None]
        if len(known) < 2:
            continue
        metric = describe(key)
        (first, p), (last, q) = known[0], known[-1]
        return (
            f"From {p.name} to {q.name} codes: {metric.label} from {first.text(metric.kind)}"
            f" to {last.text(metric.kind)}{doubt(first, last)}."
        )
    return "These runs were not evaluated: there is no number to follow along the sweep."


def _figures(points: Sequence[Point], panels: Sequence[Panel]) -> list[Figure]:
    """The panels of which anything was measured."""
    runs = [run for point in points for run in point.family.runs]
    found = []
    for panel in panels:
        series, levels = [], []
        for color, key in enumerate(panel.keys):
            label = describe(key).label
            spreads = [family_spread(point.family, key) for point in points]
            if any(s and math.isfinite(s.mean) for s in spreads):
                series.append(_spread_series(points, spreads, label, color))
            # The random encoder does not depend on the dictionary.
            random = spread([run.metric("random_encoder", key) for run in runs])
            if panel.random and random:
                levels.append(Level(random.mean, f"random encoder, {label}"))
        if series:
            options = {"levels": levels, "from_zero": panel.from_zero}
            events = _enough_codes(points) if panel.keys[0] == "top1_linear" else []
            caption = panel.caption + "".join(f" Upright line: {text}." for _, text in events)
            options["events"] = events
            found.append(_figure(points, panel.title, series, panel.unit, caption, **options))
    return found


def _spread_series(
    points: Sequence[Point], spreads: Sequence[Spread | None], name: str, color: int
) -> Series:
    """Means with error bars; a gap where nothing was measured."""
    return Series(
        name,
        np.array([point.x for point in points]),
        np.array([s.mean if s else np.nan for s in spreads]),
        color,
        spread=np.array([(s and s.deviation) or 0.0 for s in spreads]),
        dots=True,
    )


def _figure(
    points: Sequence[Point],
    title: str,
    series: Sequence[Series],
    unit: str,
    caption: str,
    **options: Any,
) -> Figure:
    chart = line_chart(
        series,
        x_label="codes in the dictionary",
        y_label=unit,
        description=f"{title} against the size of the dictionary",
        x_scale="log",
        x_names=[(point.x, point.name) for point in points],
        **options,
    )
    return Figure(title, chart, caption)


def _decorrelation(points: Sequence[Point]) -> list[Figure]:
    """How far HᵀH is from the identity, beside what C codes and the codes in use allow."""
    covariances = [[run.arrays.get("covariance_FF") for run in p.family.runs] for p in points]
    measured = [
        spread([off_diagonal_rms(one) for one in own if one is not None]) for own in covariances
    ]
    if not any(measured):
        return []
    x = np.array([point.x for point in points])
    # 1/sqrt(C); no line down to the complete dictionary, where it is zero.
    floor = np.array([1 / math.sqrt(point.num_codes) or math.nan for point in points])
    series = [
        _spread_series(points, measured, "measured", 0),
        Series("1/√C, the optimum of a Rademacher dictionary", x, floor, None),
    ]
    used = [family_spread(point.family, "codes_used") for point in points]
    if any(used):
        reached = np.array([1 / math.sqrt(s.mean) if s and s.mean else math.nan for s in used])
        series.append(Series("1/√(codes used)", x, reached, 1))
    caption = (
        "Not centered, test split. 0 is the identity: features that do not repeat each other. Codes"
        " that no image uses cannot help: evenly used, those in use would give 1/√(codes used)."
    )
    title = "Off-diagonal RMS of HᵀH"
    return [_figure(points, title, series, "", caption, y_scale="log")]


def _temperature(points: Sequence[Point]) -> float | None:
    """Effective temperature T = F / L^2 of the largest finite dictionary; None where it is not recorded."""
    finite = [point.family.runs[0] for point in points if math.isfinite(point.num_codes)]
    optimum = optimum_of(finite[-1]) if finite else None
    if optimum is None or finite[-1].embed_dim is None:
        return None
    return effective_temperature(finite[-1].embed_dim, optimum.logit_scale)


def _enough(temperature: float | None) -> int | None:
    """`codes_needed`; None where the temperature is not recorded or no finite dictionary will do."""
    try:
        return None if temperature is None else codes_needed(temperature, ACCURACY)
    except InputError:
        return None


def _enough_codes(points: Sequence[Point]) -> list[tuple[float, str]]:
    """A mark where the softmax over codes is expected to be that of all codes, if it lies within the axis."""
    enough = _enough(_temperature(points))
    if enough is None:
        return []
    text = f"{format_number(enough, 'count')} codes give the softmax over all 2^F to {ACCURACY:.0%}, by theory"
    return [(enough, text)] if points[0].x <= enough <= points[-1].x else []


def _completeness(points: Sequence[Point]) -> list[Figure]:
    """How far the softmax over C random codes is from that over all of them, by theory."""
    temperature = _temperature(points)
    enough = _enough(temperature)
    if temperature is None or enough is None:
        return []
    x = np.array([point.x for point in points if math.isfinite(point.num_codes)])
    delta = np.sqrt(np.expm1(1 / temperature) / x)
    series = [Series("√((exp(1/T) − 1)/C)", x, delta, 0, dots=True)]
    caption = (
        f"Theory: relative deviation of Z = Σⱼ exp sⱼ over C random codes, here at T = {temperature:.2f}. From"
        f" C = (exp(1/T) − 1)/δ² = {format_number(enough, 'count')} on it is at most δ = {ACCURACY:.0%}, and the finite"
        " dictionary is expected to do what the complete one does (upright line). The covariance asks"
        " for more, C ≥ F(F − 1)/2, whatever the temperature."
    )
    options: dict[str, Any] = {
        "y_scale": "log",
        "levels": [Level(ACCURACY, f"δ = {ACCURACY:.0%}")],
        "events": _enough_codes(points),
        "x_range": (points[0].x, points[-1].x),
    }
    title = "Distance from the complete dictionary"
    return [_figure(points, title, series, "relative deviation of Z", caption, **options)]
