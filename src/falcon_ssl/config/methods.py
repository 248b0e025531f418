"""Options of the methods that FALCON is compared with; defaults are the papers', at the scale of CIFAR."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from falcon_ssl.config.bounds import at_defaults, at_least, positive, share
from falcon_ssl.core.errors import InputError

MethodName = Literal[
    "falcon", "barlow_twins", "vicreg", "swav", "self_classifier", "gedi", "dino", "lejepa"
]
METHODS: tuple[str, ...] = get_args(MethodName)  # each has a group of options of its own name
TAKE_SMALL_VIEWS = ("swav", "dino", "lejepa")


def check_method(
    method: str, groups: Mapping[str, Any], *, small_views: int, batch_size: int
) -> None:
    """Raise InputError for an unknown method, and for options that it does not take.

    Args:
        method: What is trained.
        groups: For every method, its options.
        small_views: Number of small crops.
        batch_size: Images of a step, over all devices.
    """
    if method not in METHODS:
        raise InputError(
            "unknown method",
            received=method,
            expected=f"one of {', '.join(METHODS)}",
            fix="choose one",
        )
    for group, options in groups.items():
        for option in dataclasses.fields(options):
            value = getattr(options, option.name)
            if group != method and value != option.default:
                raise InputError(
                    f"{group}.{option.name} does not apply to the method {method}",
                    received=value,
                    expected=f"options of {method} alone",
                    fix=f"train with method={group}, or leave the option out",
                )
    if small_views and method not in TAKE_SMALL_VIEWS:
        raise InputError(
            f"the method {method} takes two views",
            received=f"views.small_views={small_views}",
            expected=f"small views with {', '.join(TAKE_SMALL_VIEWS)} alone",
            fix="leave them out",
        )
    gedi = groups["gedi"]
    if gedi.generative and gedi.buffer_size < batch_size:
        raise InputError(
            "gedi.buffer_size is smaller than the batch",
            received=gedi.buffer_size,
            expected=f"at least batch_size={batch_size}",
            fix="raise it",
        )


@dataclass(frozen=True)
class BarlowTwinsConfig:
    """Barlow Twins (Zbontar et al., 2021).

    Args:
        hidden_dim: Width of the two hidden layers of the head.
        embed_dim: F, width of the embedding.
        redundancy_weight: lambda, weight of the off-diagonal correlations.
    """

    hidden_dim: int = 2048
    embed_dim: int = 2048
    redundancy_weight: float = 5e-3

    def __post_init__(self) -> None:
        at_least("barlow_twins.hidden_dim", self.hidden_dim, 1)
        at_least("barlow_twins.embed_dim", self.embed_dim, 2)
        at_least("barlow_twins.redundancy_weight", self.redundancy_weight, 0)


@dataclass(frozen=True)
class VICRegConfig:
    """VICReg (Bardes et al., 2022).

    Args:
        hidden_dim: Width of the two hidden layers of the head.
        embed_dim: F, width of the embedding.
        invariance_weight: lambda.
        variance_weight: mu.
        covariance_weight: nu.
    """

    hidden_dim: int = 2048
    embed_dim: int = 2048
    invariance_weight: float = 25.0
    variance_weight: float = 25.0
    covariance_weight: float = 1.0

    def __post_init__(self) -> None:
        at_least("vicreg.hidden_dim", self.hidden_dim, 1)
        at_least("vicreg.embed_dim", self.embed_dim, 2)
        for name in ("invariance_weight", "variance_weight", "covariance_weight"):
            at_least(f"vicreg.{name}", getattr(self, name), 0)


@dataclass(frozen=True)
class SwAVConfig:
    """SwAV (Caron et al., 2020).

    Args:
        hidden_dim: Width of the hidden layer of the head.
        embed_dim: F, width of the embedding.
        num_prototypes: C.
        temperature: T of the predictions.
        sinkhorn_eps: The smaller, the harder the assignments.
        sinkhorn_steps: Steps of the Sinkhorn-Knopp algorithm.
        queue_length: Earlier embeddings that help to balance the assignments of a small batch, once there are so
            many; 0 keeps none.
        queue_starts: Share of the run after which embeddings are kept.
        prototypes_frozen: Share of the run at whose start the prototypes are not trained.
    """

    hidden_dim: int = 2048
    embed_dim: int = 128
    num_prototypes: int = 3000
    temperature: float = 0.1
    sinkhorn_eps: float = 0.05
    sinkhorn_steps: int = 3
    queue_length: int = 0
    queue_starts: float = 0.0
    prototypes_frozen: float = 0.01

    def __post_init__(self) -> None:
        at_least("swav.hidden_dim", self.hidden_dim, 1)
        at_least("swav.embed_dim", self.embed_dim, 2)
        at_least("swav.num_prototypes", self.num_prototypes, 2)
        positive("swav.temperature", self.temperature)
        positive("swav.sinkhorn_eps", self.sinkhorn_eps)
        at_least("swav.sinkhorn_steps", self.sinkhorn_steps, 1)
        at_least("swav.queue_length", self.queue_length, 0)
        share("swav.queue_starts", self.queue_starts)
        if not self.queue_length:
            at_defaults(self, "swav", ("queue_starts",), unless="swav.queue_length")
        share("swav.prototypes_frozen", self.prototypes_frozen)


@dataclass(frozen=True)
class DINOConfig:
    """DINO (Caron et al., 2021).

    Args:
        hidden_dim: Width of the two hidden layers of the head.
        embed_dim: F, width of the embedding.
        num_prototypes: C; 65536 on ImageNet.
        student_temperature: T_s.
        teacher_temperature: T_t.
        teacher_temperature_start: T_t at the start of a run, from which it moves in a line; null is T_t itself.
        teacher_temperature_warmup: Share of the run in which it does so.
        teacher_momentum: Share of the past in the teacher's weights at the start; rises to 1 along a cosine.
        centre_momentum: Share of the past in the centre.
        prototypes_frozen: Share of the run at whose start the prototypes are not trained.
    """

    hidden_dim: int = 2048
    embed_dim: int = 256
    num_prototypes: int = 4096
    student_temperature: float = 0.1
    teacher_temperature: float = 0.04
    teacher_temperature_start: float | None = None
    teacher_temperature_warmup: float = 0.0
    teacher_momentum: float = 0.996
    centre_momentum: float = 0.9
    prototypes_frozen: float = 0.01

    def __post_init__(self) -> None:
        at_least("dino.hidden_dim", self.hidden_dim, 1)
        at_least("dino.embed_dim", self.embed_dim, 2)
        at_least("dino.num_prototypes", self.num_prototypes, 2)
        positive("dino.student_temperature", self.student_temperature)
        positive("dino.teacher_temperature", self.teacher_temperature)
        share("dino.teacher_temperature_warmup", self.teacher_temperature_warmup)
        if self.teacher_temperature_start is None:
            warmup = ("teacher_temperature_warmup",)
            at_defaults(self, "dino", warmup, unless="dino.teacher_temperature_start")
        else:
            positive("dino.teacher_temperature_start", self.teacher_temperature_start)
            positive(
                "dino.teacher_temperature_warmup, which dino.teacher_temperature_start needs,",
                self.teacher_temperature_warmup,
            )
        share("dino.teacher_momentum", self.teacher_momentum)
        share("dino.centre_momentum", self.centre_momentum, below_one=True)
        share("dino.prototypes_frozen", self.prototypes_frozen)


@dataclass(frozen=True)
class SelfClassifierConfig:
    """Self-Classifier (Amrani et al., 2022).

    Args:
        hidden_dim: Width of the hidden layer of the head.
        embed_dim: F, width of the embedding.
        num_prototypes: C of every classifier; the loss is their mean.
        row_temperature: Of the softmax over classes.
        column_temperature: Of the softmax over samples.
    """

    hidden_dim: int = 2048
    embed_dim: int = 128
    num_prototypes: tuple[int, ...] = (1000,)
    row_temperature: float = 0.1
    column_temperature: float = 0.05

    def __post_init__(self) -> None:
        at_least("self_classifier.hidden_dim", self.hidden_dim, 1)
        at_least("self_classifier.embed_dim", self.embed_dim, 2)
        at_least("number of entries of self_classifier.num_prototypes", len(self.num_prototypes), 1)
        at_least("self_classifier.num_prototypes", min(self.num_prototypes), 2)
        positive("self_classifier.row_temperature", self.row_temperature)
        positive("self_classifier.column_temperature", self.column_temperature)


@dataclass(frozen=True)
class GEDIConfig:
    """GEDI (Sansone and Manhaeve, 2022).

    Args:
        hidden_dim: Width of the hidden layer of the head.
        num_prototypes: C, outputs of the head.
        temperature: T.
        beta: Weight of the invariance.
        generative: Add the energy term, with samples drawn from the model.
        energy_weight: Weight of the energy term.
        energy_temperature: T_e of the energy, which JEM has at 1.
        data_noise: Standard deviation of the noise on the images of the energy term, as in JEM.
        sgld_steps: Steps of Langevin dynamics a batch.
        sgld_step_size: Length of a step along the gradient of the energy.
        sgld_noise: Standard deviation of the noise of a step.
        buffer_size: Samples that are kept and continued.
        restart: Share of the samples that start anew instead.
    """

    hidden_dim: int = 2048
    num_prototypes: int = 2048
    temperature: float = 0.1
    beta: float = 0.1
    generative: bool = False
    energy_weight: float = 0.01
    energy_temperature: float = 1.0
    data_noise: float = 0.03
    sgld_steps: int = 20
    sgld_step_size: float = 1.0
    sgld_noise: float = 0.01
    buffer_size: int = 10_000
    restart: float = 0.05

    def __post_init__(self) -> None:
        at_least("gedi.hidden_dim", self.hidden_dim, 1)
        at_least("gedi.num_prototypes", self.num_prototypes, 2)
        positive("gedi.temperature", self.temperature)
        positive("gedi.energy_temperature", self.energy_temperature)
        for name in ("beta", "energy_weight", "data_noise", "sgld_step_size", "sgld_noise"):
            at_least(f"gedi.{name}", getattr(self, name), 0)
        at_least("gedi.sgld_steps", self.sgld_steps, 1)
        at_least("gedi.buffer_size", self.buffer_size, 1)
        share("gedi.restart", self.restart)
        if not self.generative:
            energy = ("energy_weight", "energy_temperature", "data_noise", "buffer_size", "restart")
            sgld = ("sgld_steps", "sgld_step_size", "sgld_noise")
            at_defaults(self, "gedi", (*energy, *sgld), unless="gedi.generative=true")


@dataclass(frozen=True)
class LeJEPAConfig:
    """LeJEPA (Balestriero and LeCun, 2025).

    Args:
        hidden_dim: Width of the two hidden layers of the head.
        embed_dim: F, width of the embedding.
        regularisation: lambda, weight of SIGReg against the prediction.
        num_directions: Random directions of a step.
    """

    hidden_dim: int = 2048
    embed_dim: int = 128
    regularisation: float = 0.05
    num_directions: int = 1024

    def __post_init__(self) -> None:
        at_least("lejepa.hidden_dim", self.hidden_dim, 1)
        at_least("lejepa.embed_dim", self.embed_dim, 2)
        share("lejepa.regularisation", self.regularisation)
        at_least("lejepa.num_directions", self.num_directions, 1)
