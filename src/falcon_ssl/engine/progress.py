"""What a person sees while a run is on: a live line in a terminal, a line now and then in a log file."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType

from rich import progress as rich_progress
from rich.console import Console

from falcon_ssl.config.run import RunConfig

_SHOWN = {
    "total": ("loss", "{:.3f}"),
    "invariance": ("invariance", "{:.3f}"),
    "prior_matching": ("prior", "{:.3f}"),
    "effective_rank_u": ("rank", "{:.1f}"),
    "codes_used": ("codes", "{:.0f}"),
    "images_per_s": ("img/s", "{:.0f}"),
}
_LOG_LINES = 15  # of a whole run, where the output is not a terminal


def _console() -> Console:
    """Of stderr; in a notebook, which shows every change of a live line anew, of plain lines."""
    console = Console(stderr=True)
    if console.is_jupyter:
        return Console(stderr=True, force_jupyter=False, force_terminal=False, width=160)
    return console


class Progress:
    """Live progress with time left, images a second and the terms that matter.

    Args:
        config: Epochs and what is trained.
        num_steps: Steps of the whole run.
        done: Steps taken before this session.
        shown: False on all processes but one.
    """

    def __init__(self, config: RunConfig, num_steps: int, done: int, *, shown: bool) -> None:
        self._console = _console()
        self._live = shown and self._console.is_terminal
        self._logged = shown and not self._console.is_terminal
        self._bar = rich_progress.Progress(
            rich_progress.TextColumn("epoch {task.fields[epoch]}"),
            rich_progress.BarColumn(bar_width=24),
            rich_progress.TaskProgressColumn(),
            rich_progress.TextColumn("[dim]left[/dim]"),
            rich_progress.TimeRemainingColumn(),
            rich_progress.TextColumn("{task.fields[terms]}"),
            console=self._console,
            disable=not self._live,
            transient=True,
        )
        self._epochs = config.epochs
        self._every = max(1, num_steps // _LOG_LINES)
        self._next = done + self._every
        self._task = self._bar.add_task(
            "", total=num_steps, completed=done, epoch=f"0/{config.epochs}", terms=""
        )
        self._num_steps = num_steps

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def note(self, text: str) -> None:
        """Leave a sentence on the screen, or nothing where there is none."""
        if text and (self._live or self._logged):
            self._console.print(text, highlight=False, soft_wrap=True)

    def warn(self, step: int, alarms: Mapping[str, str]) -> None:
        """Show alarms and leave them on the screen."""
        if self._live or self._logged:
            for text in alarms.values():
                self._console.print(f"[bold yellow]warning[/] step {step}: {text}", soft_wrap=True)

    def update(self, step: int, line: Mapping[str, float]) -> None:
        """Show a logged step."""
        epoch = f"{line['epoch']:.1f}/{self._epochs}"
        terms = "  ".join(
            f"[dim]{word}[/dim] {form.format(line[name])}"
            for name, (word, form) in _SHOWN.items()
            if name in line
        )
        self._bar.update(self._task, completed=step, epoch=epoch, terms=terms)
        if self._logged and (step >= self._next or step == self._num_steps):
            self._console.print(f"epoch {epoch}  {terms}", highlight=False, soft_wrap=True)
            self._next = step + self._every
