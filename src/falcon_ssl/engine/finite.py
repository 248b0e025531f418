"""NaN and infinity: found on the device, kept from whatever a run remembers, reported at the next logged step.

    record = (step, loss terms, gradient norm) of this step, or of the first that was not finite
    bad    = not all of the record is finite

    optimizer        moves nothing where bad (its ``found_inf``, as under a gradient scaler)
    running state    is that of before the step where bad (EMA teachers, queues, running statistics)

Nothing of this waits for the device. The host reads the record at logged steps, one copy, and raises there; every
checkpoint follows a logged step. A float16 gradient scaler meets infinite gradients on purpose, skips the step and
lowers its scale: with one the gradient norm may be infinite, and the record is read at every step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.optim import Optimizer

from falcon_ssl.engine.skipping import assign_unless

GRAD_NORM = "grad_norm"


class NonFiniteError(ArithmeticError):
    """A loss term or gradient is NaN or infinite; the weights are those of the step before."""


class FiniteGuard:
    """Keeps the first step that is not finite, and all after it, from changing anything.

    Args:
        optimizer: One that reads ``found_inf``: fused Adam and AdamW, LARS, Muon.
        running_state: What a step changes without the optimizer, see `Method.running_state`.
        device: Where terms and gradients are.
        scaled: Whether a gradient scaler decides over steps with infinite gradients.

    Memory: one copy of the running state.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        running_state: list[Tensor],
        *,
        device: torch.device,
        scaled: bool,
    ) -> None:
        self._state = running_state
        self._before = [torch.empty_like(tensor) for tensor in running_state]
        self._bad = torch.zeros((), device=device)  # 0 or 1, float32 as optimizers take it
        self._names: list[str] = []
        self._record: Tensor | None = None
        self._scaled = scaled
        if not scaled:
            optimizer.found_inf = self._bad  # type: ignore[attr-defined]

    @torch.no_grad()
    def begin(self) -> None:
        """Remember the running state, before anything of a step changes it."""
        if self._state:
            torch._foreach_copy_(self._before, self._state)

    @torch.no_grad()
    def check(self, step: int, terms: Mapping[str, Tensor], grad_norm: Tensor) -> None:
        """Record a step whose gradients are there, before the optimizer moves.

        Args:
            step: Its number, counted from 1.
            terms: Loss terms, 0-dim.
            grad_norm: Norm of all gradients.

        Raises:
            NonFiniteError: At once under a gradient scaler.
        """
        self._names = [*terms, GRAD_NORM]
        values = [value.detach().float() for value in (*terms.values(), grad_norm)]
        number = torch.full_like(values[0], step)  # exact up to 16 million steps
        record = torch.stack([number, *values])
        if self._record is not None:
            record = torch.where(self._bad.bool(), self._record, record)
        watched = record[:-1] if self._scaled else record
        self._bad.copy_(~watched.isfinite().all())
        self._record = record
        if self._scaled:
            self.end()
            self.read()

    @torch.no_grad()
    def end(self) -> None:
        """Bring the running state back after a step that is not finite."""
        assign_unless(1 - self._bad, self._state, self._before)

    def read(self) -> dict[str, float]:
        """Loss terms and gradient norm of the last step as numbers: the one copy to the host.

        Raises:
            NonFiniteError: This step or one before it was not finite; names the first, and its first such term.
        """
        assert self._record is not None, "no step yet"
        step, *numbers = self._record.tolist()
        values = dict(zip(self._names, numbers, strict=True))
        for name, value in values.items():
            if not math.isfinite(value) and not (self._scaled and name == GRAD_NORM):
                raise NonFiniteError(
                    f"step {step:.0f}: {name} is {value}, expected a finite number; the weights are those of step"
                    f" {step - 1:.0f}. All terms: {values}. Search for broken images, lower optim.lr, or use"
                    " engine.precision=no."
                )
        return values
