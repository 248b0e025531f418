"""Which epoch of a run was the best, by what was probed while it trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:  # the evaluation of tensors needs this module, and no YAML
    from falcon_ssl.records.run import Curve


class Measure(NamedTuple):
    """A number by which one epoch is the best of a run.

    Args:
        key: Its name in a monitor's line of ``metrics.jsonl``.
        best_epoch: There the name of its best epoch so far.
        title: Its name in sentences.
        form: How to write it.
    """

    key: str
    best_epoch: str
    title: str
    form: str


# By the name that its best checkpoint is kept under.
MEASURES = {
    "best": Measure("effective_rank_z", "rankme_best_epoch", "RankMe", "{:.1f}"),
    "best_knn": Measure("top1_knn", "knn_best_epoch", "kNN", "{:.3f}"),
}


def best_sentence(monitors: Mapping[str, Curve]) -> str:
    """Which epochs were the best, the first of equal ones; empty where none was probed.

    Args:
        monitors: What was probed, as `read_run` has it.
    """
    parts = []
    for measure in MEASURES.values():
        if (curve := monitors.get(measure.key)) is not None:
            at = int(curve.y.argmax())
            value = measure.form.format(curve.y[at])
            parts.append((len(curve.y), f"epoch {curve.x[at]:g} by {measure.title} ({value})"))
    if not parts:
        return ""
    words = ", ".join(words for _, words in parts)
    return f"best of {parts[0][0]} epochs probed: {words}"
