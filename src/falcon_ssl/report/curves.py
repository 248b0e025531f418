"""The training curves of one run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from falcon_ssl.report.axes import MOST_POINTS
from falcon_ssl.report.document import Figure
from falcon_ssl.report.records import Curve, Run
from falcon_ssl.report.svg import Level, Series, line_chart
from falcon_ssl.report.theory import curve_levels


@dataclass(frozen=True)
class Panel:
    """One chart of logged quantities.

    Attributes:
        title: Heading.
        curves: Logged name -> name in the legend.
        unit: What the y axis counts.
        caption: What the quantities are.
        from_zero: Whether zero belongs on the axis.
    """

    title: str
    curves: Mapping[str, str]
    unit: str
    caption: str
    from_zero: bool = False


LOSS_PANELS = (
    Panel(
        "Total loss",
        {"total": "total"},
        "nats",
        "What the optimizer minimises, per batch: beta · invariance + prior matching for FALCON.",
    ),
    Panel(
        "Invariance and what it is made of",
        {"invariance": "invariance", "entropy": "entropy", "consistency": "consistency"},
        "nats",
        "Invariance = entropy + consistency: the mean entropy of one sample's assignment, plus the"
        " mean KL divergence between the assignments of its two views. Not yet weighted by beta.",
        from_zero=True,
    ),
    Panel(
        "Prior matching",
        {"prior_matching": "prior matching"},
        "nats",
        "Divergence between the mean assignment of the batch and the prior: the lower, the more"
        " evenly the codes are used.",
        from_zero=True,
    ),
)
HEALTH_PANELS = (
    Panel(
        "Mutual information between sample and code",
        {"mutual_information_bits": "mutual information"},
        "bits",
        "(Entropy of the mean assignment − mean entropy of one assignment) / log 2: how many bits"
        " of code the batch carries, at most log₂ min(N, C) for a batch of N.",
        from_zero=True,
    ),
    Panel(
        "Effective rank",
        {"effective_rank_u": "of the embedding", "effective_rank_z": "of the representation"},
        "directions",
        "exp(entropy of the normalised singular values) on the training batch: how many"
        " directions are in use.",
        from_zero=True,
    ),
    Panel(
        "Codes used",
        {"codes_used": "codes used"},
        "codes",
        "Codes that are the most probable one (argmax) of at least one sample of the training"
        " batch; never more than its number of samples.",
        from_zero=True,
    ),
)
ENGINE_PANELS = (
    Panel("Learning rate", {"lr": "learning rate"}, "per step", "As scheduled.", from_zero=True),
    Panel(
        "Gradient norm",
        {"grad_norm": "gradient norm"},
        "Euclidean norm",
        "Over all parameters, before clipping.",
        from_zero=True,
    ),
    Panel(
        "Speed",
        {"images_per_s": "images per second"},
        "images / s",
        "Images (not views) that a second of training consumed.",
        from_zero=True,
    ),
)
PANELS = LOSS_PANELS + HEALTH_PANELS + ENGINE_PANELS
NOT_DRAWN = frozenset({"seconds", "beta"})


def training_figures(run: Run) -> list[Figure]:
    """Loss terms, online evaluations, health and engine, each where it was logged.

    Quantities that no panel knows (terms of other methods) get a chart each, after the loss.
    """
    known = {name for panel in PANELS for name in panel.curves} | NOT_DRAWN
    others = [
        Panel(name.replace("_", " "), {name: name}, "", f"Logged by the method as {name}.")
        for name in run.curves
        if name not in known
    ]
    levels = curve_levels(run)
    return [
        *_figures(run, [*LOSS_PANELS, *others], run.curves, levels),
        *_figures(run, _monitor_panels(run), run.monitors, {}),
        *_figures(run, [*HEALTH_PANELS, *ENGINE_PANELS], run.curves, levels),
    ]


def _monitor_panels(run: Run) -> list[Panel]:
    """All accuracies in one chart, any other online evaluation in one of its own."""
    accuracies = {name: name for name in run.monitors if name.startswith("top1")}
    panels = [
        Panel(
            "Online evaluation",
            accuracies,
            "share of held-out images",
            "Accuracy on held-out images while training went on; labels are read here only.",
        )
    ]
    return panels + [
        Panel(name.replace("_", " "), {name: name}, "", f"Online evaluation {name}.")
        for name in run.monitors
        if name not in accuracies
    ]


def _figures(
    run: Run,
    panels: Sequence[Panel],
    curves: Mapping[str, Curve],
    levels: Mapping[str, Level],
) -> list[Figure]:
    found = []
    for panel in panels:
        names = [name for name in panel.curves if name in curves]
        if not names:
            continue
        series = [
            Series(
                panel.curves[name], curves[name].x, curves[name].y, k, dots=len(curves[name].x) < 40
            )
            for k, name in enumerate(names)
        ]
        longest = max(len(s.x) for s in series)
        binned = f" Each point averages about {longest / MOST_POINTS:.0f} logged steps."
        chart = line_chart(
            series,
            x_label="epoch",
            y_label=panel.unit,
            description=f"{panel.title} over training",
            levels=[levels[name] for name in names if name in levels],
            events=[(alarm.epoch, alarm.text) for alarm in run.alarms],
            from_zero=panel.from_zero,
        )
        caption = panel.caption + (binned if longest > MOST_POINTS else "")
        found.append(Figure(panel.title, chart, caption))
    return found
