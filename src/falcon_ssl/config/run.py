"""Every option of a run, its default and its meaning, in one place.

Frozen dataclasses: what a run was told is what its `config.yaml` says. They are checked when they are made, before any
work is done; an unknown key is an error.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from falcon_ssl.config.bounds import at_defaults, at_least, positive
from falcon_ssl.config.mapping import build
from falcon_ssl.config.methods import (
    METHODS,
    BarlowTwinsConfig,
    DINOConfig,
    GEDIConfig,
    LeJEPAConfig,
    MethodName,
    SelfClassifierConfig,
    SwAVConfig,
    VICRegConfig,
    check_method,
)
from falcon_ssl.core.errors import InputError


@dataclass(frozen=True)
class ReadingConfig:
    """How images are read.

    Args:
        image_size: Side of the square that images are resized and cropped to; null keeps their own size, which
            must then be the same for all.
        in_memory: Whether to decode all images at the start; null decides by the free memory.
        stream: Read parquet files or hub sets piece by piece, for sets larger than memory and disk.
        folder_labels: Whether the folders of folder:PATH name classes (only evaluation reads them).
        holdout: Share of the training images to hold out for evaluation when there is no test part.
        max_unreadable: Largest share of unreadable images that is tolerated; they are listed in skipped.txt.
    """

    image_size: int | None = None
    in_memory: bool | None = None
    stream: bool = False
    folder_labels: bool = False
    holdout: float = 0.0
    max_unreadable: float = 0.01


@dataclass(frozen=True)
class ViewsConfig:
    """Augmentations: what two views of an image may differ in.

    Args:
        preset: digits, grayscale, cifar or imagenet; auto chooses by the data and writes its choice into config.yaml.
        size: Side of the large views; null is the preset's own.
        start_size: Side of the large views when training begins; it grows to ``size`` by 4 pixels at a time. null: no
            growth.
        scale: Smallest and largest share of the image that a large crop shows; null is the preset's own.
        symmetric: Draw both large views alike, instead of solarising one more than the other.
        small_views: Number of small crops after the two large ones, for methods that take several.
        small_size: Side of the small crops.
        evaluate_size: Side at which images are judged and embedded; null is the side of the large views.
    """

    preset: str = "auto"
    size: int | None = None
    start_size: int | None = None
    scale: tuple[float, float] | None = None
    symmetric: bool = False
    small_views: int = 0
    small_size: int | None = None
    evaluate_size: int | None = None


@dataclass(frozen=True)
class EncoderConfig:
    """The network g from images to representations.

    Args:
        name: digits_cnn, resnet8, resnet10, resnet18, resnet50 or timm:NAME; auto chooses by the data and writes its
            choice into config.yaml.
        width: Channels of the first stage; null is the encoder's own default.
        stem: cifar (keeps the resolution), half or imagenet (a quarter), for resnet10, resnet18 and resnet50.
        stages: How many of their four stages to build, for small images on a CPU; null is all.
        patch_size: Side of a patch, for vision transformers.
        drop_path: Rate of stochastic depth, for timm models.
    """

    name: str = "auto"
    width: int | None = None
    stem: Literal["cifar", "half", "imagenet"] | None = None
    stages: int | None = None
    patch_size: int | None = None
    drop_path: float | None = None


@dataclass(frozen=True)
class FalconConfig:
    """The method: dictionary, projector and loss.

    Args:
        dictionary: rademacher (the paper's independent random signs), hadamard (a tight frame with fast transforms) or
            complete (all 2^F codes in closed form).
        num_codes: C, codes in the dictionary; not used by the complete dictionary.
        embed_dim: F, width of the embedding.
        dictionary_seed: Seed of the codes.
        epsilon: Probability of every code but the aligned one, in (0, 1/C); states how sharp assignments are.
        temperature: The same, stated as effective temperature F / logit_scale^2; give one of the two, or neither for
            epsilon = 1e-8 (complete dictionary: temperature 0.38).
        beta: Weight of the invariance term.
        prior_matching: reverse KL(marginal || prior), forward cross-entropy, or renyi2; null is reverse, and
            renyi2 (closed form) for the complete dictionary.
        prior_exponent: The prior is proportional to rank^-exponent; 0 is uniform.
        symmetric: Average both orders of the views; false is the paper's one-directional formula.
        embedding_norm: l2 (the paper), or tanh as in the authors' released code.
        affine: Learn scale and shift of the projector's batch normalisation; measured worse, see docs/theory.md.
        marginal_momentum: Share of the past in a running marginal; 0 uses the current batch alone.
        backend: How the loss is computed; auto chooses by size.
    """

    dictionary: Literal["rademacher", "hadamard", "complete"] = "rademacher"
    num_codes: int = 4096
    embed_dim: int = 128
    dictionary_seed: int = 0
    epsilon: float | None = None
    temperature: float | None = None
    beta: float = 1.0
    prior_matching: Literal["reverse", "forward", "renyi2"] | None = None
    prior_exponent: float = 0.0
    symmetric: bool = True
    embedding_norm: Literal["l2", "tanh"] = "l2"
    affine: bool = False
    marginal_momentum: float = 0.0
    backend: Literal["auto", "reference", "dense", "chunked", "triton"] = "auto"

    def __post_init__(self) -> None:
        at_least("falcon.num_codes", self.num_codes, 2)
        at_least("falcon.embed_dim", self.embed_dim, 1)
        at_least("falcon.dictionary_seed", self.dictionary_seed, 0)
        at_least("falcon.beta", self.beta, 0)
        at_least("falcon.prior_exponent", self.prior_exponent, 0)
        at_least("falcon.marginal_momentum", self.marginal_momentum, 0)


@dataclass(frozen=True)
class OptimConfig:
    """The optimizer, with warm-up and cosine decay of its rate; norms and biases are not decayed.

    Args:
        name: adamw, or lars, which moves every matrix by a share of its length.
        lr: Peak learning rate, for the batch size as it is (no hidden scaling).
        final_lr: Learning rate at the end, as a share of the peak.
        warmup_epochs: Linear warm-up from zero, in epochs; may be a fraction.
        weight_decay: Weight decay of matrices and kernels; decoupled from the gradient with adamw.
        weight_decay_end: What it becomes until the end, along a cosine; null keeps it.
        trust: lars: the share of its length by which a matrix moves at a learning rate of 1.
        clip_trust: lars: take that share itself where it is below the learning rate, and the learning rate elsewhere.
        clip_norm: Largest norm of the gradient; 0 does not clip.
    """

    name: Literal["adamw", "lars"] = "adamw"
    lr: float = 2e-3
    final_lr: float = 0.0
    warmup_epochs: float = 1.0
    weight_decay: float = 1e-4
    weight_decay_end: float | None = None
    trust: float = 1e-3
    clip_trust: bool = False
    clip_norm: float = 5.0

    def __post_init__(self) -> None:
        if not self.lr > 0:
            raise InputError(
                "optim.lr is not positive", received=self.lr, expected="> 0", fix="try 2e-3"
            )
        for name in ("final_lr", "warmup_epochs", "weight_decay", "weight_decay_end", "clip_norm"):
            at_least(f"optim.{name}", getattr(self, name) or 0, 0)
        positive("optim.trust", self.trust)
        if self.name != "lars":
            at_defaults(self, "optim", ("trust", "clip_trust"), unless="optim.name=lars")


@dataclass(frozen=True)
class EngineConfig:
    """How a run is executed; nothing here changes what is computed beyond rounding.

    Args:
        device: auto (CUDA, then the CPU), cpu or cuda.
        precision: no (float32), bf16 or fp16 autocast; auto takes bf16 where the device multiplies it in hardware, but
            for the tiny digits_cnn, and writes its choice into config.yaml.
        log_every: Steps between two lines of metrics.jsonl.
        checkpoint_every: Epochs between two checkpoints; the last epoch always has one.
        channels_last: Memory format of the convolutions; measured faster on CPUs and GPUs.
        compile: torch.compile the encoder.
        cuda_graphs: Compile the encoder and replay its kernels from a recording: for small networks on a GPU, whose
            kernels are shorter than their launches.
        trackers: Further places to log to, of Accelerate: tensorboard, wandb.
    """

    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "no", "bf16", "fp16"] = "auto"
    log_every: int = 5
    checkpoint_every: int = 1
    channels_last: bool = True
    compile: bool = False
    cuda_graphs: bool = False
    trackers: tuple[Literal["tensorboard", "wandb"], ...] = ()

    def __post_init__(self) -> None:
        at_least("engine.log_every", self.log_every, 1)
        at_least("engine.checkpoint_every", self.checkpoint_every, 1)
        if self.cuda_graphs and self.device == "cpu":
            raise InputError(
                "engine.cuda_graphs needs a GPU",
                received="engine.device=cpu",
                expected="cuda or auto",
                fix="leave it out",
            )


@dataclass(frozen=True)
class MonitorConfig:
    """What watches a run while it trains.

    Args:
        on_collapse: warn writes an alarm and goes on; stop ends the run at the first alarm.
        patience: Steps on end that something must look wrong before an alarm is given.
        every_epochs: Epochs between two looks at held-out images (kNN, RankMe); 0 never looks.
        linear: Whether these looks fit a linear probe too.
    """

    on_collapse: Literal["warn", "stop"] = "warn"
    patience: int = 200
    every_epochs: int = 5
    linear: bool = False

    def __post_init__(self) -> None:
        at_least("monitor.patience", self.patience, 0)
        at_least("monitor.every_epochs", self.every_epochs, 0)


@dataclass(frozen=True)
class EvaluationConfig:
    """How a frozen encoder is judged.

    Args:
        batch_size: Images a forward pass when features are extracted.
        knn_neighbours: k of the nearest-neighbour classifier.
        knn_temperature: T of its weights exp(cosine / T).
        seed: Seed of k-means, permutations and held-out splits.
    """

    batch_size: int = 512
    knn_neighbours: int = 20
    knn_temperature: float = 0.07
    seed: int = 0

    def __post_init__(self) -> None:
        at_least("evaluation.batch_size", self.batch_size, 1)
        at_least("evaluation.knn_neighbours", self.knn_neighbours, 1)
        at_least("evaluation.seed", self.seed, 0)


@dataclass(frozen=True)
class RunConfig:
    """A whole run: what `config.yaml` holds.

    Args:
        data: digits, folder:PATH, parquet:DIR or hf:NAME.
        epochs: Passes over the training images.
        batch_size: Images of a step, over all devices together.
        seed: Seed of initialisation, order and augmentations.
        method: What is trained.
        reading: How images are read.
        views: Augmentations.
        encoder: The network.
        falcon: Options of the method falcon; those of a method that is not trained must be left at their defaults.
        barlow_twins: Options of the method barlow_twins.
        vicreg: Options of the method vicreg.
        swav: Options of the method swav.
        self_classifier: Options of the method self_classifier.
        gedi: Options of the method gedi.
        dino: Options of the method dino.
        lejepa: Options of the method lejepa.
        optim: Optimizer and schedule.
        engine: Device, precision, logging, checkpoints.
        monitor: What watches the run while it trains.
        evaluation: How the result is judged.
    """

    data: str = "digits"
    epochs: int = 30
    batch_size: int = 256
    seed: int = 0
    method: MethodName = "falcon"
    reading: ReadingConfig = field(default_factory=ReadingConfig)
    views: ViewsConfig = field(default_factory=ViewsConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    falcon: FalconConfig = field(default_factory=FalconConfig)
    barlow_twins: BarlowTwinsConfig = field(default_factory=BarlowTwinsConfig)
    vicreg: VICRegConfig = field(default_factory=VICRegConfig)
    swav: SwAVConfig = field(default_factory=SwAVConfig)
    self_classifier: SelfClassifierConfig = field(default_factory=SelfClassifierConfig)
    gedi: GEDIConfig = field(default_factory=GEDIConfig)
    dino: DINOConfig = field(default_factory=DINOConfig)
    lejepa: LeJEPAConfig = field(default_factory=LeJEPAConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    monitor: MonitorConfig = field(default_factory=MonitorConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)

    def __post_init__(self) -> None:
        at_least("epochs", self.epochs, 1)
        at_least("batch_size", self.batch_size, 2)
        at_least("seed", self.seed, 0)
        if self.optim.warmup_epochs > self.epochs:
            raise InputError(
                "the warm-up is longer than the run",
                received=f"optim.warmup_epochs={self.optim.warmup_epochs}",
                expected=f"at most epochs={self.epochs}",
                fix="shorten the warm-up",
            )
        check_method(
            self.method,
            {group: getattr(self, group) for group in METHODS},
            small_views=self.views.small_views,
            batch_size=self.batch_size,
        )


def to_mapping(config: RunConfig) -> dict[str, Any]:
    """The configuration as nested plain values, ready for YAML.

    Options of the methods that are not trained are at their defaults and left out.
    """

    def plain(value: object) -> object:
        if isinstance(value, Mapping):
            return {key: plain(item) for key, item in value.items()}
        return list(value) if isinstance(value, tuple) else value

    return {
        key: plain(value)
        for key, value in dataclasses.asdict(config).items()
        if key not in METHODS or key == config.method
    }


def from_mapping(values: Mapping[str, Any]) -> RunConfig:
    """The inverse of `to_mapping`.

    Raises:
        InputError: An unknown key (named with its path), a group that is not a mapping, or a value out of range.
    """
    config: RunConfig = build(RunConfig, values)
    return config
