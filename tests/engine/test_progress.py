"""What a person sees while a run is on, in a terminal and in a log file."""

from __future__ import annotations

import io
import logging
import re
from contextlib import suppress
from types import SimpleNamespace

import pytest
from rich.console import Console

from falcon_ssl.config.run import RunConfig
from falcon_ssl.engine import progress as module
from falcon_ssl.engine.progress import Progress, WorkProgress

LINE = {"total": 3.25, "prior_matching": 0.5, "effective_rank_u": 41.5, "codes_used": 92.0,
        "images_per_s": 4186.0}  # fmt: skip


@pytest.fixture(params=[False, True], ids=["log", "terminal"])
def screen(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Console:
    console = Console(
        file=io.StringIO(),
        width=50,
        force_terminal=request.param,
        color_system=None,
        legacy_windows=False,
    )
    monkeypatch.setattr(module, "_console", lambda: console)
    return console


def shown(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", console.file.getvalue())


def train(progress: Progress, steps: range, *, per_epoch: int = 5) -> None:
    for step in steps:
        line = {**LINE, "epoch": step / per_epoch, "seconds": 0.5 * step}
        progress.update(step, line, memory=3 * 2**29)


def test_an_alarm_stays_and_the_last_line_says_what_came_out(screen: Console) -> None:
    with Progress(RunConfig(epochs=20), 100, 0, shown=True) as progress:
        train(progress, range(1, 31))
        progress.warn(30, {"few_codes": "2 of 4096 codes are used: is beta too large?"})
        train(progress, range(31, 101))
    said = shown(screen)
    assert "warning step 30: 2 of 4096 codes are used: is beta too large?" in said
    last = said.strip().splitlines()[-1]
    for word in ("epoch 20.0/20 in 50.0 s", "loss 3.250", "rank 41.5", "codes 92", "img/s 4186",
                 "memory 1.5 GiB", "alarms: few_codes at step 30"):  # fmt: skip
        assert word in last
    assert " left" in said
    if not screen.is_terminal:
        lines = said.splitlines()
        assert len(lines) == 1 + 16 + 1  # the alarm, those on the way and the last
        assert all("left" in line for line in lines[:-1] if not line.startswith("warning"))
        assert all("alarms: few_codes at step 30" in line for line in lines[6:])


def test_a_resumed_run_begins_where_it_was_and_keeps_its_alarms(screen: Console) -> None:
    with Progress(
        RunConfig(epochs=20), 100, 50, shown=True, alarms={"few_directions": 40}
    ) as progress:
        train(progress, range(51, 61))
    said = shown(screen)
    assert "few_directions at step 40" in said
    assert "epoch 0" not in said
    assert "epoch 12.0/20" in said.strip().splitlines()[-1]


def test_log_messages_stand_on_lines_of_their_own(
    screen: Console, capsys: pytest.CaptureFixture[str]
) -> None:
    handler = logging.StreamHandler()
    logging.getLogger().addHandler(handler)
    try:
        with Progress(RunConfig(), 100, 0, shown=True) as progress:
            train(progress, range(1, 3))
            logging.getLogger("falcon_ssl").warning("the loss runs somewhere")
            train(progress, range(3, 5))
        logging.getLogger("falcon_ssl").warning("after it")
    finally:
        logging.getLogger().removeHandler(handler)
    before, _, after = (shown(screen) + capsys.readouterr().err).partition(
        "the loss runs somewhere"
    )
    assert before[-1:] in ("", "\n", "\r")
    assert after.lstrip("\r")[0] == "\n"
    assert after.endswith("after it\n")


def test_an_error_has_the_last_word(screen: Console) -> None:
    with suppress(ZeroDivisionError), Progress(RunConfig(), 100, 0, shown=True) as progress:
        train(progress, range(1, 3))
        raise ZeroDivisionError
    assert "no alarm" not in shown(screen)


def test_other_processes_are_silent(screen: Console) -> None:
    with Progress(RunConfig(), 100, 0, shown=False) as progress:
        train(progress, range(1, 101))
        progress.warn(7, {"few_codes": "x"})
        progress.note("y")
    assert shown(screen) == ""


class Clock(SimpleNamespace):
    """A clock that a test sets."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Clock:
    caplog.set_level(logging.INFO, "falcon_ssl")
    monkeypatch.setattr(module, "time", Clock())
    return module.time  # type: ignore[return-value]


def work(progress: WorkProgress, clock: Clock, *, seconds: float) -> None:
    """1000 images, 500 that take twice as long each, then a probe."""
    progress.name("trained network")
    for what, images, times in (("train images", 1000, 1), ("test images", 500, 2)):
        count = progress.read(what, images)
        for _ in range(images // 100):
            clock.now += times * seconds
            count(100)
    progress.compute("linear probe")


def test_a_long_command_says_what_it_reads_and_how_long_that_takes(
    screen: Console, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    with WorkProgress() as progress:
        work(progress, clock, seconds=2)
    if screen.is_terminal:
        assert "linear probe" in shown(screen)
        assert caplog.messages == []
    else:
        assert caplog.messages == [
            "trained network: 300 of 1000 train images, 50 a second, about 14.0 s left",
            "trained network: 200 of 500 test images, 25 a second, about 12.0 s left",
            "trained network: linear probe",
        ]


@pytest.mark.parametrize(("seconds", "is_main"), [(0.1, True), (2, False)], ids=["short", "other"])
def test_a_short_command_and_other_processes_log_nothing(
    seconds: float, is_main: bool, screen: Console, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    with WorkProgress(shown=is_main) as progress:
        work(progress, clock, seconds=seconds)
    assert caplog.messages == []
    assert screen.is_terminal or shown(screen) == ""


def test_images_that_cannot_be_read_leave_no_time(screen: Console, clock: Clock) -> None:
    """They are never counted, and so the last line of a count may lack them."""
    if not screen.is_terminal:
        return
    with WorkProgress() as progress:
        count = progress.read("images", 1000)
        for number in (400, 599):
            clock.now += 4
            count(number)
            progress._bar.refresh()
    said = shown(screen)
    assert "about 6.0 s left" in said
    assert "999 of 1000 images" in said
    assert said.rindex(" left") < said.index("999 of 1000")
