"""Every option of a run, its default, its bounds and its meaning, in one place.

Frozen dataclasses: what a run was given is what its `config.yaml` says. They are checked when they are made, before any
work is done; an unknown key is an error.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from falcon_ssl.config import methods
from falcon_ssl.config.bounds import Options, option
from falcon_ssl.config.encoder import EncoderConfig, InitConfig
from falcon_ssl.config.engine import EngineConfig
from falcon_ssl.config.evaluation import EvaluationConfig, MonitorConfig
from falcon_ssl.config.mapping import build
from falcon_ssl.core.checks import check_choice
from falcon_ssl.core.errors import InputError
from falcon_ssl.core.parts import is_part


@dataclass(frozen=True)
class ReadingConfig(Options, group="reading"):
    """How images are read."""

    image_size: int | None = option(
        None,
        "Side of the square that images are resized and cropped to; null keeps a size that all share, and brings "
        "images of several sizes to 128, or to a smaller one where half of them are smaller.",
        at_least=1,
    )
    channels: int | None = option(
        None,
        "Channels of the images: 1 is gray, 3 color, others the bands of TIFF files; null decides by what Pillow sees.",
        at_least=1,
        at_most=16,
    )
    keep_16bit: bool = option(
        False,
        "Keep 16 bits of gray images and of all bands of TIFF files, not the upper 8 of them.",
    )
    value_range: tuple[float, float] | None = option(
        None,
        "Pixel values that stand for 0 and 1, for example [0,4095] of a camera of 12 bits; null is the range of the "
        "files' type.",
    )
    in_memory: bool | None = option(
        None, "Whether to decode all images at the start; null decides by the free memory."
    )
    stream: bool = option(
        False,
        "Read parquet files, tar files or hub sets piece by piece, for sets larger than memory and disk.",
    )
    folder_labels: bool = option(
        False, "Whether the folders of folder:PATH name classes (only evaluation reads them)."
    )
    holdout: float = option(
        0.0,
        "Fraction of the training images to hold out and evaluate on; a test part, if there is one, is then not read.",
        at_least=0,
        below=1,
    )
    max_unreadable: float = option(
        0.01,
        "Largest fraction of unreadable images that is tolerated; they are listed in skipped.txt.",
        at_least=0,
        at_most=1,
    )
    max_megapixels: float = option(
        64.0,
        "Largest image that is decoded, in million pixels (JPEGs are decoded smaller): others count as unreadable.",
        above=0,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.value_range is not None and not self.value_range[0] < self.value_range[1]:
            raise InputError(
                "reading.value_range is empty",
                received=list(self.value_range),
                expected="[LOW, HIGH] with LOW < HIGH",
            )


@dataclass(frozen=True)
class ViewsConfig(Options, group="views"):
    """Augmentations: what two views of an image may differ in."""

    preset: str = option(
        "auto",
        "digits, grayscale, cifar, imagenet, bands or python:MODULE:FUNCTION; auto chooses by the data and writes its "
        "choice into config.yaml.",
    )
    count: int = option(
        2, "Number of large views; more than two for methods that take many views.", at_least=2
    )
    size: int | None = option(
        None, "Side of the large views; null is the preset's own.", at_least=1
    )
    start_size: int | None = option(
        None,
        "Side of the large views when training begins; it grows to ``size`` by 4 pixels at a time. null: no growth.",
        at_least=1,
    )
    scale: tuple[float, float] | None = option(
        None,
        "Smallest and largest fraction of the image's area in a large crop; null is the preset's own.",
    )
    patches: bool = option(
        False,
        "Crops keep the image's own resolution: squares of ``size`` (and ``small_size``) pixels that are not resized.",
    )
    symmetric: bool = option(
        False,
        "Draw all large views from one distribution, instead of solarizing every second one more often.",
    )
    mean: tuple[float, ...] | None = option(
        None,
        "Mean of the pixels, in [0, 1], that is subtracted: one a channel, or one for all; null is the preset's own, "
        "measured on the images for bands and 16 bits.",
        at_least=0,
        at_most=1,
    )
    std: tuple[float, ...] | None = option(
        None, "Standard deviation that is divided by, likewise.", above=0
    )
    small_views: int = option(
        0,
        "Number of small crops after the large ones, for methods that take several.",
        at_least=0,
    )
    small_size: int | None = option(
        None, "Side of the small crops.", at_least=1, needs="small_views"
    )
    evaluate_size: int | None = option(
        None,
        "Side at which images are evaluated and embedded; null is the side of the large views.",
        at_least=1,
    )


class OptimizerFacts(NamedTuple):
    """What differs between optimizers and is not an option.

    Args:
        lr: Peak learning rate where none is given.
        moments: Numbers that are kept of every parameter.
    """

    lr: float
    moments: int


OPTIMIZERS: Mapping[str, OptimizerFacts] = {
    "muon": OptimizerFacts(lr=2e-2, moments=1),
    "adamw": OptimizerFacts(lr=2e-3, moments=2),
    "adam": OptimizerFacts(lr=2e-3, moments=2),
    "lars": OptimizerFacts(lr=0.3, moments=1),
}


@dataclass(frozen=True)
class OptimConfig(Options, group="optim"):
    """The optimizer and the schedule of its learning rate; norms and biases are not decayed."""

    name: Literal["muon", "adamw", "adam", "lars"] = option(
        "muon",
        "muon, which orthogonalizes the step of every matrix and kernel; adamw; adam, whose weight decay is part of "
        "the gradient; or lars, which scales the step by a trust ratio.",
    )
    lr: float | None = option(
        None,
        "Peak learning rate, for the batch size as it is (no hidden scaling); null: "
        f"{', '.join(f'{facts.lr:g} with {name}' for name, facts in OPTIMIZERS.items())}.",
        above=0,
    )
    lr_rest: float = option(
        2e-3,
        "muon: peak learning rate of AdamW, for norms, biases, prototypes and the last layer.",
        above=0,
        needs="name=muon",
    )
    newton_schulz: int = option(
        5, "muon: steps of the iteration that orthogonalizes.", at_least=1, needs="name=muon"
    )
    block_rows: int | None = option(
        None,
        "muon: rows of a matrix that are orthogonalized together, each block alone; null is all. Costs less for wide "
        "layers.",
        at_least=1,
        needs="name=muon",
    )
    schedule: Literal["cosine", "linear"] = option(
        "cosine", "How the learning rate falls from its peak, after the warm-up."
    )
    final_lr: float = option(
        0.0, "Learning rate at the end, as a fraction of the peak.", at_least=0
    )
    warmup_epochs: float = option(
        1.0, "Epochs of linear warm-up from zero; may be fractional.", at_least=0
    )
    weight_decay: float = option(
        1e-4,
        "Weight decay of matrices and kernels; decoupled from the gradient with adamw and muon.",
        at_least=0,
    )
    weight_decay_end: float | None = option(
        None, "Weight decay at the end, reached along a cosine; null keeps it.", at_least=0
    )
    trust: float = option(1e-3, "lars: the trust coefficient.", above=0, needs="name=lars")
    clip_trust: bool = option(
        False, "lars: clip the learning rate of a matrix at lr (LARC).", needs="name=lars"
    )
    clip_norm: float = option(5.0, "Largest norm of the gradient; 0 does not clip.", at_least=0)

    @property
    def peak_lr(self) -> float:
        """The learning rate, the optimizer's own where none is given."""
        return OPTIMIZERS[self.name].lr if self.lr is None else self.lr


