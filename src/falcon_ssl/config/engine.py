"""Options of how a run is executed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from falcon_ssl.config.bounds import Options, option
from falcon_ssl.core.errors import InputError


@dataclass(frozen=True)
class EngineConfig(Options, group="engine"):
    """How a run is executed: what is computed changes by rounding alone, with `accumulate` by batch statistics too."""

    device: Literal["auto", "cpu", "cuda", "mps"] = option(
        "auto",
        "auto (CUDA, then the CPU), cpu, cuda or mps, an Apple GPU, on which this library has not been measured; "
        "evaluation then runs on the CPU.",
    )
    precision: Literal["auto", "no", "bf16", "fp16"] = option(
        "auto",
        "no (float32), bf16 or fp16 autocast; auto takes bf16 where the device multiplies it in hardware, except for "
        "the tiny digits_cnn, and writes its choice into config.yaml.",
    )
    log_every: int = option(5, "Steps between two lines of metrics.jsonl.", at_least=1)
    checkpoint_every: int = option(
        1, "Epochs between two checkpoints; the last epoch always has one.", at_least=1
    )
    checkpoint_steps: int | None = option(
        None, "Steps between two checkpoints, besides those of epochs; null: none.", at_least=1
    )
    checkpoint_minutes: float | None = option(
        30.0, "Minutes between two checkpoints at most, for long epochs; null: no limit.", above=0
    )
    keep: tuple[str, ...] = option(
        ("best", "last:2"),
        "Checkpoints that stay: last:K, the newest K, so that one is left if the newest is damaged; best by RankMe, "
        "and by kNN where there are labels, of those epochs that the monitor probes; every:N epochs.",
    )
    channels_last: bool = option(
        True, "Memory format of the convolutions; measured faster on CPUs and GPUs."
    )
    compile: bool = option(
        False, "torch.compile the encoder, and the color operations of the views."
    )
    cuda_graphs: bool = option(
        False,
        "Compile the encoder and replay its kernels from a CUDA graph: for small networks on a GPU, whose kernels are "
        "shorter than their launches.",
    )
    accumulate: int = option(
        1,
        "Parts of a batch that pass the encoder one after the other, for large batches on small memory: the gradient "
        "is that of the whole batch, for one more forward pass. Batch normalization in the encoder sees a part alone.",
        at_least=1,
    )
    shard: bool = option(
        False,
        "Divide the encoder's weights, gradients and moments over all processes (FSDP2), for networks that one device "
        "does not hold; checkpoints stay whole. One process has nothing to divide.",
    )
    timeout_minutes: float = option(
        10.0,
        "Minutes that ranks wait for each other before the run ends and names those that did not come; a rank that "
        "dies ends it sooner.",
        above=0,
    )
    trackers: tuple[Literal["tensorboard", "wandb"], ...] = option(
        (), "Further places to log to, of Accelerate: tensorboard, wandb."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for word in self.keep:
            if not re.fullmatch(r"best|last|(last|every):[1-9]\d{0,8}", word):
                raise InputError(
                    "unknown engine.keep",
                    received=repr(word),
                    expected="a list of best, last:K and every:N",
                )
        if self.cuda_graphs and self.accumulate > 1:
            raise InputError(
                "engine.accumulate and engine.cuda_graphs exclude each other",
                received=f"engine.accumulate={self.accumulate} and cuda_graphs",
                expected="one of them: a graph that is replayed again overwrites what the gradient needs",
            )
        if self.shard and (self.compile or self.cuda_graphs or self.precision == "fp16"):
            raise InputError(
                "engine.shard has not been built for what it is asked with",
                received=f"compile={self.compile}, cuda_graphs={self.cuda_graphs}, precision={self.precision}",
                expected="no compile, no cuda_graphs, precision auto, no or bf16",
            )
        if self.cuda_graphs and self.device == "cpu":
            raise InputError(
                "engine.cuda_graphs needs a GPU",
                received="engine.device=cpu",
                expected="cuda or auto",
            )

    @property
    def keep_every(self) -> int | None:
        """N of every:N; None where it is not asked for."""
        return self._number("every")

    @property
    def keep_last(self) -> int:
        """K of last:K; 1 where it is not asked for."""
        return self._number("last") or 1

    def _number(self, word: str) -> int | None:
        pairs = (entry.partition(":") for entry in self.keep)
        return next((int(number) for name, _, number in pairs if name == word and number), None)
