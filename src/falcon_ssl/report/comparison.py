"""Several runs side by side: one table with the best in bold, curves and spectra over one another."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from falcon_ssl.core.errors import InputError
from falcon_ssl.records.metrics import Kind, Metric, describe
from falcon_ssl.records.run import Run, read_run
from falcon_ssl.report.compared import (
    chance_of_lead,
    family_spread,
    members_table,
    options_table,
    verdict_cell,
    warnings_of,
)
from falcon_ssl.report.curves import overlay_figures
from falcon_ssl.report.document import (
    Block,
    Cell,
    Figure,
    Note,
    Page,
    Rows,
    Section,
    Table,
    write_page,
)
from falcon_ssl.report.families import Family, Spread, families, spread
from falcon_ssl.report.formatting import DASH, format_number
from falcon_ssl.report.plots import effective_rank, gallery_figures, spectrum_chart, split_name
from falcon_ssl.report.tables import grouped, metric_keys, references

RANKED_BY = ("top1_linear", "top1_knn", "ami_kmeans_z", "effective_rank_z")


def build_comparison(run_dirs: Sequence[Path], out: Path) -> Path:
    """Write one self-contained page that compares runs.

    Runs that differ only by seeds are one column, mean ± sample standard deviation.

    Args:
        run_dirs: At least two run folders.
        out: File to write, such as ``comparison.html``; an older one is replaced.

    Returns:
        ``out``.

    Raises:
        InputError: When there are fewer than two folders, or a record is missing or broken.
    """
    runs = read_runs(run_dirs)
    return write_page(comparison_page(families(runs)), Path(out))


def read_runs(run_dirs: Sequence[Path]) -> list[Run]:
    """Read at least two run folders; raises InputError for fewer, or for one given twice."""
    resolved = {Path(path).resolve() for path in run_dirs}
    if len(run_dirs) < 2 or len(resolved) < len(run_dirs):
        received = f"{len(run_dirs)} run folders, {len(resolved)} of them different"
        expected = "at least 2 different ones"
        raise InputError("nothing to compare", received=received, expected=expected)
    return [read_run(Path(path)) for path in run_dirs]


def comparison_page(compared: Sequence[Family]) -> Page:
    """The page that compares families of runs."""
    legend = legend_of(compared)
    return Page(
        title="Comparison",
        eyebrow=f"{len(legend)} runs, {len(compared)} configurations",
        status=None,
        verdict=leader(compared),
        sections=[
            Section(
                "numbers",
                "Numbers",
                "The best of each row is bold where one direction is better. Runs that differ only by"
                " seeds share a column: mean ± sample standard deviation.",
                number_blocks(compared),
            ),
            Section(
                "spectra",
                "Spectra",
                "How many directions each network really uses.",
                spectrum_overlays(legend),
            ),
            pictures(compared, "The first run of each configuration."),
            Section(
                "training",
                "Training",
                "One line per run; seeds of one configuration share a color.",
                overlay_figures(legend),
            ),
        ],
    )


def legend_of(compared: Sequence[Family]) -> list[tuple[str, int, Run]]:
    """Name, color and run of every line in an overlay."""
    return [(family.label, k, run) for k, family in enumerate(compared) for run in family.runs]


def pictures(compared: Sequence[Family], intro: str) -> Section:
    """The heat maps of the first run of each family."""
    figures = gallery_figures([(family.label, family.runs[0]) for family in compared])
    return Section("pictures", "Pictures", intro, figures)


def leader(compared: Sequence[Family]) -> str:
    """One sentence: who is best by the first number that all families have, or which share that place."""
    if len({str(run.setting("data")) for family in compared for run in family.runs}) > 1:
        return "These runs are of different data, so none can be called the best."
    for key in RANKED_BY:
        spreads = [family_spread(family, key) for family in compared]
        known = [s for s in spreads if s is not None]
        if len(known) < len(compared):
            continue
        metric = describe(key)
        if len(compared) == 1:
            return f"One configuration, {known[0].count} seeds: {metric.label} {known[0].text(metric.kind)}."
        order = sorted(range(len(known)), key=lambda k: known[k].mean, reverse=True)
        written = [format_number(known[k].mean, metric.kind) for k in order]
        first, second = order[:2]
        if (equal := written.count(written[0])) > 1:
            names = [compared[k].label for k in order[:equal]]
            rest = (
                ""
                if equal == len(order)
                else f", before {compared[order[equal]].label} with {written[equal]}"
            )
            return f"A tie by {metric.label}: {', '.join(names[:-1])} and {names[-1]} with {written[0]}{rest}."
        best = "Best by" if metric.better else "Not measured by labels; largest"
        return (
            f"{best} {metric.label}: {compared[first].label} with {known[first].text(metric.kind)},"
            f" before {compared[second].label} with {known[second].text(metric.kind)}"
            f"{chance_of_lead(compared[first], compared[second], key)}."
        )
    return "No number was measured in all of these runs, so none can be called the best."


def number_blocks(compared: Sequence[Family]) -> list[Block | None]:
    """The table of all numbers, and what each column stands for."""
    runs = [run for family in compared for run in family.runs]
    keys, others = metric_keys(runs), references(runs)
    columns = [
        f"{f.label} (n\u00a0=\u00a0{len(f.runs)})" if len(f.runs) > 1 else f.label for f in compared
    ]
    verdicts = [verdict_cell(f) for f in compared]
    diagnosed = [Cell("diagnosis"), *verdicts, *(Cell("") for _ in others), Cell("")]
    numbers = Table(
        head=["", *columns, *others.values(), "chance · ideal"],
        groups=[
            Rows("", [diagnosed]),
            *(
                Rows(group, [_row(compared, others, key, metric) for key, metric in found])
                for group, found in grouped(keys)
            ),
        ],
        numeric=len(compared) + len(others),
        note="Before training: mean over the same runs. All on the test split.",
    )
    notes: list[Block] = [Note(text, "warning") for text in warnings_of(compared)]
    return [*notes, *([numbers] if keys else []), members_table(compared), options_table(compared)]


def _row(compared: Sequence[Family], others: Iterable[str], key: str, metric: Metric) -> list[Cell]:
    spreads = [family_spread(family, key) for family in compared]
    best = best_mean([s.mean for s in spreads if s], metric)
    beside = [spread([r.metric(o, key) for f in compared for r in f.runs]) for o in others]
    return [
        Cell(metric.label),
        *(spread_cell(s, metric.kind, best) for s in spreads),
        *(Cell(format_number(s.mean if s else None, metric.kind)) for s in beside),
        Cell(metric.reference),
    ]


def spread_cell(s: Spread | None, kind: Kind, best: str | None) -> Cell:
    """Mean and spread, in bold when its mean is written as the best one; a dash when there is none."""
    return Cell(s.text(kind), best=format_number(s.mean, kind) == best) if s else Cell(DASH)


def best_mean(means: Sequence[float], metric: Metric) -> str | None:
    """The best of several means as it is written; None when all are written alike."""
    finite = [mean for mean in means if math.isfinite(mean)]
    written = {format_number(mean, metric.kind) for mean in means}
    if metric.better is None or len(written) < 2 or not finite:
        return None
    return format_number(max(finite) if metric.better == "higher" else min(finite), metric.kind)


def spectrum_overlays(legend: Sequence[tuple[str, int, Run]]) -> list[Block]:
    """Spectra of z and u, one line per run."""
    found: list[Block] = []
    for space, title in (("z", "representations z"), ("u", "embeddings u")):
        key = f"spectrum_{space}"
        drawn = [(label, run.arrays[key], k) for label, k, run in legend if key in run.arrays]
        if not drawn:
            continue
        ranks = [effective_rank(s) for _, s, _ in drawn]
        caption = (
            f"Singular values of the centered {title} over the {split_name(legend[0][2])}, divided by"
            " their sum; those below 10⁻⁵ of the largest are left out. Effective ranks from"
            f" {min(ranks):.1f} to {max(ranks):.1f}."
        )
        chart = spectrum_chart(drawn, description=f"spectra of the {title}")
        found.append(Figure(f"Spectra of the {title}", chart, caption))
    return found
