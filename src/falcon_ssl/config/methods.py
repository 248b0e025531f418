"""Options of every method; defaults are the papers', at the scale of CIFAR."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from falcon_ssl.config.bounds import Options, option


@dataclass(frozen=True)
class MethodConfig(Options, group=""):
    """Base of the options of a method; its group is the method's name."""

    takes_small_views: ClassVar[bool] = False  # after two large ones
    takes_many_views: ClassVar[bool] = False  # any number of large ones


@dataclass(frozen=True)
class FalconConfig(MethodConfig, group="falcon"):
    """FALCON, arXiv 2410.04959: dictionary, projector and loss."""

    takes_small_views = True
    takes_many_views = True

    dictionary: Literal["rademacher", "hadamard", "complete"] = option(
        "complete",
        "complete (all 2^F codes in closed form), rademacher (the paper's independent random signs) or hadamard (a "
        "tight frame with fast transforms).",
    )
    num_codes: int = option(
        4096,
        "C, codes in the dictionary.",
        at_least=2,
        needs="dictionary=rademacher|hadamard",
    )
    embed_dim: int = option(512, "F, width of the embedding.", at_least=1)
    dictionary_seed: int = option(0, "Seed of the codes.", at_least=0, below=2**63)
    epsilon: float | None = option(
        None,
        "Probability of every code but the aligned one, in (0, 1/C); states how sharp assignments are.",
    )
    temperature: float | None = option(
        None,
        "The same, stated as effective temperature F / logit_scale^2; give one of the two, or neither for a "
        "temperature of 0.25 (the paper: epsilon = 1e-8, which is 0.38 at F = 128).",
    )
    beta: float = option(0.5, "Weight of the invariance term; the paper's is 1.", at_least=0)
    prior_matching: Literal["reverse", "forward", "renyi2"] | None = option(
        None,
        "reverse KL(marginal || prior), forward cross-entropy, or renyi2; null is reverse, and renyi2 (closed form) "
        "for the complete dictionary.",
    )
    prior_exponent: float = option(
        0.0, "The prior is proportional to rank^-exponent; 0 is uniform.", at_least=0
    )
    num_targets: int | None = option(
        None,
        "Views that are targets of all others, the first ones; null: the large views. 1 of two views is the paper's "
        "one-directional formula.",
        at_least=1,
    )
    places: bool = option(
        False,
        "Every place of the encoder's last map is embedded on its own and compared with all places of the other views.",
    )
    marginal: Literal["separate", "pooled"] = option(
        "separate",
        "separate: one marginal for each target view; pooled: one for all, renyi2 of the complete dictionary then over "
        "pairs of different images alone.",
    )
    kernel_order: int | None = option(
        3,
        "Odd number of terms of the logarithm in the complete dictionary's renyi2: 3 is three products; null is exact, "
        "and slow on a CPU.",
        at_least=1,
        needs="dictionary=complete",
    )
    kernel_places: int | None = option(
        None,
        "How many of a view's places enter the complete dictionary's renyi2, other ones for every image; null is all.",
        at_least=1,
        needs="places=true",
    )
    hidden_dim: int = option(
        0, "Width of a hidden layer of the projector; 0 is none, as in the paper.", at_least=0
    )
    view_norm: Literal["joint", "separate"] = option(
        "joint",
        "Batch statistics of the projector: joint, of all views together; separate, of each view, as in the authors' "
        "code.",
    )
    embedding_norm: Literal["l2", "tanh"] = option(
        "l2", "l2 (the paper), or tanh as in the authors' released code."
    )
    affine: bool = option(
        False,
        "Learn scale and shift of the projector's batch normalization; measured worse, see docs/theory.md.",
    )
    marginal_momentum: float = option(
        0.0,
        "Momentum (decay) of the running average of the marginal; 0 uses the current batch alone.",
        at_least=0,
        below=1,
    )
    backend: Literal["auto", "reference", "dense", "chunked", "triton"] = option(
        "auto", "How the loss is computed; auto chooses by size."
    )
    input_precision: Literal["bf16x3", "tf32", "ieee"] = option(
        "bf16x3",
        "How the triton back end multiplies float32 embeddings: bf16x3 (tensor cores, exact with codes of +-1), tf32 "
        "(tensor cores, 11 significant bits) or ieee (no tensor cores).",
        needs="backend=auto|triton",
    )


