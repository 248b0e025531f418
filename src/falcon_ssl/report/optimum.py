"""The theory section of a page: how far a run is from the optimum of the theorem."""

from __future__ import annotations

import math
from typing import Literal

from falcon_ssl.records.run import Run
from falcon_ssl.report.document import Block, Cell, Figure, Note, Rows, Section, Table
from falcon_ssl.report.formatting import format_number
from falcon_ssl.report.plots import codes_of_adjacency, off_diagonal_rms, split_name
from falcon_ssl.report.svg import Level, Series, line_chart
from falcon_ssl.report.theory import (
    ONE_CODE_EACH,
    block_contrast,
    gap_curves,
    least_of_a_batch,
    optimum_of,
)


def theory_section(run: Run) -> Section:
    """Gaps over training, the certificate, and what the corollaries promise beside what is there."""
    blocks: list[Block] = []
    certificate = run.evaluation.get("certificate", {})  # that of a run without codes is empty
    if sentence := certificate.get("sentence"):
        blocks.append(Note(sentence))
    promises = _promises(run)
    remark = (
        "Nothing here is centered. The optimum of HᵀH for a finite Rademacher dictionary is"
        " (1/C)·W Wᵀ, whose entries off the diagonal have standard deviation 1/√C."
    )
    used = run.metric("codes_used")
    if used:
        remark += (
            f" Evenly used, the {format_number(used, 'count')} codes in use on the"
            f" {split_name(run)} would give about {1 / math.sqrt(used):.3f}."
        )
    if figure := gap_figure(run, span="" if promises else "wide"):
        blocks.append(figure)
    if promises:
        blocks.append(
            Table(
                head=["", "this run", "optimum"],
                groups=[Rows("", [[Cell(text) for text in row] for row in promises])],
                numeric=2,
                title="What the corollaries promise",
                note=remark,
                wide=figure is None,
            )
        )
    return Section(
        "theory",
        "Theory",
        "The loss has a known least value, reached only when every sample takes exactly one code, both"
        " views agree and all codes are used evenly. This is the distance to it.",
        blocks,
    )


def gap_figure(run: Run, *, span: Literal["", "wide"] = "") -> Figure | None:
    """The gap to each condition of the theorem over training; None where they are not known."""
    gaps = gap_curves(run)
    if not gaps:
        return None
    series = [Series(name, c.x, c.y, k) for k, (name, c) in enumerate(gaps.items())]
    least = least_of_a_batch(run)
    return Figure(
        "Gap to each condition of the theorem",
        line_chart(
            series,
            x_label="epoch",
            y_label="nats",
            description="gap to each condition of the theorem over training",
            levels=[] if least is None else [Level(least, ONE_CODE_EACH.format(least))],
            from_zero=True,
            x_range=(0.0, max(float(s.x[-1]) for s in series)),
        ),
        "Loss − bound = β·(entropy − H_ε) + β·consistency + (D − D_min), per training"
        " batch; drawn without β. Zero in the first: each sample takes one code. In the"
        " second: both views take the same. In the third: all codes are used evenly, which"
        " a batch of N < C samples misses by log(C/N) at least. On quasi-orthogonal codes"
        " the first may be slightly negative.",
        span=span,
    )


def _promises(run: Run) -> list[list[str]]:
    """Rows of quantity, measured value and value at the optimum."""
    rows = []
    best = optimum_of(run)
    if "covariance_FF" in run.arrays:
        measured = off_diagonal_rms(run.arrays["covariance_FF"])
        ideal = f"{math.exp(-best.log_num_codes / 2):.3f}" if best else "0"
        rows.append(["off-diagonal RMS of HᵀH", f"{measured:.3f}", ideal])
    codes = codes_of_adjacency(run)
    if "adjacency_MM" in run.arrays and codes is not None:
        within, across = block_contrast(run.arrays["adjacency_MM"], codes)
        for name, cosines, optimum in (
            ("mean cosine, same code", within, "1"),
            ("mean cosine, different codes", across, "0"),
        ):
            if cosines.size:
                rows.append([name, format_number(float(cosines.mean()), "score"), optimum])
    aligned = run.metric("aligned_cosine")
    if aligned is not None:
        rows.append(["mean cosine to the nearest code", format_number(aligned, "score"), "1"])
    return rows
