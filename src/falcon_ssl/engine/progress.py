"""What a person sees while a command works: live lines in a terminal, a line now and then in a log file."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import TextIO

from rich import progress as rich_progress
from rich.console import Console, RenderableType
from rich.text import Text

from falcon_ssl.config.run import RunConfig
from falcon_ssl.core.machine import bytes_text
from falcon_ssl.report.formatting import format_duration

logger = logging.getLogger(__name__)

_SHOWN = {
    "total": ("loss", "{:.3f}"),
    "invariance": ("invariance", "{:.3f}"),
    "prior_matching": ("prior", "{:.3f}"),
    "effective_rank_u": ("rank", "{:.1f}"),
    "codes_used": ("codes", "{:.0f}"),
    "images_per_s": ("img/s", "{:.0f}"),
}
_LOG_LINES = 15  # of a whole run, where the output is not a terminal
_SOON = 5.0  # seconds to the first log line of a command that does not train,
_EVERY = 20.0  # and from one to the next
_WORTH_SAYING = 0.5  # seconds that are left


def _console() -> Console:
    """Of stderr; in a notebook, which shows every change of a live line anew, of plain lines."""
    console = Console(stderr=True)
    if console.is_jupyter:
        return Console(stderr=True, force_jupyter=False, force_terminal=False, width=160)
    return console


class _Lines(rich_progress.Progress):
    """A bar, and under it lines that wrap where the terminal is narrow: no number is cut. The log goes above them."""

    terms, alarms = Text(), Text()

    def start(self) -> None:
        """Show them."""
        self._stderr = sys.stderr
        super().start()
        _move_log(self._stderr, sys.stderr)

    def stop(self) -> None:
        """Take them away."""
        _move_log(sys.stderr, self._stderr)
        super().stop()

    def get_renderables(self) -> Iterable[RenderableType]:
        """The bar, the terms, and the alarms where there are any."""
        yield from super().get_renderables()
        yield from (text for text in (self.terms, self.alarms) if text)


def _move_log(here: TextIO, there: TextIO) -> None:
    """Take log messages from one stream to another: live lines have one of their own, which prints above them."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.StreamHandler) and handler.stream is here:
            handler.setStream(there)


