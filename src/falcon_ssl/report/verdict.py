"""One sentence on a run, and its color."""

from __future__ import annotations

from falcon_ssl.records.run import Run
from falcon_ssl.records.steps import few_steps_sentence
from falcon_ssl.report.diagnosis import as_status
from falcon_ssl.report.document import Note, Status
from falcon_ssl.report.formatting import format_number
from falcon_ssl.report.theory import loss_unit

ACCURACIES = ("top1_linear", "top1_knn")


def assess(run: Run) -> Note:
    """How a run went: a color and a sentence.

    The diagnosis decides; it is a warning too when a classifier does no better than on the random encoder, or when
    training gave alarms. Unknown before the evaluation.
    """
    if not run.evaluation:
        logged = "No training step was logged."
        if "total" in run.curves:
            total = run.curves["total"]
            epoch, loss = format_number(float(total.x[-1])), format_number(float(total.y[-1]))
            logged = (
                f"Training was logged up to epoch {epoch}, where the loss was {loss} {loss_unit(run)}".rstrip()
                + "."
            )
        gave = f" Last alarm: {run.alarms[-1].text}" if run.alarms else ""
        status: Status = "warning" if run.alarms else "unknown"
        return Note(f"This run has not been evaluated yet. {logged}{gave}", status)
    diagnosed, found, warning = as_status(run.diagnosis.get("verdict")), _found(run), _warning(run)
    if diagnosed in ("collapsed", "warning"):
        sentence = run.diagnosis.get("sentence") or f"The diagnosis is: {diagnosed}."
    elif warning:
        diagnosed, sentence = "warning", f"Check this run: {warning}."
    elif diagnosed == "healthy":
        sentence = (
            "Learned without collapse."
            if _is_classified(run)
            else "No sign of collapse; whether it learned is not measured."
        )
    else:
        sentence = "This run has not been diagnosed."
    return Note(f"{sentence} {found}".strip(), diagnosed)


def _is_classified(run: Run) -> bool:
    """Whether labels say what was learned."""
    return any(run.metric(key) is not None for key in ACCURACIES)


def _warning(run: Run) -> str:
    """What to check, or ""."""
    reasons = [run.unfinished] if run.unfinished else []
    if not _is_classified(run) and (few := few_steps_sentence(run)):
        reasons.append(few)
    for key in ACCURACIES:
        mine, random = run.metric(key), run.metric("random_encoder", key)
        if mine is not None and random is not None and not mine > random:
            reasons.append(
                f"its top-1 of {format_number(mine, 'percent')} is no better than the"
                f" {format_number(random, 'percent')} of the {run.started_from}"
            )
            break
    if run.alarms:
        gave = "one alarm" if len(run.alarms) == 1 else f"{len(run.alarms)} alarms"
        reasons.append(f"training gave {gave}")
    return "; ".join(reasons)


def _found(run: Run) -> str:
    """The measured facts as a sentence, or ""."""
    spread = []
    rank, width = run.metric("effective_rank_u"), run.most_directions(run.embed_dim)
    if rank is not None:
        of = f" of {format_number(width, 'count')}" if width else ""
        spread.append(f"{format_number(rank, 'count')}{of} embedding directions")
    used = run.metric("codes_used")
    if used is not None:
        spread.append(f"{format_number(used, 'count')} codes")
    tail = f"the test images spread over {' and '.join(spread)}" if spread else ""
    for key, reader in (("top1_linear", "a linear classifier"), ("top1_knn", "a kNN classifier")):
        mine = run.metric(key)
        if mine is None:
            continue
        others = {
            run.started_from: run.metric("random_encoder", key),
            "chance": run.metric("chance", "top1"),
        }
        beside = [f"{n} {format_number(v, 'percent')}" for n, v in others.items() if v is not None]
        return (
            f"From the frozen representations, {reader} recognizes {format_number(mine, 'percent')}"
            f" of the test images{' (' + ', '.join(beside) + ')' if beside else ''}"
            f"{'; ' + tail if tail else ''}."
        )
    return (
        f"{tail[:1].upper()}{tail[1:]}; there are no labels to measure accuracy by: the neighbors show what it"
        " takes to be alike."
        if tail
        else ""
    )
