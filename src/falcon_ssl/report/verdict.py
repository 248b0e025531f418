"""One sentence on a run, and its color."""

from __future__ import annotations

from dataclasses import dataclass

from falcon_ssl.records.run import Run
from falcon_ssl.report.diagnosis import as_status
from falcon_ssl.report.document import Status
from falcon_ssl.report.formatting import format_number

# An effective rank below this means that one direction carries nearly everything.
COLLAPSED_RANK = 1.5


@dataclass(frozen=True)
class Verdict:
    """How a run went: a color and a sentence."""

    status: Status
    sentence: str


def assess(run: Run) -> Verdict:
    """How a run went.

    The diagnosis decides when there is one. Without it: collapsed when the effective rank of z or u
    is below 1.5 or a single code is used; a warning when a classifier does no better than on the
    random encoder, or when training gave alarms; healthy when at least one of these measures was
    recorded and none complains; else unknown.
    """
    if not run.evaluation:
        return Verdict("unknown", f"This run has not been evaluated yet. {_progress(run)}")
    diagnosed = as_status(run.diagnosis.get("verdict"))
    if diagnosed in ("collapsed", "warning"):
        said = run.diagnosis.get("sentence") or f"The diagnosis says: {diagnosed}."
        return Verdict(diagnosed, " ".join(filter(None, [str(said), _found(run)])))
    collapse = _collapse(run) if diagnosed == "unknown" else ""
    if collapse:
        return Verdict("collapsed", f"Collapsed: {collapse}.")
    found = _found(run)
    warning = _warning(run)
    if warning:
        return Verdict("warning", f"Check this run: {warning}.{' ' + found if found else ''}")
    if not found:
        return Verdict("unknown", "The evaluation holds no number that shows how the run went.")
    return Verdict("healthy", f"Learned without collapse. {found}")


def _progress(run: Run) -> str:
    if "total" not in run.curves:
        return "No training step was logged."
    total = run.curves["total"]
    return (
        f"Training was logged up to epoch {format_number(float(total.x[-1]))},"
        f" where the loss was {format_number(float(total.y[-1]))} nats."
    )


def _collapse(run: Run) -> str:
    """What has collapsed, or ""."""
    for space, name in (("u", "embedding"), ("z", "representation")):
        rank = run.metric(f"effective_rank_{space}")
        if rank is not None and not rank >= COLLAPSED_RANK:
            return f"the {name} uses {format_number(rank)} effective directions"
    if (used := run.metric("codes_used")) is not None and used <= 1:
        return "every image gets the same code"
    return ""


def _warning(run: Run) -> str:
    """What deserves a look, or ""."""
    reasons = []
    for key in ("top1_linear", "top1_knn"):
        mine, random = run.metric(key), run.metric("random_encoder", key)
        if mine is not None and random is not None and not mine > random:
            reasons.append(
                f"its top-1 of {format_number(mine, 'percent')} is no better than the"
                f" {format_number(random, 'percent')} of an untrained encoder"
            )
            break
    if run.alarms:
        gave = "one alarm" if len(run.alarms) == 1 else f"{len(run.alarms)} alarms"
        reasons.append(f"training gave {gave}")
    return "; ".join(reasons)


def _found(run: Run) -> str:
    """The measured facts as a sentence, or ""."""
    spread = []
    rank, width = run.metric("effective_rank_u"), run.embed_dim
    if rank is not None:
        of = f" of {format_number(width, 'count')}" if width else ""
        spread.append(f"{format_number(rank, 'count')}{of} embedding directions")
    used = run.metric("codes_used")
    if used is not None:
        spread.append(f"{format_number(used, 'count')} codes")
    tail = f"the test images spread over {' and '.join(spread)}" if spread else ""
    for key, reader in (
        ("top1_linear", "a linear classifier"),
        ("top1_knn", "a nearest-neighbour search"),
    ):
        mine = run.metric(key)
        if mine is None:
            continue
        beside = [
            f"{name} {format_number(value, 'percent')}"
            for name, value in (
                ("untrained encoder", run.metric("random_encoder", key)),
                ("chance", run.metric("chance", "top1")),
            )
            if value is not None
        ]
        return (
            f"From the frozen representations, {reader} recognizes {format_number(mine, 'percent')}"
            f" of the test images{' (' + ', '.join(beside) + ')' if beside else ''}"
            f"{'; ' + tail if tail else ''}."
        )
    return (
        f"{tail[:1].upper()}{tail[1:]}; there are no labels to measure accuracy by." if tail else ""
    )
