"""The training curves of one run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from falcon_ssl.core.errors import InputError, did_you_mean
from falcon_ssl.records.metrics import describe
from falcon_ssl.records.run import Curve, Run
from falcon_ssl.report.axes import MOST_POINTS
from falcon_ssl.report.document import Figure
from falcon_ssl.report.svg import Level, Series, line_chart
from falcon_ssl.report.theory import curve_levels, loss_unit


@dataclass(frozen=True)
class Panel:
    """One chart of recorded quantities.

    Attributes:
        title: Heading.
        keys: Names of the quantities.
        unit: What the y axis counts.
        caption: What the quantities are.
        from_zero: Whether zero belongs on the axis.
        random: Whether to draw what the random encoder reaches, where it was measured.
    """

    title: str
    keys: Sequence[str]
    unit: str
    caption: str
    from_zero: bool = True
    random: bool = False

    def name(self, key: str) -> str:
        """What a curve is called: the title where it is the only one."""
        return self.title if len(self.keys) == 1 else describe(key).label


LOSS_PANELS = (
    Panel(
        "Total loss",
        ("total",),
        "nats",
        "What the optimizer minimizes, per batch: beta · invariance + prior matching for FALCON.",
        from_zero=False,
    ),
    Panel(
        "Invariance and what it is made of",
        ("invariance", "entropy", "consistency"),
        "nats",
        "Invariance = entropy + consistency: the mean entropy of one sample's assignment, plus the"
        " mean KL divergence between the assignments of its two views. Not yet weighted by beta.",
    ),
    Panel(
        "Prior matching",
        ("prior_matching",),
        "nats",
        "Divergence between the mean assignment of the batch and the prior: the lower, the more"
        " evenly the codes are used.",
    ),
)
HEALTH_PANELS = (
    Panel(
        "Mutual information between sample and code",
        ("mutual_information_bits",),
        "bits",
        "(Entropy of the mean assignment − mean entropy of one assignment) / log 2: how many bits"
        " of code the batch carries, at most log₂ min(N, C) for a batch of N.",
    ),
    Panel(
        "Effective rank",
        ("effective_rank_u", "effective_rank_z"),
        "directions",
        "exp(entropy of the normalized singular values) on the training batch: how many"
        " directions are in use.",
    ),
    Panel(
        "Codes used",
        ("codes_used",),
        "codes",
        "Codes that are the most probable one (argmax) of at least one sample of the training"
        " batch; never more than its number of samples.",
    ),
)
ENGINE_PANELS = (
    Panel("Learning rate", ("lr",), "per step", "As scheduled."),
    Panel(
        "Gradient norm", ("grad_norm",), "Euclidean norm", "Over all parameters, before clipping."
    ),
    Panel("Speed", ("images_per_s",), "images / s", "Images (not views) consumed in a second."),
)
PANELS = LOSS_PANELS + HEALTH_PANELS + ENGINE_PANELS
NOT_DRAWN = frozenset({"seconds", "beta"})
FEW_POINTS = 40


def training_figures(run: Run) -> list[Figure]:
    """Loss terms, online evaluations, health and engine of one run, each where it was logged.

    Quantities of no panel (terms of other methods) get a chart each, after the loss.
    """
    logged = {**run.curves, **run.monitors}
    levels = curve_levels(run)
    found = []
    for panel in _panels([run]):
        names = [name for name in panel.keys if name in logged]
        series = [_series(panel.name(n), logged[n], color) for color, n in enumerate(names)]
        marks = [levels[name] for name in names if name in levels]
        found.append(_figure(panel.title, panel, series, marks, [run]))
    return found


def training_figure(run: Run, quantity: str) -> Figure:
    """The chart of one logged quantity.

    Raises:
        InputError: Nothing of this name was logged.
    """
    logged = {**run.curves, **run.monitors}
    if quantity not in logged:
        raise InputError(
            "no such quantity was logged",
            received=quantity,
            expected=f"one of {', '.join(logged) or 'none: the run has no steps yet'}",
            fix=did_you_mean(quantity, logged),
        )
    panel = next(p for p in _panels([run]) if quantity in p.keys)
    title = describe(quantity).label if len(panel.keys) > 1 else panel.title
    levels = curve_levels(run)
    marks = [levels[quantity]] if quantity in levels else []
    return _figure(title, panel, [_series(title, logged[quantity], 0)], marks, [run])


def overlay_figures(runs: Sequence[tuple[str, int, Run]]) -> list[Figure]:
    """One chart per logged quantity with the curves of several runs.

    Args:
        runs: Name for the legend, color, run; runs of one name and color differ by their seed.
    """
    found = []
    for panel in _panels([run for _, _, run in runs]):
        for name in panel.keys:
            logged = [(label, color, {**run.curves, **run.monitors}) for label, color, run in runs]
            series = [_series(label, c[name], color) for label, color, c in logged if name in c]
            if not series:
                continue
            title = panel.name(name)[:1].upper() + panel.name(name)[1:]
            found.append(_figure(title, panel, series, [], [run for _, _, run in runs]))
    return found


def _panels(runs: Sequence[Run]) -> list[Panel]:
    """The panels for which any of the runs has logged something, in the order of the page."""
    curves = dict.fromkeys(name for run in runs for name in run.curves)
    monitors = dict.fromkeys(
        name for run in runs for name in run.monitors if not name.endswith("_best_epoch")
    )
    known = {name for panel in PANELS for name in panel.keys} | NOT_DRAWN

    def plain(name: str, caption: str) -> Panel:
        return Panel(describe(name).label, (name,), "", caption, from_zero=False)

    others = [
        plain(name, f"Logged by the method as {name}.") for name in curves if name not in known
    ]
    accuracies = [name for name in monitors if name.startswith("top1")]
    online = [
        Panel(
            "Online evaluation",
            accuracies,
            "fraction of held-out images",
            "Accuracy on held-out images while training went on; labels are read here only.",
            from_zero=False,
        ),
        *(
            plain(name, "Probed while training went on, on held-out images where there are some.")
            for name in monitors
            if name not in accuracies
        ),
    ]
    panels = [*LOSS_PANELS, *others, *online, *HEALTH_PANELS, *ENGINE_PANELS]
    return [p for p in panels if {*p.keys} & (curves.keys() | monitors.keys())]


def _series(text: str, curve: Curve, color: int) -> Series:
    return Series(text, curve.x, curve.y, color, dots=len(curve.x) < FEW_POINTS)


def _not_in_nats(runs: Sequence[Run], keys: Sequence[str]) -> list[str]:
    """Methods that logged one of ``keys`` and whose loss is a squared distance or the like."""
    logged = [run for run in runs if not run.curves.keys().isdisjoint(keys)]
    return list(dict.fromkeys(str(run.setting("method")) for run in logged if not loss_unit(run)))


def _figure(
    title: str,
    panel: Panel,
    series: Sequence[Series],
    levels: Sequence[Level],
    runs: Sequence[Run],
) -> Figure:
    longest = max(len(s.x) for s in series)
    unit, caption = panel.unit, panel.caption
    if unit == "nats" and (others := _not_in_nats(runs, panel.keys)):
        unit = ""
        caption += f" That of {', '.join(others)} is another quantity, which is not in nats"
        caption += ": methods are not compared by it." if len(runs) > 1 else "."
    binned = f" Each point averages about {longest / MOST_POINTS:.0f} logged steps."
    last = max(float(c.x[-1]) for run in runs for c in run.curves.values())
    last = max(last, *(float(s.x[-1]) for s in series))
    chart = line_chart(
        series,
        x_label="epoch",
        y_label=unit,
        description=f"{title} over training",
        levels=levels,
        events=[(alarm.epoch, alarm.text) for run in runs for alarm in run.alarms],
        from_zero=panel.from_zero,
        x_range=(0.0, last),
    )
    return Figure(title, chart, caption + (binned if longest > MOST_POINTS else ""))
