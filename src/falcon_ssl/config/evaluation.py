"""Options of what watches a run, and of how a frozen encoder is evaluated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from falcon_ssl.config.bounds import Options, option
from falcon_ssl.core.checks import check_label_amount
from falcon_ssl.core.errors import InputError


@dataclass(frozen=True)
class MonitorConfig(Options, group="monitor"):
    """What watches a run while it trains."""

    on_collapse: Literal["warn", "stop"] = option(
        "warn", "warn logs an alarm and continues; stop ends the run at the first alarm."
    )
    patience: int = option(
        200, "Consecutive steps with a symptom before its alarm is raised.", at_least=0
    )
    every_epochs: int = option(
        5,
        "Epochs between two probes: RankMe, and kNN on held-out images where there are labels; 0 never probes. Without "
        "a test part RankMe is that of training images.",
        at_least=0,
    )
    linear: bool = option(False, "Whether these probes include a linear one.")
    plateau: int = option(
        3,
        "Probes in a row without a new best kNN (RankMe where there are no labels) before a line says so; 0 says "
        "nothing.",
        at_least=0,
    )


Representation: TypeAlias = Literal[
    "pooled",
    "pooled2x2",
    "pooled3x3",
    "last_two",
    "last_three",
    "last_four",
    "cls",
    "mean",
    "last_n",
]


def describe_readout(
    representation: str, *, mirror: bool = False, crops: int = 1, scales: Sequence[float] = (1.0,)
) -> str:
    """A readout in words: "last_two, mirrored, 9 crops, scales 1 and 1.25"."""
    parts = [representation]
    if mirror:
        parts.append("mirrored")
    if crops > 1:
        parts.append(f"{crops} crops")
    if tuple(scales) != (1.0,):
        parts.append(f"scale{'s' * (len(scales) > 1)} {' and '.join(f'{one:g}' for one in scales)}")
    return ", ".join(parts)


@dataclass(frozen=True)
class EvaluationConfig(Options, group="evaluation"):
    """How a frozen encoder is evaluated."""

    representation: Representation = option(
        "pooled",
        "What linear probe and kNN read. pooled: the encoder's own representation; pooled2x2, pooled3x3: its last map, "
        "averaged over so many cells; last_two: the last two maps over 2x2 cells; last_three: the last three over 3x3, "
        "the very last over 2x2; last_four: two over 3x3, two over 2x2. Of vision transformers: cls, the class token; "
        "mean, the mean of the patch tokens; last_n, the class tokens of the last four blocks.",
    )
    mirror: bool = option(False, "Average what is read over the image and its mirror image.")
    crops: int = option(
        1,
        "9 averages what is read over a 3x3 grid of crops, a sixteenth of the side apart; 1 does not.",
    )
    scales: tuple[float, ...] = option(
        (1.0,),
        "Factors by which the image is resized before it is read; what is read is averaged over them.",
        above=0,
    )
    probe_each_scale: bool = option(
        False,
        "Whether the linear probe on all labels learns from an image at each of the scales, in place of their average, "
        "which it is tested on: more images for wide readouts.",
    )
    linear_penalty: float | None = option(
        None,
        "L2 penalty of the linear probe on all labels; null chooses it on a held-out fifth of train, which costs as "
        "much again as the probe.",
        above=0,
    )
    batch_size: int = option(512, "Images a forward pass when features are extracted.", at_least=1)
    knn_neighbors: int = option(20, "k of the nearest-neighbor classifier.", at_least=1)
    knn_temperature: float = option(0.07, "T of its weights exp(cosine / T).", above=0)
    knn_components: int | None = option(
        None,
        "Principal components of train that it compares, each divided by its standard deviation; null compares what is "
        "read as it is.",
        at_least=1,
    )
    few_labels: tuple[float, ...] = option(
        (),
        "Further linear probes that see few labels, over three draws each: below 1 fractions of them, from 1 on images "
        "a class.",
    )
    untrained: bool = option(
        True, "Whether the untrained encoder is evaluated too, which costs as much again."
    )
    seed: int = option(
        0, "Seed of k-means, permutations and held-out splits.", at_least=0, below=2**32
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.scales:
            raise InputError("no evaluation.scales", received=self.scales, expected="one at least")
        if self.crops not in (1, 9):
            raise InputError("unknown evaluation.crops", received=self.crops, expected="1 or 9")
        for amount in self.few_labels:
            check_label_amount("evaluation.few_labels", amount)
