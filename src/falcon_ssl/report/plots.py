"""The figures of one run: pure functions of its records.

Every caption says what the quantity is: centered or not, normalized or not, which rows, which split.
A figure whose record is absent is None.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np
from markupsafe import Markup

from falcon_ssl.records.run import Array, Run
from falcon_ssl.report.document import Figure
from falcon_ssl.report.formatting import format_number
from falcon_ssl.report.images import COLOR_SCALE, Matrices, heat_map, pick_square, tile_style, tiles
from falcon_ssl.report.svg import Chart, Level, Series, line_chart
from falcon_ssl.report.theory import block_contrast

MOST_KEYS = 24


def split_name(run: Run) -> str:
    """Name of the evaluated split."""
    return f"{run.about('split') or 'evaluated'} split"


def effective_rank(spectrum: Array) -> float:
    """exp of the entropy of normalized singular values: how many directions are really used.

    Example:
        >>> import numpy as np
        >>> round(effective_rank(np.array([0.25, 0.25, 0.25, 0.25, 0.0])), 6)
        4.0
    """
    p = spectrum[spectrum > 0] / spectrum.sum()
    return float(np.exp(-(p * np.log(p)).sum()))


def off_diagonal_rms(covariance: Array) -> float:
    """Root mean square of the entries off the diagonal; 0 for decorrelated features."""
    off = covariance[~np.eye(len(covariance), dtype=bool)].astype(np.float64)
    return float(np.sqrt((off**2).mean())) if off.size else 0.0


def covariance_figure(run: Run) -> Figure | None:
    """H^T H of the run, beside that of the encoder before training when it was recorded."""
    names = {"covariance_FF": "this run", "covariance_random_FF": run.started_from}
    drawn = {names[key]: run.arrays[key] for key in names if key in run.arrays}
    if not drawn:
        return None
    rms = "{}: off-diagonal RMS {:.3f}"
    pictures = [(rms.format(name, off_diagonal_rms(one)), one) for name, one in drawn.items()]
    width = pictures[0][1].shape[0]
    shown = pick_square(pictures[0][1]).shape[0]
    part = "" if shown == width else f" Drawn: {shown} of the {width} dimensions, evenly spaced."
    return Figure(
        "Covariance of the embedding: ideally the identity",
        Matrices("pair", pictures),
        f"HᵀH with H = √(F/N)·u over the {split_name(run)}, F = {width}. Rows of u have unit length;"
        " they are not centered, so the diagonal averages exactly 1. Values beyond ±1 are drawn as"
        f" ±1.{part} A collapsed embedding shows large plain patches, decorrelated features a single"
        " blue diagonal.",
        span="wide",
    )


def gallery_figures(labeled: Sequence[tuple[str, Run]]) -> list[Figure]:
    """The covariances, then the adjacencies, of several runs in small."""
    found = []
    covariance = "H = √(F/N)·u over the test split, not centered; values beyond ±1 are drawn as ±1."
    adjacency = (
        "Cosines between test rows, not centered: a subsample of whole codes, sorted by code; of a run without"
        " codes, sorted by class."
    )
    for key, title, caption in (
        ("covariance_FF", "Covariance HᵀH", covariance),
        ("adjacency_MM", "Adjacency", adjacency),
    ):
        drawn = [(label, run.arrays[key]) for label, run in labeled if key in run.arrays]
        if drawn:
            found.append(Figure(title, Matrices("gallery", drawn), caption, span="wide"))
    return found


def class_color(label: int, num_classes: int) -> str:
    """A color per class, in middle tones that show on white and on near-black."""
    hue = 255.0 + 360.0 * label / max(num_classes, 1)
    lightness = (0.60, 0.72)[label % 2]
    return f"oklch({lightness} 0.145 {hue % 360:.0f})"


def codes_of_adjacency(run: Run) -> Array | None:
    """Code of each row of the adjacency [M]; None where no codes were assigned."""
    codes = run.arrays.get("adjacency_code_M")
    return None if codes is None or codes.min() < 0 else codes


def adjacency_figure(run: Run) -> Figure | None:
    """H H^T up to scale: cosines between test rows, sorted by code, or by class where there are no codes."""
    if "adjacency_MM" not in run.arrays:
        return None
    adjacency, codes = run.arrays["adjacency_MM"], codes_of_adjacency(run)
    size = adjacency.shape[0]
    labels = run.arrays.get("adjacency_label_M")
    labeled = labels is not None and labels.min() >= 0
    stripes, sorting = [], "similarity to their mean"
    title = "Adjacency: one block per code"
    if codes is not None:
        _, order = np.unique(codes, return_inverse=True)
        stripes.append([("var(--soft)", "var(--line)")[k % 2] for k in order])
        words = (
            " The rows are a subsample of whole codes, sorted by code, then by similarity to the code's mean."
            f" The first stripe changes shade where the code changes ({order.max() + 1} codes)."
        )
    else:
        title = f"Adjacency, sorted by {'class' if labeled else 'similarity'}"
        if labeled:
            sorting = "class, then by similarity to the class's mean"
        words = f" The rows are a subsample, sorted by {sorting}."
        if run.setting("dictionary") == "complete":
            words += (
                " Of all 2^F codes nearly every image has one of its own, so none makes a block."
            )
    if labels is not None and labeled:
        num_classes = int(labels.max()) + 1
        stripes.append([class_color(int(k), num_classes) for k in labels])
        words += " The colored stripe shows the class, which training never saw."
    picture = Markup('<img alt="cosine similarities of test embeddings" src="{}">').format(
        heat_map(pick_square(adjacency))
    )
    if stripes:
        picture = Markup("<span></span><span></span>{}{}").format(_stripes(stripes), picture)
    return Figure(
        title,
        Markup('<div class="matrix{}">{}</div>{}').format(
            " coded" if stripes else "", picture, COLOR_SCALE
        ),
        f"Cosines u uᵀ between {size} rows of the {split_name(run)}, not centered.{words} Blue blocks"
        " on an empty ground are clusters; one blue sheet is a collapse.",
        span="tall",
    )


def contrast_figure(run: Run) -> Figure | None:
    """Cosines of pairs that share a code beside those of pairs that do not."""
    codes = codes_of_adjacency(run)
    if "adjacency_MM" not in run.arrays or codes is None:
        return None
    within, across = block_contrast(run.arrays["adjacency_MM"], codes)
    if not within.size or not across.size:
        return None
    edges = np.linspace(-1, 1, 51)
    series = []
    for name, cosines, color in (("same code", within, 0), ("different codes", across, 1)):
        counts, _ = np.histogram(np.clip(cosines, -1, 1), edges)
        text = f"{name}: mean {format_number(float(cosines.mean()), 'score')}"
        series.append(Series(text, (edges[1:] + edges[:-1]) / 2, counts / cosines.size, color))
    return Figure(
        "Blocks: inside and between codes",
        line_chart(
            series,
            x_label="cosine of two embeddings",
            y_label="fraction of pairs",
            description="histogram of cosines within and across codes",
            from_zero=True,
        ),
        "The entries of the adjacency off its diagonal, as histograms of 50 bins. At the optimum of"
        " the theory pairs of the same code sit at 1 and all others near 0 (Corollary 3).",
    )


def _stripes(stripes: Sequence[Sequence[str]]) -> Markup:
    """Thin columns of color beside a picture, one rectangle per run of equal colors."""
    body = Markup("")
    for column, colors in enumerate(stripes):
        start = 0
        for color, run in groupby(colors):
            height = len(list(run))
            body += Markup('<path d="M{} {}h6v{h}h-6z" style="fill:{}"/>').format(
                7 * column, start, color, h=height
            )
            start += height
    return Markup(
        '<svg viewBox="0 0 13 {}" preserveAspectRatio="none" aria-hidden="true">{}</svg>'
    ).format(len(stripes[0]), body)


def spectrum_chart(
    spectra: Sequence[tuple[str, Array, int | None]],
    *,
    description: str,
    levels: Sequence[Level] = (),
) -> Chart:
    """Singular values over their rank, each with its name and color.

    Zeros up to rounding would stretch the axis over decades in which there is nothing to see.
    """
    return line_chart(
        [
            Series(name, np.arange(1, len(s) + 1), np.where(s > s.max() * 1e-5, s, np.nan), color)
            for name, s, color in spectra
        ],
        x_label="singular value, largest first",
        y_label="fraction of the sum",
        description=description,
        y_scale="log",
        levels=levels,
    )


def spectrum_figure(run: Run, space: str) -> Figure | None:
    """Singular values of "z" or "u", trained against random."""
    if f"spectrum_{space}" not in run.arrays:
        return None
    spectra: list[tuple[str, Array, int | None]] = [
        ("this run", run.arrays[f"spectrum_{space}"], 0)
    ]
    if f"spectrum_random_{space}" in run.arrays:
        spectra.append((run.started_from, run.arrays[f"spectrum_random_{space}"], None))
    width = len(spectra[0][1])
    title = {"z": "Spectrum of the representation z", "u": "Spectrum of the embedding u"}[space]
    return Figure(
        title,
        spectrum_chart(
            [(f"{name}: rank {effective_rank(s):.1f}", s, color) for name, s, color in spectra],
            description=f"{title}, trained and random",
            levels=[Level(1 / width, f"flat: 1/{width}")],
        ),
        f"Singular values of the centered matrix over the {split_name(run)}, divided by their sum;"
        " those below 10⁻⁵ of the largest are left out. Effective rank = exp(entropy of the fractions):"
        " the number of directions in use. A curve that drops early is dimensional collapse.",
    )


def code_usage_figure(run: Run) -> Figure | None:
    """Rows per code, most used first; light even for a million codes."""
    if "code_counts_C" not in run.arrays:
        return None
    counts = np.sort(run.arrays["code_counts_C"])[::-1]
    used = counts[counts > 0]
    if used.size == 0:
        return None
    rank = np.unique(np.geomspace(1, used.size, 300).round().astype(int))
    total, num_codes = int(used.sum()), counts.size
    even = total / min(num_codes, total)
    steep = used[0] > 20 * even
    return Figure(
        "Code usage",
        line_chart(
            [Series("rows per code", rank, used[rank - 1].astype(float), 0)],
            x_label="codes in use, most used first",
            y_label="rows",
            description="rows per code, sorted",
            x_scale="log" if used.size > 300 else "linear",
            y_scale="log" if steep else "linear",
            levels=[Level(even, "even use")],
            from_zero=not steep,
        ),
        f"Rows of the {split_name(run)} whose most probable code it is (argmax), sorted;"
        f" {format_number(used.size, 'count')} of {format_number(num_codes, 'count')} codes are used by"
        f" {format_number(total, 'count')} rows, the most used one by"
        f" {format_number(used[0] / total, 'percent')} of them. Unused codes are not drawn."
        " One code with nearly all rows is cluster collapse.",
    )


def map_figure(run: Run) -> Figure | None:
    """2-D map of representations, colored by class, with a thumbnail under the pointer."""
    if "map_xy_M2" not in run.arrays:
        return None
    xy = run.arrays["map_xy_M2"].astype(np.float64)
    count = len(xy)
    low, span = xy.min(0), np.maximum(np.ptp(xy, axis=0), 1e-12)
    percent = (xy - low) / span * 100
    names, colors, keys = _classes(run, count)
    labels = run.arrays.get("map_label_M", np.full(count, -1)).tolist()
    thumbnails, style = [Markup("")] * count, Markup("")
    if "map_thumbnails" in run.arrays:
        style = tile_style("on-map", run.arrays["map_thumbnails"])
        thumbnails = tiles("on-map", run.arrays["map_thumbnails"], names)
    point = Markup(
        '<i style="left:{:.2f}%;bottom:{:.2f}%;--c:{}" data-label="{}" data-name="{}">{}</i>'
    )
    points = Markup("").join(
        point.format(x, y, colors[m], labels[m], names[m], thumbnails[m])
        for m, (x, y) in enumerate(percent.tolist())
    )
    switch = Markup(
        '<label class="switch"><input type="checkbox"{}>show the images</label>'
    ).format("" if keys else " checked")  # without classes the images are all there is to see
    ratio = float(np.clip(span[0] / span[1], 1.25, 2.2))
    body = Markup(
        '{style}<div class="tools">{switch}{keys}</div>'
        '<div class="map" style="aspect-ratio:{ratio:.3f}"><div class="points">{points}</div></div>'
    ).format(style=style, switch=switch if style else "", keys=keys, ratio=ratio, points=points)
    method = f"{run.arrays['projection']} of z" if "projection" in run.arrays else "a map of z"
    colored = " colored by class, which training never saw" if keys else ""
    return Figure(
        "Map of the representations",
        body,
        f"{count} rows drawn from the {split_name(run)}, each a point{colored}."
        f" The plane shows {method}: only nearness means something, the axes have no unit."
        + (" Point at one to see its image." if style else " No thumbnails were recorded."),
        span="wide",
    )


def class_names(run: Run, labels: Array) -> list[str]:
    """The names of classes, as far as they are recorded."""
    given = run.about("class_names") or []
    return [str(given[k]) if k < len(given) else f"class {k}" for k in labels.tolist()]


def _classes(run: Run, count: int) -> tuple[list[str], list[str], Markup]:
    """Name and color of every point of the map, and the keys to single a class out."""
    labels = run.arrays.get("map_label_M")
    if labels is None or labels.min() < 0:
        return ["no label"] * count, ["var(--accent)"] * count, Markup("")
    num_classes, present = int(labels.max()) + 1, np.unique(labels).tolist()
    texts = dict(zip(present, class_names(run, np.unique(labels)), strict=True))
    palette = {k: class_color(k, num_classes) for k in present}
    key = Markup(
        '<li><button type="button" aria-pressed="false" data-label="{}" style="--c:{}">{}</button></li>'
    )
    keys = Markup("").join(key.format(k, palette[k], texts[k]) for k in present)
    if num_classes > MOST_KEYS:
        keys = Markup("<li>{} classes; point at a dot to see its own</li>").format(num_classes)
    keys = Markup('<ul class="keys">{}</ul>').format(keys)
    return [texts[k] for k in labels.tolist()], [palette[k] for k in labels.tolist()], keys
