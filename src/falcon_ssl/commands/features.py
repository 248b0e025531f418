"""Features of a run, and of the network that it started from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from falcon_ssl.commands.initial import restore_initial
from falcon_ssl.commands.loading import RunParts, build, load_run
from falcon_ssl.config.run import ReadingConfig, RunConfig
from falcon_ssl.core.devices import multiplies_bf16
from falcon_ssl.core.distributed import rank, world_size
from falcon_ssl.data import Source, hold_out, read_images
from falcon_ssl.dictionary.base import Dictionary
from falcon_ssl.engine import RunFolder
from falcon_ssl.engine.progress import WorkProgress
from falcon_ssl.evaluation import Diagnosis, Features, extract
from falcon_ssl.evaluation import diagnose as diagnose_features
from falcon_ssl.evaluation.features import EvaluationView
from falcon_ssl.methods import Method
from falcon_ssl.networks import Readout, copy_fitted
from falcon_ssl.networks.batchnorm import use_global_batch_norm
from falcon_ssl.records.folder import DATA
from falcon_ssl.records.metrics import start_label

TRAINED, UNTRAINED = "trained network", "untrained network"
HELD_OUT = 0.2  # fraction to evaluate on, of data that has no test split


def untrained(
    config: RunConfig,
    source: Source,
    *,
    trained: Method,
    device: torch.device,
    run: str | Path | None = None,
) -> Method:
    """The network that a run started from, with the batch statistics of its data.

    Running statistics of an untrained network say nothing; measured ones make it a fair reference. A layer that was
    fitted to the run's images before training is the trained network's. The encoder of a ``run`` that started from
    given weights is as they came, with their statistics.
    """
    views, method = build(config, source.image_shape)
    copy_fitted(method, trained)
    if run is not None and config.init.weights is not None:
        restore_initial(Path(run), method)
        for encoder in (method.encoder, method.evaluated_encoder):
            encoder.eval()
    method.to(device)
    for norm in method.modules():
        if isinstance(norm, _BatchNorm) and norm.training:
            norm.reset_running_stats()
            norm.momentum = None  # the plain average over batches
    if world_size() > 1:
        use_global_batch_norm(method)  # each rank then sees its rows of a batch
    rows = torch.randperm(len(source), generator=torch.Generator().manual_seed(config.seed))
    with torch.no_grad():
        for indices in torch.split(rows, 256)[:8]:
            _, images = read_images(source, indices)
            if len(images) > 1:
                own = images.tensor_split(world_size())[rank()]
                method.embed(views.evaluate(own.to(device)))
    return method.eval()


class NetworkFeatures(NamedTuple):
    """Features of train and test images, and the codes that they are assigned to."""

    train: Features  # z as the readout says: what classifiers read
    probe: Features  # what the linear probe learns from: the same, or each image at every scale
    test: Features
    own: Features  # of the test images: z, u and code as the network itself says
    dictionary: Dictionary | None


class RunFeatures(NamedTuple):
    """Features of a run, and of the network that it started from."""

    run: RunParts
    trained: NetworkFeatures
    untrained: NetworkFeatures | None  # where `evaluation.untrained` asks for it


def before_training(config: RunConfig) -> str:
    """What progress calls the network that a run started from."""
    weights = config.init.weights
    return UNTRAINED if weights is None else start_label(weights)


def extract_run_features(
    run: str | Path,
    *,
    device: torch.device,
    data: str | None = None,
    reading: ReadingConfig | None = None,
    evaluation: Mapping[str, Any] | None = None,
    checkpoint: str = "last",
    progress: WorkProgress | None = None,
) -> RunFeatures:
    """Features of train and test images, and those of the run's untrained network.

    Where there is no test split, a fifth of the images is held out to evaluate on.

    Raises:
        InputError: As `load_run`.
    """
    config, splits, views, method = load_run(
        run,
        device=device,
        data=data,
        reading=reading,
        evaluation=evaluation,
        checkpoint=checkpoint,
    )
    readout = Readout.of(config.evaluation)
    if splits.test is None:
        splits = hold_out(splits, HELD_OUT)
        if config.data == RunFolder.open(run).read_json(DATA)["data"]:
            splits = replace(splits, note=f"{splits.note}; pretraining saw it too, without labels")
    assert splits.test is not None
    train, test = splits.train, splits.test
    progress, options = progress or WorkProgress(shown=False), extraction(config, device)

    def features(network: Method, name: str) -> NetworkFeatures:
        progress.name(name)

        def read_test(**how: Any) -> Features:
            counted = progress.read("test images", len(test))
            return extract(network, test, views, progress=counted, **how, **options)

        dictionary = listed_dictionary(network)
        own = read_test(dictionary=dictionary)
        read, probe = read_train(network, train, views, config, device=device, progress=progress)
        return NetworkFeatures(
            train=read,
            probe=probe,
            test=own if readout.is_own else read_test(readout=readout),
            own=own,
            dictionary=dictionary,
        )

    return RunFeatures(
        run=RunParts(config, splits, views, method),
        trained=features(method, TRAINED),
        untrained=features(
            untrained(config, splits.train, trained=method, device=device, run=run),
            before_training(config),
        )
        if config.evaluation.untrained
        else None,
    )


def read_train(
    method: Method,
    source: Source,
    views: EvaluationView,
    config: RunConfig,
    *,
    device: torch.device,
    progress: WorkProgress | None = None,
) -> tuple[Features, Features]:
    """Features of the train images as the readout says, and what the linear probe learns from."""
    readout = Readout.of(config.evaluation)
    each = config.evaluation.probe_each_scale
    scales = [(scale,) for scale in readout.scales] if each else [readout.scales]
    progress, parts = progress or WorkProgress(shown=False), []
    for one in scales:
        size = f" at {one[0]:g} times their size" if each and one != (1,) else ""
        parts.append(
            extract(
                method,
                source,
                views,
                readout=replace(readout, scales=one),
                progress=progress.read(f"train images{size}", len(source)),
                **extraction(config, device),
            )
        )
    train = Features.averaged(parts)
    return train, Features.joined(parts) if each else train


def extraction(config: RunConfig, device: torch.device) -> dict[str, Any]:
    """How the features of a run are extracted."""
    return {
        "batch_size": config.evaluation.batch_size,
        "device": device,
        "autocast": reads_bf16(config, device),
    }


def reads_bf16(config: RunConfig, device: torch.device) -> bool:
    """Whether features are computed in bfloat16: those of a run that trained so, where the device multiplies it."""
    return config.engine.precision == "bf16" and multiplies_bf16(device)


def listed_dictionary(method: Method) -> Dictionary | None:
    """The codes that have a histogram: in the complete dictionary every image has its own code."""
    codes = method.dictionary
    return codes if codes is not None and codes.has_histogram else None


def diagnose_run(features: RunFeatures, *, prototypes: Tensor | None = None) -> Diagnosis:
    """Diagnose a run beside the network that it started from.

    Embeddings are assigned to ``prototypes`` [C, F], if given, instead of the run's own dictionary.

    Raises:
        InputError: Prototypes of another width, or too few images.
    """
    trained = features.trained
    return diagnose_features(
        trained.own,
        dictionary=prototypes,
        num_codes=None if trained.dictionary is None else trained.dictionary.num_codes,
        reference=None if features.untrained is None else features.untrained.own,
        seed=features.run.config.evaluation.seed,
    )
