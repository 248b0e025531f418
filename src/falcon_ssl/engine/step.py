"""One training step, for whoever takes one: the training loop, the estimate of a grid's time, the benchmarks.

    images -> views -> method (encoder, head, loss) -> backward -> clip -> finite? -> optimizer -> hooks

Everything random in step t is a function of (seed, t), and a batch is the same on any number of ranks.
"""

from __future__ import annotations

import gc
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from falcon_ssl.config.run import RunConfig
from falcon_ssl.core.errors import InputError
from falcon_ssl.core.sharding import local
from falcon_ssl.engine import speed
from falcon_ssl.engine.finite import FiniteGuard
from falcon_ssl.engine.optim import build_optimizer, schedule
from falcon_ssl.engine.shards import Shards
from falcon_ssl.methods import Method, StepOutput
from falcon_ssl.networks.batchnorm import use_global_batch_norm
from falcon_ssl.views import BatchSlice, Views

logger = logging.getLogger(__name__)


class StepResult(NamedTuple):
    """What a step leaves besides better weights.

    Args:
        lr: Its learning rate.
        u_NF: Embeddings of the first view, this rank's rows.
    """

    lr: float
    u_NF: Tensor


class TrainingStep:
    """Takes training steps of a method; in one process nothing in them waits for the device.

    Args:
        method: Trained in place, on the accelerator's device and in training mode from now on.
        views: Two or more views of a batch.
        config: Batch size, epochs, seed, optimizer, engine.
        num_steps: Steps of the whole run.
        accelerator: Device, precision and processes.

    Attributes:
        optimizer: Its state belongs into a checkpoint.
        shards: Where the encoder is divided over ranks; None where every rank has it.

    Raises:
        InputError: Options that the device cannot have.
    """

    def __init__(
        self,
        method: Method,
        views: Views,
        *,
        config: RunConfig,
        num_steps: int,
        accelerator: Accelerator,
    ) -> None:
        _check_parts(config, accelerator.num_processes)
        if accelerator.num_processes > 1:
            use_global_batch_norm(method)
        self._memory_format = speed.prepare(method, config.engine, device=accelerator.device)
        in_bf16 = config.engine.precision != "no"
        self.optimizer = build_optimizer(method, config.optim, bf16=in_bf16)
        method.train()
        self.shards = None
        if config.engine.shard and accelerator.num_processes == 1:
            logger.info("engine.shard: one process, nothing is divided")
        elif config.engine.shard:
            self.shards = Shards(method, self.optimizer)
        self._model = (
            accelerator.prepare_model(  # evaluation mode of Accelerate: autocast without DDP
                method, evaluation_mode=self.shards is not None
            )
        )
        self._stepper = accelerator.prepare_optimizer(self.optimizer)
        self._guard = FiniteGuard(
            self.optimizer,
            [local(one) for one in method.running_state()],
            device=accelerator.device,
            scaled=accelerator.scaler is not None,
        )
        self._method = method
        speed.compile_views(views, config.engine)
        self._views = views
        self._config = config
        self._num_steps = num_steps
        self._warmup_steps = round(config.optim.warmup_epochs * (num_steps // config.epochs))
        self._accelerator = accelerator

    def __call__(self, images: Tensor, step: int) -> StepResult:
        """Take a step.

        Args:
            images: uint8 [B, C, H, W], this rank's rows of the batch, on the device.
            step: Its number, counted from 0.
        """
        lr = schedule(
            self.optimizer,
            step,
            num_steps=self._num_steps,
            warmup_steps=self._warmup_steps,
            config=self._config.optim,
        )
        views = self._draw(images, step)
        self._seed_rank(step)
        speed.mark_step_begin(self._config.engine)
        self._guard.begin()
        self._method.before_step(step, self._num_steps)
        out: StepOutput = self._model(views)
        self._accelerator.backward(out.loss)
        grad_norm = self._clip(self._config.optim.clip_norm)
        self._guard.check(step + 1, out.terms, grad_norm)
        self._method.after_backward(step, self._num_steps)
        self._stepper.step()
        self._stepper.zero_grad()
        self._method.after_step(step, self._num_steps)
        self._guard.end()
        return StepResult(lr, out.u_NF)

    def close(self) -> None:
        """Free what joins the ranks, before the process group ends: after it, DDP's destructor may wait for ever."""
        del self._model, self._stepper
        self.shards = None
        if self._accelerator.num_processes > 1:
            self._accelerator.free_memory()
            gc.collect()  # cycles hold DDP, and Accelerate lets go of it last

    @contextmanager
    def whole_method(self) -> Iterator[Method]:
        """In this block the method with whole weights; where they are sharded, every rank enters it."""
        with nullcontext(self._method) if self.shards is None else self.shards.whole() as method:
            yield method

    def terms(self) -> dict[str, float]:
        """Loss terms and gradient norm of the last step as numbers; waits for the device, once.

        Raises:
            NonFiniteError: NaN or infinity in this step or in one since the last call.
        """
        return self._guard.read()

    def _clip(self, clip_norm: float) -> Tensor:
        """Clip the gradients; returns their norm before. 0 measures without clipping."""
        if self.shards is not None:
            return self.shards.finish_backward(clip_norm)
        norm: Tensor = self._accelerator.clip_grad_norm_(
            self._method.parameters(), clip_norm or math.inf
        )
        return norm

    def _draw(self, images: Tensor, step: int) -> list[Tensor]:
        """The views of a batch, in the memory format of the encoder."""
        rank, num_ranks = self._accelerator.process_index, self._accelerator.num_processes
        rows = BatchSlice(
            torch.Generator().manual_seed(_seed_of(self._config.seed, step)),
            first=self._config.batch_size * rank // num_ranks,
            total=self._config.batch_size,
        )
        draw = self._views.at(step / self._num_steps)
        views = draw(images, generator=rows)
        return [view.contiguous(memory_format=self._memory_format) for view in views]

    def _seed_rank(self, step: int) -> None:
        """Draw other numbers on every rank, for dropout and for codes: all ranks have begun with one seed."""
        if self._accelerator.num_processes > 1:
            rank = self._accelerator.process_index
            torch.manual_seed(_seed_of(self._config.seed, step, 1 + rank))


def _check_parts(config: RunConfig, num_ranks: int) -> None:
    """Raise InputError where a rank has fewer images of a batch than it has to make parts of."""
    rows = config.batch_size // num_ranks
    if rows < config.engine.accumulate:
        raise InputError(
            "engine.accumulate is larger than what a rank has of a batch",
            received=f"{config.engine.accumulate} parts of {rows} images",
            expected=f"at most {rows}",
        )


def _seed_of(*numbers: int) -> int:
    """Of random numbers that are independent for every seed and step, or seed, step and rank."""
    state = np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]
    return int(state) % 2**63
