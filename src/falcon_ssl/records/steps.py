"""Whether a run has steps enough to be judged by its alarms, in words; no torch."""

from __future__ import annotations

import math

from falcon_ssl.records.run import Run, as_number

ENOUGH = 1.5  # times the patience of the alarms


def few_steps_sentence(run: Run) -> str:
    """That no alarm can be raised in a run of so few steps, and how many would do; empty where one can.

    An alarm needs a symptom at all steps from one that is logged to one that is ``monitor.patience`` steps later.
    """
    steps, epochs, batch, patience, logged = (
        as_number(value)
        for value in (
            run.environment.get("num_steps"),
            *(run.setting(name) for name in ("epochs", "batch_size", "patience", "log_every")),
        )
    )
    if not (steps and epochs and batch and patience and logged):
        return ""
    per_epoch = steps / epochs
    if steps - min(logged, per_epoch) >= patience:
        return ""
    enough = ENOUGH * patience
    return (
        f"{steps:.0f} steps in all: too few to judge, as alarms need {patience:.0f} on end; "
        f"{math.ceil(enough / epochs) * batch:.0f} images or {math.ceil(enough / per_epoch)} epochs would do"
    )
