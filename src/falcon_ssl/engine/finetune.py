"""Fine-tuning: an encoder and a linear classifier, trained on labels until held-out ones are read no better.

    rate of block d of L = lr * layer_decay^(L - d),     the classifier is block L

The classifier may begin as a linear probe (Kumar et al., 2022): a random one would first undo what the encoder has
learned. A warm-up over a tenth of the steps, then a cosine; cross-entropy with smoothed labels.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import AdamW

from falcon_ssl.config.finetune import FinetuneConfig
from falcon_ssl.core.modes import evaluation_mode
from falcon_ssl.data import Source, read_ahead, read_images
from falcon_ssl.engine.optim import cosine
from falcon_ssl.engine.progress import WorkProgress
from falcon_ssl.views import Views

EVALUATED_AT_ONCE = 512
WARMUP = 0.1  # of the steps
LEAST_STEPS = 8  # an epoch, by smaller batches of few images
LEAST_BATCH = 16


class Classifier(nn.Module):
    """An encoder and a linear layer.

    Args:
        encoder: Images [N, C, H, W] to z_ND; trained in place.
        width: D.
        num_classes: K.
        probe: W [D, K] and b [K] that the layer begins with; None for small random numbers.
    """

    def __init__(
        self,
        encoder: nn.Module,
        *,
        width: int,
        num_classes: int,
        probe: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(width, num_classes)
        with torch.no_grad():
            if probe is None:
                self.head.weight.normal_(std=0.01)
                self.head.bias.zero_()
            else:
                self.head.weight.copy_(probe[0].T)
                self.head.bias.copy_(probe[1])

    def forward(self, images: Tensor) -> Tensor:
        """Logits [N, K] of normalized images."""
        logits_NK: Tensor = self.head(self.encoder(images))
        return logits_NK


class LabeledImages(NamedTuple):
    """Some images of a source, with the classes of all of them."""

    source: Source
    rows: Tensor
    label_N: Tensor  # of every row of the source


class Finetuned(NamedTuple):
    """What a fine-tuning came to; the classifier holds the weights of its best epoch.

    Args:
        epoch: The best one, by held-out images; 0 is the beginning.
        epochs: How many there were.
        held_out: Accuracy on these images then.
    """

    epoch: int
    epochs: int
    held_out: float


def finetune(
    classifier: Classifier,
    train: LabeledImages,
    held_out: LabeledImages,
    *,
    views: Views,
    config: FinetuneConfig,
    lr: float,
    layer_decay: float,
    device: torch.device,
    progress: WorkProgress,
    keep_statistics: bool = False,
    autocast: bool = False,
) -> Finetuned:
    """Train a classifier on labeled images; its best epoch by other labeled images is left in it.

    Args:
        classifier: Trained in place, on the device.
        train: Images to learn from.
        held_out: Images to stop by.
        views: One view of an image, and how it is evaluated.
        config: The recipe.
        lr: Its rate for this encoder.
        layer_decay: Its own, or 1.
        device: Where the classifier is.
        progress: Shows how many images are read.
        keep_statistics: Batch normalization keeps its running statistics, and is trained with them: those of a few
            images' crops would replace what pretraining has measured.
        autocast: Whether it computes in bfloat16.
    """
    count = len(train.rows)
    batch_size = min(count, config.batch_size, max(LEAST_BATCH, count // LEAST_STEPS))
    per_epoch = count // batch_size
    optimizer = AdamW(_groups(classifier, config, lr, layer_decay))
    peaks = [group["lr"] for group in optimizer.param_groups]
    rate = _schedule(per_epoch * config.epochs)
    half = torch.autocast(device.type, torch.bfloat16, enabled=autocast)
    generator = torch.Generator().manual_seed(config.seed)
    accuracy = partial(
        accuracy_of, classifier, held_out, views=views, device=device, autocast=autocast
    )
    images = config.epochs * per_epoch * batch_size
    count_images = progress.read(f"images in at most {config.epochs} epochs", images)
    best, step, epoch = Finetuned(0, 0, accuracy()), 0, 0
    best_weights = copy.deepcopy(classifier.state_dict())
    for epoch in range(1, config.epochs + 1):
        order = np.random.default_rng((config.seed, epoch)).permutation(count)
        rows = train.rows[torch.from_numpy(order[: per_epoch * batch_size])]
        classifier.train()
        for norm in classifier.modules() if keep_statistics else ():
            if isinstance(norm, _BatchNorm):
                norm.eval()
        batches = torch.split(rows, batch_size)
        for index_B, pixels in read_ahead(partial(read_images, train.source), batches):
            if len(index_B) < 2:  # nothing to normalize a batch by
                continue
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * rate(step)
            (x_BCHW,) = views(pixels.to(device), generator=generator)
            with half:
                logits_BK = classifier(x_BCHW)
            label_B = train.label_N[index_B].to(device)
            smoothing = config.label_smoothing
            loss = cross_entropy(logits_BK.float(), label_B, label_smoothing=smoothing)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            step += 1
            count_images(len(index_B))
        if (now := accuracy()) > best.held_out:
            best = Finetuned(epoch, epoch, now)
            best_weights = copy.deepcopy(classifier.state_dict())
        elif epoch - best.epoch >= config.patience:
            break
    classifier.load_state_dict(best_weights)
    return best._replace(epochs=epoch)


@torch.inference_mode()
def accuracy_of(
    classifier: Classifier,
    images: LabeledImages,
    *,
    views: Views,
    device: torch.device,
    autocast: bool = False,
) -> float:
    """Fraction of images whose class is the most probable one."""
    half = torch.autocast(device.type, torch.bfloat16, enabled=autocast)
    right = total = 0
    with evaluation_mode(classifier):
        batches = torch.split(images.rows, EVALUATED_AT_ONCE)
        for index_B, pixels in read_ahead(partial(read_images, images.source), batches):
            if len(index_B) == 0:
                continue
            with half:
                logits_BK = classifier(views.evaluate(pixels.to(device)))
            right += int((logits_BK.argmax(dim=1).cpu() == images.label_N[index_B]).sum())
            total += len(index_B)
    return right / max(1, total)


def block_numbers(encoder: nn.Module) -> dict[str, int]:
    """The block of every trainable parameter, counted from the images on.

    A block is what has a number in the parameter's name ("layer1.0", "blocks.3", "stages.1"). What comes before the
    first of them is block 0, and what has vectors alone, as norms, belongs to the block before it.
    """
    number, last, found = 0, "", {}
    names = [(name, p.ndim) for name, p in encoder.named_parameters() if p.requires_grad]
    keys = {name: _block_key(name) for name, _ in names}
    has_matrix = {keys[name] for name, ndim in names if ndim > 1}
    for name, _ in names:
        key = keys[name]
        if key and key != last and key in has_matrix:
            number, last = number + 1, key
        found[name] = number
    return found


def _block_key(name: str) -> str:
    """The name up to its first number; "" without one."""
    parts = name.split(".")
    first = next((place for place, part in enumerate(parts) if part.isdecimal()), None)
    return "" if first is None else ".".join(parts[: first + 1])


def _groups(
    classifier: Classifier, config: FinetuneConfig, lr: float, layer_decay: float
) -> list[dict[str, object]]:
    """Parameters with their rates; vectors are not decayed."""
    blocks = {f"encoder.{name}": n for name, n in block_numbers(classifier.encoder).items()}
    last = max(blocks.values(), default=0) + 1
    groups = []
    for name, parameter in classifier.named_parameters():
        if not parameter.requires_grad:
            continue
        groups.append(
            {
                "params": [parameter],
                "lr": lr * layer_decay ** (last - blocks.get(name, last)),
                "weight_decay": config.weight_decay if parameter.ndim > 1 else 0.0,
            }
        )
    return groups


def _schedule(num_steps: int) -> Callable[[int], float]:
    """The rate at a step as a fraction of its peak."""
    warmup = max(1, round(WARMUP * num_steps))

    def rate(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return cosine((step - warmup) / max(1, num_steps - warmup))

    return rate