@dataclass(frozen=True)
class BarlowTwinsConfig(MethodConfig, group="barlow_twins"):
    """Barlow Twins (Zbontar et al., 2021, arXiv 2103.03230)."""

    hidden_dim: int = option(2048, "Width of the two hidden layers of the head.", at_least=1)
    embed_dim: int = option(2048, "F, width of the embedding.", at_least=2)
    redundancy_weight: float = option(
        5e-3, "lambda, weight of the off-diagonal correlations.", at_least=0
    )


@dataclass(frozen=True)
class VICRegConfig(MethodConfig, group="vicreg"):
    """VICReg (Bardes et al., 2022, arXiv 2105.04906)."""

    hidden_dim: int = option(2048, "Width of the two hidden layers of the head.", at_least=1)
    embed_dim: int = option(2048, "F, width of the embedding.", at_least=2)
    invariance_weight: float = option(25.0, "lambda, weight of the mean square.", at_least=0)
    variance_weight: float = option(25.0, "mu, weight of the hinge on variances.", at_least=0)
    covariance_weight: float = option(
        1.0, "nu, weight of the off-diagonal covariances.", at_least=0
    )


@dataclass(frozen=True)
class SwAVConfig(MethodConfig, group="swav"):
    """SwAV (Caron et al., 2020, arXiv 2006.09882)."""

    takes_small_views = True

    hidden_dim: int = option(2048, "Width of the hidden layer of the head.", at_least=1)
    embed_dim: int = option(128, "F, width of the embedding.", at_least=2)
    num_prototypes: int = option(3000, "C.", at_least=2)
    temperature: float = option(0.1, "T of the predictions.", above=0)
    sinkhorn_eps: float = option(0.05, "The smaller, the harder the assignments.", above=0)
    sinkhorn_steps: int = option(3, "Iterations of the Sinkhorn-Knopp algorithm.", at_least=1)
    queue_length: int = option(
        0,
        "Earlier embeddings that help to balance the assignments of a small batch, once the queue is full; 0 is no "
        "queue.",
        at_least=0,
    )
    queue_starts: float = option(
        0.0,
        "Fraction of the run after which embeddings are queued.",
        at_least=0,
        at_most=1,
        needs="queue_length",
    )
    prototypes_frozen: float = option(
        0.01,
        "Fraction of the run, from its start, in which the prototypes are frozen.",
        at_least=0,
        at_most=1,
    )


@dataclass(frozen=True)
class SelfClassifierConfig(MethodConfig, group="self_classifier"):
    """Self-Classifier (Amrani et al., 2022, arXiv 2103.10994)."""

    takes_small_views = True
    takes_many_views = True

    hidden_dim: int = option(2048, "Width of the hidden layer of the head.", at_least=1)
    embed_dim: int = option(128, "F, width of the embedding.", at_least=2)
    num_prototypes: tuple[int, ...] = option(
        (1000,), "C of every classifier; the loss is their mean.", at_least=2
    )
    row_temperature: float = option(0.1, "Of the softmax over classes.", above=0)
    column_temperature: float = option(0.05, "Of the softmax over samples.", above=0)


@dataclass(frozen=True)
class GEDIConfig(MethodConfig, group="gedi"):
    """GEDI (Sansone and Manhaeve, 2022, arXiv 2212.13425)."""

    takes_small_views = True
    takes_many_views = True

    hidden_dim: int = option(2048, "Width of the hidden layer of the head.", at_least=1)
    num_prototypes: int = option(2048, "C, outputs of the head.", at_least=2)
    temperature: float = option(0.1, "T of the assignments.", above=0)
    beta: float = option(0.1, "Weight of the invariance term.", at_least=0)
    generative: bool = option(False, "Add the energy term, with samples drawn from the model.")
    energy_weight: float = option(
        0.01, "Weight of the energy term.", at_least=0, needs="generative=true"
    )
    energy_temperature: float = option(
        1.0, "T_e of the energy, which JEM has at 1.", above=0, needs="generative=true"
    )
    data_noise: float = option(
        0.03,
        "Standard deviation of the noise on the images of the energy term, as in JEM.",
        at_least=0,
        needs="generative=true",
    )
    sgld_steps: int = option(
        20, "Steps of Langevin dynamics a batch.", at_least=1, needs="generative=true"
    )
    sgld_step_size: float = option(
        1.0, "Factor of the gradient of the energy in a step.", at_least=0, needs="generative=true"
    )
    sgld_noise: float = option(
        0.01, "Standard deviation of the noise of a step.", at_least=0, needs="generative=true"
    )
    buffer_size: int = option(
        10_000, "Samples in the replay buffer.", at_least=1, needs="generative=true"
    )
    restart: float = option(
        0.05,
        "Probability that a sample is reinitialized instead of continued.",
        at_least=0,
        at_most=1,
        needs="generative=true",
    )