@dataclass(frozen=True)
class RunConfig(Options, group=""):
    """A whole run: what `config.yaml` holds."""

    data: str = option(
        "digits",
        "digits, folder:PATH, parquet:DIR, tar:PATH, hf:NAME or python:MODULE:FUNCTION; several of the middle four are "
        'read as one set: --data folder:A folder:B, in YAML "folder:A + folder:B".',
    )
    epochs: int = option(30, "Passes over the training images.", at_least=1)
    batch_size: int = option(256, "Images of a step, over all devices together.", at_least=2)
    seed: int = option(
        0, "Seed of initialization, order and augmentations.", at_least=0, below=2**63
    )
    method: str = option(
        "falcon",
        "falcon, barlow_twins, vicreg, swav, self_classifier, gedi, dino, lejepa, simclr, byol, or "
        "python:MODULE:FUNCTION; options of the other methods must be at their defaults.",
    )
    reading: ReadingConfig = field(default_factory=ReadingConfig)
    views: ViewsConfig = field(default_factory=ViewsConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    init: InitConfig = field(default_factory=InitConfig)
    # The registry: every method, by its name.
    falcon: methods.FalconConfig = field(default_factory=methods.FalconConfig)
    barlow_twins: methods.BarlowTwinsConfig = field(default_factory=methods.BarlowTwinsConfig)
    vicreg: methods.VICRegConfig = field(default_factory=methods.VICRegConfig)
    swav: methods.SwAVConfig = field(default_factory=methods.SwAVConfig)
    self_classifier: methods.SelfClassifierConfig = field(
        default_factory=methods.SelfClassifierConfig
    )
    gedi: methods.GEDIConfig = field(default_factory=methods.GEDIConfig)
    dino: methods.DINOConfig = field(default_factory=methods.DINOConfig)
    lejepa: methods.LeJEPAConfig = field(default_factory=methods.LeJEPAConfig)
    simclr: methods.SimCLRConfig = field(default_factory=methods.SimCLRConfig)
    byol: methods.BYOLConfig = field(default_factory=methods.BYOLConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    monitor: MonitorConfig = field(default_factory=MonitorConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.optim.warmup_epochs > self.epochs:
            raise InputError(
                "the warm-up is longer than the run",
                received=f"optim.warmup_epochs={self.optim.warmup_epochs}",
                expected=f"at most epochs={self.epochs}",
            )
        if not is_part(self.method):
            check_choice("method", self.method, METHODS)
        for name in METHODS:
            group = getattr(self, name)
            if name != self.method and (changed := group.changed()):
                raise InputError(
                    f"{name}.{changed[0]} does not apply to the method {self.method}",
                    received=getattr(group, changed[0]),
                    expected=f"options of {self.method} alone",
                    fix=f"train with method={name}, or leave the option out",
                )
        more_views = {
            "takes_small_views": ("small_views", self.views.small_views),
            "takes_many_views": ("count", self.views.count - 2),
        }
        for takes_them, (name, more) in more_views.items():
            if more and not getattr(getattr(self, self.method, None), takes_them, True):
                takers = [
                    method for method in METHODS if getattr(getattr(self, method), takes_them)
                ]
                raise InputError(
                    f"the method {self.method} takes two {'' if name == 'small_views' else 'large '}views",
                    received=f"views.{name}={getattr(self.views, name)}",
                    expected=f"more of them with {', '.join(takers)} alone",
                )
        num_views = self.views.count + self.views.small_views
        if self.method == "falcon" and (self.falcon.num_targets or 1) > num_views:
            raise InputError(
                "falcon.num_targets is larger than the number of views",
                received=self.falcon.num_targets,
                expected=f"at most {num_views}: views.count={self.views.count} and "
                f"views.small_views={self.views.small_views}",
            )
        if self.falcon.places and self.views.small_views:
            raise InputError(
                "falcon.places takes no small crops, whose last map has fewer places",
                received=f"views.small_views={self.views.small_views}",
                expected="large views alone",
                fix="leave out one of the two; views.count adds large views",
            )
        if self.engine.accumulate > self.batch_size:
            raise InputError(
                "engine.accumulate is larger than the batch",
                received=self.engine.accumulate,
                expected=f"at most batch_size={self.batch_size}",
            )
        if self.engine.accumulate > 1 and self.gedi.generative:
            raise InputError(
                "gedi.generative takes its batch in one piece: its samples move by gradients of their own",
                received=f"engine.accumulate={self.engine.accumulate}",
                expected="1",
                fix="leave one of the two out",
            )
        if self.engine.shard and (self.gedi.generative or self.falcon.places):
            name = "gedi.generative" if self.gedi.generative else "falcon.places"
            raise InputError(
                f"engine.shard does not fit {name}, which uses parts of the encoder or gradients of its own",
                received="both",
                expected="one of them",
            )
        if self.gedi.generative and self.gedi.buffer_size < self.batch_size:
            raise InputError(
                "gedi.buffer_size is smaller than the batch",
                received=self.gedi.buffer_size,
                expected=f"at least batch_size={self.batch_size}",
            )


METHODS: tuple[str, ...] = tuple(
    of.name
    for of in dataclasses.fields(RunConfig)
    if hasattr(of.default_factory, "takes_small_views")
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
