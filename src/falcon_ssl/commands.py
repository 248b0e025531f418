"""The whole job as Python functions: what the command line calls, one function a command.

pretrain(config, out=...) -> run folder      evaluate(run) -> numbers      report(runs) -> page
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from accelerate import Accelerator

from falcon_ssl import engine
from falcon_ssl.checks import InputError
from falcon_ssl.config import RunConfig
from falcon_ssl.data import Splits, build_loader
from falcon_ssl.dictionary_complete import CompleteDictionary
from falcon_ssl.engine import RunFolder
from falcon_ssl.engine.records import SKIPPED
from falcon_ssl.errors import CollapseError
from falcon_ssl.evaluation import AlarmMonitor, Features, QualityMonitor, extract
from falcon_ssl.judging import best_device, diagnose, evaluate, prior_matching, test_split
from falcon_ssl.methods import Method, build_method
from falcon_ssl.monitor import Monitor
from falcon_ssl.runs import (
    check_same_run,
    load_run,
    make_views,
    open_data,
    resolve,
    view_shape,
)
from falcon_ssl.temperature import effective_temperature
from falcon_ssl.views import Views, contact_sheet

logger = logging.getLogger(__name__)

__all__ = ["diagnose", "embed", "evaluate", "export", "load_run", "pretrain", "views_sheet"]


def pretrain(
    config: RunConfig,
    *,
    out: str | Path,
    overwrite: bool = False,
    resume: bool = False,
    monitors: Sequence[Monitor] | None = None,
) -> Path:
    """Pretrain on images without labels.

    Args:
        config: The whole configuration.
        out: The run folder.
        overwrite: Delete an existing run folder first.
        resume: Go on with the run in ``out``; ``config`` must be the one it was started with, but for ``engine``.
        monitors: Watch the training; None for the library's own.

    Returns:
        The run folder.

    Raises:
        InputError: Bad options, an existing or missing folder, data that cannot be read.
        falcon_ssl.engine.NonFiniteError: Training met NaN or infinity.
        CollapseError: An alarm ended the run, as ``monitor.on_collapse = "stop"`` asks; its folder is complete up to
            that step.
    """
    if overwrite and resume:
        raise InputError(
            "--overwrite and --resume contradict each other",
            received="both",
            expected="one of them",
            fix="leave one out",
        )
    folder = RunFolder.open(out) if resume else RunFolder(out)
    if not resume:
        folder.check_free(overwrite=overwrite)
    skipped = folder.path / SKIPPED
    skipped.unlink(missing_ok=True)
    splits = open_data(config, skipped_path=skipped)
    config = resolve(config, splits.train)
    if resume:
        check_same_run(folder, config)
    accelerator = _accelerator(config, out)
    torch.manual_seed(config.seed)
    views = make_views(config)
    method = build_method(config, image_shape=view_shape(splits.train, views))
    loader = build_loader(
        splits.train, batch_size=config.batch_size, seed=config.seed, device=accelerator.device
    )
    _log_choices(config, method, accelerator)
    if accelerator.is_main_process and not resume:
        folder.create(config, overwrite=overwrite)
    accelerator.wait_for_everyone()
    position = engine.pretrain(
        method,
        loader,
        views,
        config=config,
        folder=folder,
        accelerator=accelerator,
        monitors=default_monitors(config, method, splits, views) if monitors is None else monitors,
        resume=resume,
    )
    if position.stopped_by:
        raise CollapseError(f"step {position.step}: {'; '.join(position.stopped_by.values())}")
    return folder.path


def default_monitors(
    config: RunConfig, method: Method, splits: Splits, views: Views
) -> list[Monitor]:
    """What watches a run unless told otherwise: alarms at every step, held-out images every few epochs."""
    watching: list[Monitor] = [
        AlarmMonitor(
            method.dictionary,
            logit_scale=method.logit_scale,
            beta=config.falcon.beta,
            prior_matching=prior_matching(config, method),
            uniform_prior=config.falcon.prior_exponent == 0,
            batch_size=config.batch_size,
            on_collapse=config.monitor.on_collapse,
            patience=config.monitor.patience,
        )
    ]
    if config.monitor.every_epochs and splits.test is not None:
        labelled = splits.test.labels is not None and splits.train.labels is not None
        watching.append(
            QualityMonitor(
                splits.test,
                views,
                train=splits.train if labelled else None,
                every_epochs=config.monitor.every_epochs,
                linear=config.monitor.linear and labelled,
                batch_size=config.evaluation.batch_size,
                seed=config.evaluation.seed,
            )
        )
    return watching


def embed(run: str | Path, *, out: str | Path, split: str = "test") -> Features:
    """Write the features of a run's images: z, u, code and label, as .npz or .safetensors.

    Raises:
        InputError: As `load_run`, an unknown split or suffix.
    """
    device = best_device()
    config, method, splits, views = load_run(run, device=device)
    source = splits.train if split == "train" else test_split(splits, config.data)
    listed = not isinstance(method.dictionary, CompleteDictionary)
    features = extract(
        method,
        source,
        views,
        batch_size=config.evaluation.batch_size,
        device=device,
        dictionary=method.dictionary if listed else None,
    )
    features.save(out)
    return features


def export(run: str | Path, *, out: str | Path) -> Path:
    """Write the encoder alone as .safetensors, with what is needed to use it in the file's header.

    The names are those of the encoder's own ``state_dict``; for ResNets these are torchvision's and timm's.

    Raises:
        InputError: As `load_run`, or a suffix other than .safetensors.
    """
    from safetensors.torch import save_file

    out = Path(out)
    if out.suffix != ".safetensors":
        raise InputError(
            "unknown kind of weight file",
            received=out.name,
            expected="a name that ends in .safetensors",
            fix="rename it",
        )
    config, method, splits, views = load_run(run)
    normalisation = views.normalisation
    about = {
        "encoder": asdict(config.encoder),
        "image_shape": view_shape(splits.train, views),
        "normalisation": {"mean": normalisation.mean, "std": normalisation.std},
        "data": config.data,
        "method": config.method,
    }
    tensors = {name: value.contiguous() for name, value in method.encoder.state_dict().items()}
    save_file(tensors, out, metadata={"falcon_ssl": json.dumps(about)})
    return out


def views_sheet(config: RunConfig, *, out: str | Path, num_images: int = 8) -> Path:
    """Draw what the network sees: images beside their augmented views.

    Raises:
        InputError: Data that cannot be read, or fewer than one image.
    """
    splits = open_data(config)
    config = resolve(config, splits.train)
    order = torch.randperm(len(splits.train), generator=torch.Generator().manual_seed(config.seed))
    images = splits.train.images(order[: max(1, num_images)])
    contact_sheet(images, make_views(config), seed=config.seed).save(out)
    return Path(out)


def _log_choices(config: RunConfig, method: Method, accelerator: Accelerator) -> None:
    """What decides speed and sharpness, in two lines."""
    on = [name for name in ("channels_last", "compile") if getattr(config.engine, name)]
    logger.info(
        "%s, %d process(es), precision %s, %s, fused AdamW",
        accelerator.device,
        accelerator.num_processes,
        config.engine.precision,
        ", ".join(on) or "no memory format or compiler option",
    )
    if method.dictionary is not None and method.logit_scale is not None:
        logger.info(
            "%s, logit scale %.3g, effective temperature %.3g",
            method.dictionary,
            method.logit_scale,
            effective_temperature(method.dictionary.width, method.logit_scale),
        )


def _accelerator(config: RunConfig, out: str | Path) -> Accelerator:
    accelerator = Accelerator(
        cpu=config.engine.device == "cpu",
        mixed_precision=config.engine.precision,
        log_with=list(config.engine.trackers) or None,
        project_dir=str(out),
    )
    if config.engine.device == "cuda" and accelerator.device.type != "cuda":
        raise InputError(
            "no CUDA device", received="engine.device=cuda", expected="a GPU", fix="use cpu"
        )
    if config.engine.trackers:
        accelerator.init_trackers("falcon-ssl")
    return accelerator
