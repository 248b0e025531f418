"""From a configuration to the parts of a run, and from a run folder back to them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from falcon_ssl.commands.memory import check_memory
from falcon_ssl.commands.resolve import resolve
from falcon_ssl.config.encoder import EncoderConfig
from falcon_ssl.config.mapping import flat_mapping, read_yaml
from falcon_ssl.config.run import ReadingConfig, RunConfig, from_mapping, to_mapping
from falcon_ssl.core.consent import trusting_code
from falcon_ssl.core.errors import InputError
from falcon_ssl.core.version import __version__
from falcon_ssl.data import (
    Source,
    Splits,
    count_skipped,
    load_splits,
    read_images,
    skipped_sentence,
)
from falcon_ssl.engine import RunFolder, load_model
from falcon_ssl.methods import Method, build_method
from falcon_ssl.networks import Readout, fit_to_images, representation_width
from falcon_ssl.records.checkpoints import unfinished_sentence
from falcon_ssl.records.folder import CONFIG, DATA, ENVIRONMENT, SKIPPED
from falcon_ssl.views import Views, build_views

logger = logging.getLogger(__name__)

FITTED_TO = 4000  # images at most
LEAST_SIDE = 4  # pixels
_CHOSEN = ("encoder.", "views.", "reading.image_size")  # by the images, where they are not given


class RunParts(NamedTuple):
    """Everything that a configuration says, made: of a run that has not begun, or of one that is read back."""

    config: RunConfig  # with every auto replaced by a choice
    splits: Splits  # its images
    views: Views  # its augmentations
    method: Method  # freshly initialized; or trained, in evaluation mode


class InitialWeights(Protocol):
    """Weights to start from, as `falcon_ssl.commands.initial` reads them."""

    @property
    def encoder(self) -> EncoderConfig | None:
        """The network that they are of, where that is known."""

    def check_views(self, views: Views, /) -> None:
        """Log what the views do otherwise than those that the weights were trained with."""

    def fill(self, encoder: nn.Module, *, in_channels: int, partial: tuple[str, ...]) -> None:
        """Load them into an encoder."""


def prepare(
    config: RunConfig,
    *,
    splits: Splits | None = None,
    initial: InitialWeights | None = None,
) -> RunParts:
    """Open the images of a configuration, resolve it, and build what it names.

    Args:
        config: The whole configuration.
        splits: The images, where they are open already.
        initial: What the encoder starts from; None for random weights, also where a checkpoint follows.

    Raises:
        InputError: Data that cannot be read, or options that do not fit it or each other.
    """
    splits = splits or open_data(config)
    if splits.resized_to is not None:  # other images of the run are then brought to it too
        reading = replace(config.reading, image_size=splits.resized_to)
        config = replace(config, reading=reading)
    if initial is not None and initial.encoder is not None and config.encoder.name == "auto":
        given = {name: getattr(config.encoder, name) for name in config.encoder.changed()}
        config = replace(config, encoder=replace(initial.encoder, **given))
        logger.info("encoder: %s, that of the initial weights", config.encoder.name)
    if (side := min(splits.train.image_shape[1:])) < LEAST_SIDE:
        raise InputError(
            "the images are too small to learn from",
            received=f"{side} pixels",
            expected=f"at least {LEAST_SIDE} a side",
            fix="are these the images?",
        )
    config = resolve(config, splits.train)
    check_memory(config, splits.train.image_shape)
    views, method = build(config, splits.train.image_shape, initial=initial)
    if initial is None or not _is_finite(method.encoder):
        fit_to_images(method, lambda: _some_images(splits.train, views, seed=config.seed))
    blank = torch.zeros(1, *splits.train.image_shape, dtype=torch.uint8)
    views(blank, generator=torch.Generator())  # raise now for images that do not fit
    readout_width(config, method, views, splits.train.image_shape)
    return RunParts(config, splits, views, method)


def _is_finite(network: nn.Module) -> bool:
    """Whether no layer waits to be fitted to images: until then its weights are NaN."""
    return all(bool(torch.isfinite(value).all()) for value in network.state_dict().values())


def _some_images(source: Source, views: Views, *, seed: int) -> Tensor:
    """Normalized images [N, C, H, W] that layers are fitted to before training."""
    drawn = torch.randperm(len(source), generator=torch.Generator().manual_seed(seed))
    return views.evaluate(read_images(source, drawn[:FITTED_TO])[1])


def readout_width(
    config: RunConfig, method: Method, views: Views, image_shape: tuple[int, int, int]
) -> int:
    """How many numbers of an image the readout of a configuration reads.

    Raises:
        InputError: The encoder does not have it.
    """
    seen = views.evaluate(torch.zeros(1, *image_shape, dtype=torch.uint8))
    _, channels, height, width = seen.shape
    readout = Readout.of(config.evaluation)
    return representation_width(
        method.evaluated_encoder, (channels, height, width), readout=readout
    )


def build(
    config: RunConfig, image_shape: tuple[int, int, int], *, initial: InitialWeights | None = None
) -> tuple[Views, Method]:
    """Views and method of a resolved configuration and image shape; parameters depend on seed and initial weights.

    Raises:
        InputError: Options that do not fit the images or each other.
    """
    views = build_views(config.views)
    torch.manual_seed(config.seed)
    seen = seen_shape(image_shape, views)
    if initial is None:
        return views, build_method(config, image_shape=seen)
    initial.check_views(views)
    fill = partial(initial.fill, in_channels=seen[0], partial=config.init.partial)
    return views, build_method(config, image_shape=seen, initialize=fill)


def load_run(
    run: str | Path,
    *,
    device: torch.device | str = "cpu",
    data: str | None = None,
    reading: ReadingConfig | None = None,
    evaluation: Mapping[str, Any] | None = None,
    checkpoint: str = "last",
    on_demand: bool = False,
    trust_code: bool = False,
) -> RunParts:
    """Rebuild the method of a run, load a checkpoint and open images.

    Args:
        run: The run folder.
        device: Where the method goes.
        data: Images to open instead of the run's own; brought to the size and channels that the run was trained on.
        reading: How to read them; None for the defaults. Without ``data``, what it changes of the run's own.
        evaluation: Options of `EvaluationConfig` in place of the run's own.
        checkpoint: "last", or one that is kept beside it: "best", "best_knn", "epoch_10".
        on_demand: Decode images when they are read, for those who read each once.
        trust_code: Whether code that files name may be run, see `falcon_ssl.trusting_code`.

    Raises:
        InputError: No run folder, no such checkpoint, data that cannot be read, another part held out of the run's own,
            or a readout that the encoder does not have.
    """
    with trusting_code(trust_code):
        config, method, views = load_method(
            run, device=device, evaluation=evaluation, checkpoint=checkpoint
        )
        config, splits = open_run_data(run, config, data=data, reading=reading, on_demand=on_demand)
    return RunParts(config, splits, views, method)


def open_run_data(
    run: str | Path,
    config: RunConfig,
    *,
    data: str | None = None,
    reading: ReadingConfig | None = None,
    on_demand: bool = False,
) -> tuple[RunConfig, Splits]:
    """Open images for a run, its own or others, and say in its configuration which; options as `load_run`.

    Raises:
        InputError: Data that cannot be read, or another part held out of the run's own.
    """
    channels, height, width = RunFolder.open(run).read_json(DATA)["image_shape"]
    if data is None:
        config = replace(config, reading=_changed(config.reading, reading or ReadingConfig()))
    else:
        reading = reading or ReadingConfig()
        side = config.reading.image_size or (height if height == width else None)
        reading = replace(
            reading,
            image_size=reading.image_size or side,
            keep_16bit=reading.keep_16bit or config.reading.keep_16bit,
            value_range=reading.value_range or config.reading.value_range,
        )
        config = replace(config, data=data, reading=reading)
    config = replace(config, reading=replace(config.reading, channels=channels))
    if on_demand:
        config = replace(config, reading=replace(config.reading, in_memory=False))
    skipped_path = Path(run) / SKIPPED if data is None else None
    return config, open_data(config, skipped_path=skipped_path)


def _changed(own: ReadingConfig, wanted: ReadingConfig) -> ReadingConfig:
    """How a run read its images, with the options that are not at their defaults in ``wanted``."""
    usual = ReadingConfig()
    if wanted.holdout not in (usual.holdout, own.holdout):
        raise InputError(
            "what the run held out is fixed: it has trained on the rest",
            received=f"--reading.holdout {wanted.holdout:g}",
            expected=f"{own.holdout:g}",
        )
    changes = {name: value for name, value in vars(wanted).items() if value != vars(usual)[name]}
    return replace(own, **changes)


def load_method(
    run: str | Path,
    *,
    device: torch.device | str = "cpu",
    evaluation: Mapping[str, Any] | None = None,
    checkpoint: str = "last",
) -> tuple[RunConfig, Method, Views]:
    """The trained method of a run in evaluation mode, without opening its data. Arguments as `load_run`.

    Raises:
        InputError: No run folder, no such checkpoint, or a readout that the encoder does not have.
    """
    folder = RunFolder.open(run)
    config = read_config(folder)
    config = replace(config, evaluation=replace(config.evaluation, **(evaluation or {})))
    image_shape = folder.read_json(DATA)["image_shape"]
    views, method = build(config, image_shape)
    readout_width(config, method, views, image_shape)
    load_model(folder.path, method, name=checkpoint)
    _check_weights(method, folder)
    if sentence := unfinished_sentence(folder.path):
        logger.warning("%s: %s", folder.path, sentence)
    return config, method.to(device).eval(), views


def read_config(folder: RunFolder) -> RunConfig:
    """The options of a run.

    Raises:
        InputError: They are none of this version; says so where another one has written them.
    """
    try:
        return from_mapping(read_yaml(folder.path / CONFIG))
    except InputError as error:
        wrote = None
        with suppress(InputError):
            wrote = folder.read_json(ENVIRONMENT).get("falcon_ssl")
        if wrote in (None, __version__):
            raise
        raise InputError(
            f"{folder.path} is a run of falcon-ssl {wrote}",
            received=f"this version, {__version__}: {str(error).rstrip('.')}",
            expected="the version that wrote it",
            fix=f"pip install falcon-ssl=={wrote}",
        ) from error


def _check_weights(method: Method, folder: RunFolder) -> None:
    """Raise InputError for weights that are NaN or infinite: they would be evaluated, exported and believed."""
    bad = [name for name, one in method.state_dict().items() if not one.isfinite().all()]
    if bad:
        raise InputError(
            f"the weights of {folder.path} are not finite",
            received=f"NaN or infinity in {', '.join(bad[:3])}, {len(bad)} in all",
            expected="finite numbers",
            fix="train again with a lower optim.lr, or take an earlier checkpoint",
        )


def write_data_record(folder: RunFolder, config: RunConfig, splits: Splits) -> None:
    """Write ``data.json``: what was read, so that the network can be rebuilt without it.

    Unreadable images are found up to the last step where images are decoded on demand; write it again then.
    """
    skipped = {"num_skipped": count_skipped(splits.skipped)}
    folder.write_json(DATA, data_record(config.data, splits) | skipped)


def data_record(data: str, splits: Splits) -> dict[str, Any]:
    """What was read."""
    return {
        "data": data,
        "note": splits.note,
        "train": splits.train.name,
        "num_train": len(splits.train),
        "test": None if splits.test is None else splits.test.name,
        "num_test": 0 if splits.test is None else len(splits.test),
        "image_shape": splits.train.image_shape,
        **({"sources": dict(splits.sources)} if len(splits.sources) > 1 else {}),
    }


def log_skipped(splits: Splits) -> None:
    """Log how many images could not be read, when all have been."""
    if sentence := skipped_sentence(splits.skipped):
        logger.warning("%s", sentence)


def open_data(config: RunConfig, *, skipped_path: Path | None = None) -> Splits:
    """The images of a configuration."""
    return load_splits(config.data, config.reading, skipped_path=skipped_path)


def seen_shape(image_shape: tuple[int, int, int], views: Views) -> tuple[int, int, int]:
    """(channels, height, width) of what the encoder sees of images of such a shape."""
    channels, height, width = image_shape
    return (channels, height, width) if views.size is None else (channels, views.size, views.size)


def check_same_run(
    folder: RunFolder, config: RunConfig, *, longer: bool = False, resolved: bool = True
) -> None:
    """Raise InputError unless ``config`` is what the run was started with, except for how it is executed.

    Args:
        folder: Of the run.
        config: The whole configuration.
        longer: Whether it may have more epochs, unless its views grow over the run: they would shrink.
        resolved: Whether every auto is a choice already; else what may still be chosen is not compared.
    """
    begun = read_config(folder)
    if longer and config.epochs > begun.epochs and config.views.start_size is None:
        if resolved:
            logger.info(
                "%d epochs in place of %d: the learning rate goes on as in a run that was begun with so many",
                *(config.epochs, begun.epochs),
            )
        begun = replace(begun, epochs=config.epochs)
    before, now, usual = (flat_mapping(to_mapping(one)) for one in (begun, config, RunConfig()))
    changed = [
        name
        for name in {**before, **now}
        if not name.startswith("engine.") and before.get(name) != now.get(name)
    ]
    if not resolved:
        changed = [
            name
            for name in changed
            if not name.startswith(_CHOSEN) or now.get(name) != usual.get(name)
        ]
    if changed:
        values = "; ".join(f"{name} {now.get(name)}, not {before.get(name)}" for name in changed)
        raise InputError(
            "a run resumes with the options that it was started with",
            received=f"other values of {', '.join(changed)}: {values}",
            expected=f"those of {folder.path / CONFIG}",
            fix="leave these options out, or start a new run",
        )
