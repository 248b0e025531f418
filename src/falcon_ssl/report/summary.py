"""The numbers of an evaluation that matter, for a terminal and for a notebook."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from falcon_ssl.core.notebook import html_table
from falcon_ssl.records.metrics import BASELINE_LABEL, describe, is_few_labels, start_label
from falcon_ssl.records.run import chance_of
from falcon_ssl.report.formatting import format_number

SUMMARY = (
    "top1_linear",
    "top1_knn",
    "numbers_read",
    "ami_kmeans_z",
    "ami_kmeans_u",
    "nmi_codes",
    "ami_codes",
    "codes_used",
    "effective_rank_z",
    "effective_rank_u",
)


class Evaluation(dict[str, Any]):
    """What ``evaluation.json`` holds; a notebook shows it as the terminal does."""

    @property
    def title(self) -> str:
        """Which images it was measured on."""
        about = self["about"]
        return f"{about['data']}, {about['split']} split ({about['num_test']} images)"

    @property
    def remarks(self) -> list[str]:
        """Sentences to read with the numbers."""
        remarks = [f"{self['about']['note']}."]
        if self["about"]["num_classes"] is None:
            remarks.append(
                "No labels were read: only measures that need none. Fewer directions than before training are no sign"
                " against it: a trained network groups images. Look at it: falcon-ssl embed, falcon-ssl search."
            )
        if self["certificate"]:
            remarks.append(self["certificate"]["sentence"])
        return remarks

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Names of the columns, and the rows: the run beside the encoder before training, and chance."""
        names = {
            "random_encoder": start_label(self["about"].get("initial_weights")),
            "baseline": BASELINE_LABEL,
        }
        others: dict[str, Mapping[str, Any]] = {
            names[key]: self[key] for key in names if key in self
        }
        few = [name for name in self if is_few_labels(name)]
        rows = []
        for name in (SUMMARY[0], *few, *SUMMARY[1:]):
            if name not in self:
                continue
            metric = describe(name)
            numbers = self[name], *(one.get(name) for one in others.values()), chance_of(self, name)
            cells = [format_number(number, metric.kind) for number in numbers]
            if (spread := self.get(f"{name}_std")) is not None:
                cells[0] += f" ± {100 * spread:.1f}"
            rows.append([metric.label, *cells])
        return ["", "this run", *others, "chance"], rows

    def _repr_html_(self) -> str:
        head, rows = self.table()
        return html_table(rows, head=head, sentence=self.title, note=" ".join(self.remarks))
