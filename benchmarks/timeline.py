"""A step of training as a line of marks: what lies between two marks is a part, and the parts add up to the step.

Wall time and CPU time of the process on a CPU; on a GPU wall time by CUDA events, so that nothing waits for a mark.
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from falcon_ssl.views import BatchSlice, Views


class Spent(NamedTuple):
    """Seconds of a part of a step, by the clock on the wall and by the processor's, over all threads."""

    wall: float
    cpu: float


class Timeline:
    """Marks of one step after another.

    Args:
        device: Where the step runs.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._marks: list[tuple[str, Any, float]] = []

    def start(self) -> None:
        """A step begins here; marks of the last one are forgotten."""
        if self._on_gpu:
            torch.cuda.synchronize()
        self._marks = []
        self.mark("start")

    def mark(self, part: str) -> None:
        """What happened since the last mark was ``part``; nothing before the first start."""
        if not self._marks and part != "start":
            return
        now: Any = time.perf_counter()
        if self._on_gpu:
            now = torch.cuda.Event(enable_timing=True)
            now.record()
        self._marks.append((part, now, time.process_time()))

    def parts(self) -> dict[str, Spent]:
        """Every part of the step, in the order in which they first came."""
        if self._on_gpu:
            torch.cuda.synchronize()
        wall: dict[str, float] = defaultdict(float)
        cpu: dict[str, float] = defaultdict(float)
        for (_, before, cpu_before), (part, now, cpu_now) in zip(
            self._marks, self._marks[1:], strict=False
        ):
            wall[part] += 1e-3 * before.elapsed_time(now) if self._on_gpu else now - before
            cpu[part] += cpu_now - cpu_before
        return {part: Spent(wall[part], cpu[part]) for part in wall}


class MarkedViews:
    """The views of a run."""

    def __init__(self, views: Views, timeline: Timeline) -> None:
        self.views, self.timeline = views, timeline

    def __call__(self, images: Tensor, *, generator: BatchSlice) -> list[Tensor]:
        """Draw them."""
        views = self.views(images, generator=generator)
        self.timeline.mark("views")
        return views

    def compile(self) -> None:
        """Compile them."""
        self.views.compile()

    def at(self, progress: float) -> MarkedViews:
        """Those at a fraction of the run."""
        return MarkedViews(self.views.at(progress), self.timeline)


class MarkedAccelerator(Accelerator):
    """Accelerate, with a mark where the backward pass begins and ends.

    Args:
        timeline: Where marks go; it may be replaced later.
        before: Name of the part that ends when the backward pass begins.
        backward: Name of the part that ends with it.
        options: Of Accelerate.
    """

    def __init__(self, timeline: Timeline, *, before: str, backward: str, **options: Any) -> None:
        super().__init__(**options)
        self.timeline, self.before, self.end = timeline, before, backward

    def backward(self, loss: Tensor, **options: Any) -> None:
        """Run it."""
        self.timeline.mark(self.before)
        super().backward(loss, **options)
        self.timeline.mark(self.end)


def mark_around(
    module: nn.Module,
    timeline: Timeline,
    *,
    before: str,
    forward: str,
    before_backward: str,
    by_maps: bool = False,
) -> None:
    """Mark where a module's forward pass begins and ends, and where the gradient reaches its output.

    Args:
        module: Returns one tensor.
        timeline: Where marks go.
        before: Name of the part that ends when the forward pass begins.
        forward: Name of the forward pass.
        before_backward: Name of the part of the backward pass that ends when the gradient of the output is there.
        by_maps: It is an encoder whose last map is taken, by its method ``maps``.
    """

    def leave(_: nn.Module, __: object, out: Tensor) -> None:
        timeline.mark(forward)
        if out.requires_grad:
            out.register_hook(lambda _: timeline.mark(before_backward))

    if by_maps:
        plain = module.maps

        def maps(images: Tensor) -> tuple[Tensor, ...]:
            timeline.mark(before)
            found: tuple[Tensor, ...] = plain(images)
            leave(module, images, found[-1])
            return found

        module.maps = maps  # type: ignore[assignment]
        return
    module.register_forward_pre_hook(lambda *_: timeline.mark(before))
    module.register_forward_hook(leave)


def median_parts(steps: Sequence[dict[str, Spent]]) -> dict[str, Spent]:
    """The median of every part over steps; a part that a step lacks took it no time."""
    nothing = Spent(0.0, 0.0)
    names = dict.fromkeys(name for step in steps for name in step)
    return {
        name: Spent(
            *(
                statistics.median(values)
                for values in zip(*(s.get(name, nothing) for s in steps), strict=True)
            )
        )
        for name in names
    }


def whole(step: dict[str, Spent]) -> Spent:
    """All parts of a step together."""
    return Spent(*(sum(values) for values in zip(*step.values(), strict=True)))
