"""Whether a run is long enough for its alarms."""

from __future__ import annotations

import pytest

from falcon_ssl.records.run import Run
from falcon_ssl.records.steps import few_steps_sentence


def run(
    *, steps: int = 60, epochs: int = 30, batch_size: int = 256, patience: int = 200, every: int = 5
) -> Run:
    config = {
        "epochs": epochs,
        "batch_size": batch_size,
        "engine": {"log_every": every},
        "monitor": {"patience": patience},
    }
    return Run(name="run", config=config, curves={}, environment={"num_steps": steps})


def test_a_short_run_says_what_would_do() -> None:
    assert few_steps_sentence(run()) == (
        "60 steps in all: too few to judge, as alarms need 200 on end; 2560 images or 150 epochs would do"
    )


@pytest.mark.parametrize(
    ("options", "is_short"),
    [
        ({"steps": 205, "epochs": 1}, False),  # the symptom of step 5 is an alarm at step 205
        ({"steps": 204, "epochs": 1}, True),
        ({"steps": 202, "epochs": 101}, False),  # an epoch's end is logged: step 2
        ({"steps": 201, "epochs": 201}, False),
        ({"steps": 200, "epochs": 200}, True),
        ({"patience": 20}, False),
        ({"patience": 0}, False),
    ],
)
def test_where_an_alarm_can_be_raised(options: dict[str, int], is_short: bool) -> None:
    assert bool(few_steps_sentence(run(**options))) == is_short


def test_nothing_is_said_of_records_without_steps() -> None:
    assert few_steps_sentence(Run(name="run", config={"epochs": 3}, curves={})) == ""
