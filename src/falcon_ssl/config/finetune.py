"""Options of fine-tuning: a short, standard recipe for a classifier on few or many labels."""

from __future__ import annotations

from dataclasses import dataclass

from falcon_ssl.config.bounds import Options, option
from falcon_ssl.core.checks import check_label_amount


@dataclass(frozen=True)
class FinetuneConfig(Options, group="finetune"):
    """How a pretrained encoder becomes a classifier: AdamW, a lower rate the earlier the layer, shifts, early stop."""

    labels: float | None = option(
        None,
        "Labeled images of train: below 1 a fraction, from 1 on images a class; null is all.",
        above=0,
    )
    draws: int = option(3, "Draws of these images; one where all are used.", at_least=1)
    epochs: int = option(30, "Passes over the labeled images at most.", at_least=1)
    patience: int = option(
        8,
        "Epochs without a better accuracy on held-out labeled images before it stops.",
        at_least=1,
    )
    batch_size: int = option(64, "Images of a step at most.", at_least=2)
    lr: float = option(3e-4, "Peak rate of the classifier.", above=0)
    scratch_lr: float = option(1e-3, "Peak rate from scratch, of all layers.", above=0)
    layer_decay: float = option(
        0.75, "Factor of the rate from a block to the one before it (BEiT).", above=0, at_most=1
    )
    weight_decay: float = option(0.05, "Weight decay of matrices and kernels.", at_least=0)
    label_smoothing: float = option(
        0.1, "Probability that is spread over all classes.", at_least=0, below=1
    )
    crop_scale: float | None = option(
        None,
        "Smallest fraction of the image in a crop; null shifts the whole image by up to an eighth of its side.",
        above=0,
        at_most=1,
    )
    scratch: bool = option(True, "Whether the same is trained from scratch, to compare.")
    seed: int = option(0, "Seed of draws, order, crops and the classifier.", at_least=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.labels is not None:
            check_label_amount("finetune.labels", self.labels)