class Progress:
    """Time left, images a second, memory, the terms that matter, and the alarms so far.

    Args:
        config: Epochs and what is trained.
        num_steps: Steps of the whole run.
        done: Steps taken before this session.
        shown: False on all processes but one.
        alarms: Given before this session: names and steps.
    """

    def __init__(
        self,
        config: RunConfig,
        num_steps: int,
        done: int,
        *,
        shown: bool,
        alarms: Mapping[str, int] | None = None,
    ) -> None:
        self._console = _console()
        self._shown, self._live = shown, shown and self._console.is_terminal
        self._bar = _Lines(
            rich_progress.TextColumn("epoch {task.fields[epoch]}"),
            rich_progress.BarColumn(bar_width=24),
            rich_progress.TaskProgressColumn(),
            rich_progress.TextColumn("{task.fields[left]}"),
            console=self._console,
            disable=not self._live,
            transient=True,
        )
        self._epochs, self._num_steps = config.epochs, num_steps
        self._alarms = dict(alarms or {})
        self._every = max(1, num_steps // _LOG_LINES)
        self._next = done + self._every
        self._first: tuple[int, float] | None = None  # logged step of this session, and when
        self._numbers: dict[str, float] = {}  # the last of each
        self._last = ""  # logged step, in words
        epoch = self._epoch(config.epochs * done / num_steps)
        self._task = self._bar.add_task("", total=num_steps, completed=done, epoch=epoch, left="")

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Take the live lines away, and leave one on what the session came to unless an error ended it."""
        self._bar.stop()
        if self._last and kind is None:
            self.note(f"{self._last}  {self._alarms_text() or 'no alarm'}")

    def note(self, text: str) -> None:
        """Leave a sentence on the screen, or nothing where there is none."""
        if text and self._shown:
            self._console.print(text, highlight=False, soft_wrap=True, markup=False)

    def warn(self, step: int, alarms: Mapping[str, str]) -> None:
        """Show alarms and leave them on the screen: what they say here, and their names with all that follows."""
        for name, text in alarms.items():
            self._alarms.setdefault(name, step)
            if self._shown:
                self._console.print(
                    Text.assemble(("warning", "bold yellow"), f" step {step}: {text}"),
                    soft_wrap=True,
                )

    def update(self, step: int, line: Mapping[str, float], *, memory: int = 0) -> None:
        """Show a logged step.

        Args:
            step: Its number.
            line: Its numbers, as ``metrics.jsonl`` has them.
            memory: The most bytes that were held so far; 0 is unknown.
        """
        if not self._shown:
            return
        epoch = self._epoch(line["epoch"])
        left = self._left(step)
        self._numbers |= {
            name: line[name] for name in _SHOWN if name in line
        }  # not all at every step
        shown = {
            word: form.format(self._numbers[name])
            for name, (word, form) in _SHOWN.items()
            if name in self._numbers
        }
        shown |= {"memory": bytes_text(memory)} if memory else {}
        terms = "  ".join(f"{word} {number}" for word, number in shown.items())
        self._last = f"epoch {epoch} in {format_duration(line['seconds'])}  {terms}"
        self._bar.terms = Text(terms)
        self._bar.alarms = Text(self._alarms_text(), style="yellow")
        self._bar.update(self._task, completed=step, epoch=epoch, left=left)
        if not self._live and self._next <= step < self._num_steps:
            self.note("  ".join(filter(None, (f"epoch {epoch}", left, terms, self._alarms_text()))))
            self._next = step + self._every

    def _epoch(self, epoch: float) -> str:
        return f"{epoch:.1f}/{self._epochs}"

    def _left(self, step: int) -> str:
        """How long the rest will take at this session's speed, its first step left out: it pays for caches."""
        now = time.monotonic()
        if self._first is None:
            self._first = step, now
        first, began = self._first
        if step == first:
            return ""
        return f"{format_duration((self._num_steps - step) * (now - began) / (step - first))} left"

    def _alarms_text(self) -> str:
        given = ", ".join(f"{name} at step {step}" for name, step in self._alarms.items())
        return f"alarms: {given}" if given else ""


class WorkProgress:
    """What a command is at: images read of how many, and about how long they will take; or what it computes.

    A live line in a terminal; elsewhere a log line after 5 seconds and every 20 from then on: less is silent.

    Args:
        shown: False on all processes but one.
    """

    def __init__(self, *, shown: bool = True) -> None:
        console = _console()
        self._logs, is_live = shown and not console.is_terminal, shown and console.is_terminal
        bar = rich_progress.BarColumn(bar_width=24)
        self._bar = _Lines(bar, console=console, disable=not is_live, transient=True)
        self._task = self._bar.add_task("", total=None)
        self._soon = self._next = time.monotonic() + _SOON
        self._prefix = ""

    def __enter__(self) -> WorkProgress:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def name(self, subject: str) -> None:
        """Name what the next lines are about, such as a network; "" is nothing."""
        self._prefix = f"{subject}: " if subject else ""

    def read(self, what: str, images: int) -> Callable[[int], None]:
        """Begin to read so many images; call what it returns with the number of every batch.

        Args:
            what: Which images, in the plural.
            images: How many.
        """
        began, done = time.monotonic(), 0

        def count(batch: int) -> None:
            nonlocal done
            done += batch
            now = time.monotonic()
            line = f"{done} of {images} {what}"
            if done and now > began:
                line += f", {done / (now - began):.0f} a second"
            left = (now - began) * (images - done) / done if done else 0.0
            if left > _WORTH_SAYING:  # images that cannot be read are never counted
                line += f", about {format_duration(left)} left"
            self._show(line, done=done, total=images, due=self._next)

        return count

    def compute(self, what: str) -> None:
        """Begin something that has no count: it is logged at its beginning."""
        self._show(what, done=0, total=None, due=self._soon)

    def _show(self, line: str, *, done: int, total: int | None, due: float) -> None:
        line = self._prefix + line
        self._bar.terms = Text(line)
        self._bar.update(self._task, completed=done, total=total, visible=total is not None)
        if self._logs and (now := time.monotonic()) > due:
            self._next = now + _EVERY
            logger.info("%s", line)