@dataclass(frozen=True)
class DINOConfig(MethodConfig, group="dino"):
    """DINO (Caron et al., 2021, arXiv 2104.14294)."""

    takes_small_views = True

    hidden_dim: int = option(2048, "Width of the two hidden layers of the head.", at_least=1)
    embed_dim: int = option(256, "F, width of the embedding.", at_least=2)
    num_prototypes: int = option(4096, "C; 65536 on ImageNet.", at_least=2)
    student_temperature: float = option(0.1, "T_s.", above=0)
    teacher_temperature: float = option(0.04, "T_t.", above=0)
    teacher_temperature_start: float | None = option(
        None,
        "T_t at the start of the run, warmed up linearly to T_t; null: no warm-up.",
        above=0,
        needs="teacher_temperature_warmup",
    )
    teacher_temperature_warmup: float = option(
        0.0,
        "Fraction of the run in which T_t is warmed up.",
        at_least=0,
        at_most=1,
        needs="teacher_temperature_start",
    )
    teacher_momentum: float = option(
        0.996,
        "Momentum (decay) of the running average of the student that the teacher is; increases to 1 along a cosine.",
        at_least=0,
        at_most=1,
    )
    center_momentum: float = option(
        0.9,
        "Momentum (decay) of the running average of the center.",
        at_least=0,
        below=1,
    )
    prototypes_frozen: float = option(
        0.01,
        "Fraction of the run, from its start, in which the prototypes are frozen.",
        at_least=0,
        at_most=1,
    )


@dataclass(frozen=True)
class LeJEPAConfig(MethodConfig, group="lejepa"):
    """LeJEPA (Balestriero and LeCun, 2025, arXiv 2511.08544)."""

    takes_small_views = True

    hidden_dim: int = option(2048, "Width of the two hidden layers of the head.", at_least=1)
    embed_dim: int = option(128, "F, width of the embedding.", at_least=2)
    regularization: float = option(
        0.05, "lambda, weight of SIGReg against the prediction.", at_least=0, at_most=1
    )
    num_directions: int = option(1024, "Random directions of a step.", at_least=1)
    integration_limit: float = option(
        5.0, "SIGReg compares characteristic functions up to this t.", above=0
    )
    num_points: int = option(
        9,
        "Points of the quadrature from 0 to there; more where embeddings are wider than about 4, see docs/methods.md.",
        at_least=2,
    )


@dataclass(frozen=True)
class SimCLRConfig(MethodConfig, group="simclr"):
    """SimCLR (Chen et al., 2020, arXiv 2002.05709)."""

    hidden_dim: int = option(2048, "Width of the hidden layer of the head.", at_least=1)
    embed_dim: int = option(128, "F, width of the embedding.", at_least=2)
    temperature: float = option(
        0.5, "T; the smaller, the more the nearest negatives count.", above=0
    )


@dataclass(frozen=True)
class BYOLConfig(MethodConfig, group="byol"):
    """BYOL (Grill et al., 2020, arXiv 2006.07733)."""

    hidden_dim: int = option(
        2048, "Width of the hidden layers of head and predictor; 4096 on ImageNet.", at_least=1
    )
    embed_dim: int = option(256, "F, width of the embedding.", at_least=2)
    target_momentum: float = option(
        0.99,
        "Momentum (decay) of the running average of the online network that the target is; increases to 1 along a "
        "cosine. The paper's is 0.996 for 1000 epochs and 0.99 for 300.",
        at_least=0,
        at_most=1,
    )
