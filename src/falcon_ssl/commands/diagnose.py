"""Diagnosis of whatever a user has: a run, features in a file, or an encoder by name and images."""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path

from torch import Tensor, nn

from falcon_ssl.commands.features import (
    TRAINED,
    UNTRAINED,
    diagnose_run,
    extract_run_features,
)
from falcon_ssl.commands.initial import read_initial
from falcon_ssl.commands.loading import RunParts, prepare
from falcon_ssl.config.encoder import EncoderConfig
from falcon_ssl.config.run import ReadingConfig, RunConfig
from falcon_ssl.core.consent import trusting_code
from falcon_ssl.core.devices import best_device
from falcon_ssl.core.errors import InputError
from falcon_ssl.engine import RunFolder
from falcon_ssl.engine.progress import WorkProgress
from falcon_ssl.evaluation import Diagnosis, Features, extract, load_features, load_prototypes
from falcon_ssl.evaluation import diagnose as diagnose_features
from falcon_ssl.records.folder import CONFIG, DIAGNOSIS
from falcon_ssl.records.run import read_run
from falcon_ssl.records.steps import few_steps_sentence
from falcon_ssl.views import Normalization, Views

logger = logging.getLogger(__name__)

PRETRAINED = "pretrained"
TIMM = "timm:"


def diagnose(
    target: str | Path,
    *,
    data: str | None = None,
    reading: ReadingConfig | None = None,
    weights: str | Path | None = None,
    prototypes: str | Path | None = None,
    trust_code: bool = False,
) -> Diagnosis:
    """Say in plain words whether a network has collapsed.

    Args:
        target: A run folder (gets a ``diagnosis.json``, unless ``data`` or ``prototypes`` are given); a file of
            features, .npz or .safetensors; or with ``data`` an encoder by name, such as "timm:resnet50".
        data: Images for an encoder, or for a run instead of its own.
        reading: How to read them; None for the defaults.
        weights: Of an encoder, all that ``init.weights`` may be: a file, an export, a run, "timm:NAME"; or "pretrained"
            to let timm download its own. None diagnoses an untrained network.
        prototypes: A file with an array ``prototypes`` [C, F]: codes of another method, as SwAV's and DINO's, compared
            by cosine with u, or with z where there is no u. A feature file may hold that array itself.
        trust_code: Whether code that files name may be run, see `falcon_ssl.trusting_code`.

    Raises:
        InputError: None of these, options that do not fit the target, or features that cannot be diagnosed.
    """
    codes = None if prototypes is None else load_prototypes(prototypes)
    is_run = (Path(target) / CONFIG).is_file()
    if data is not None and not Path(target).exists():
        with trusting_code(trust_code):
            return _diagnose_encoder(
                str(target), data, reading=reading, weights=weights, codes=codes
            )
    if weights is not None:
        raise InputError(
            "weights are for an encoder by name",
            received=f"{target}, data={data}",
            expected="an encoder such as timm:resnet50 with --data",
        )
    if is_run:
        with trusting_code(trust_code), WorkProgress() as progress:
            features = extract_run_features(
                target,
                device=best_device(),
                data=data,
                reading=reading,
                evaluation={"untrained": True},
                progress=progress,
            )
        diagnosis = diagnose_run(features, prototypes=codes)
        with suppress(InputError):  # of records that are damaged, which the weights are not
            if few := few_steps_sentence(read_run(Path(target))):
                logger.warning("%s", few)
        if data is None and codes is None:
            RunFolder.open(target).write_json(DIAGNOSIS, diagnosis.to_dict())
        return diagnosis
    if not Path(target).is_file():
        raise InputError(
            "nothing to diagnose",
            received=target,
            expected="a run folder, a file of features, or an encoder such as timm:resnet50 with --data",
        )
    if data is not None or reading is not None:
        raise InputError(
            "features in a file need no images",
            received=f"{target}, data={data}",
            expected="an encoder by name, or a run",
        )
    if codes is None:
        codes = load_prototypes(target, required=False)
    return diagnose_features(load_features(target), dictionary=codes)


def _diagnose_encoder(
    name: str,
    data: str,
    *,
    reading: ReadingConfig | None,
    weights: str | Path | None,
    codes: Tensor | None,
) -> Diagnosis:
    """Diagnose an encoder on images, beside an untrained one of the same architecture."""
    run = prepare(
        RunConfig(data=data, encoder=EncoderConfig(name=name), reading=reading or ReadingConfig())
    )
    encoder = run.method.encoder
    reference = _features(encoder, run, UNTRAINED)
    if weights is None:
        logger.warning("%s: no --weights: this is the diagnosis of an untrained network", name)
        return diagnose_features(reference, dictionary=codes)
    if weights == PRETRAINED and not name.startswith(TIMM):
        raise InputError(
            "only encoders of timm are pretrained",
            received=name,
            expected="an encoder timm:NAME, or weights such as a .safetensors file",
        )
    initial = read_initial(name if weights == PRETRAINED else str(weights))
    initial.fill(encoder, in_channels=run.splits.train.image_shape[0])
    return diagnose_features(
        _features(encoder, run, TRAINED), dictionary=codes, reference=reference
    )


def _features(encoder: nn.Module, run: RunParts, name: str) -> Features:
    """Features of the test images, or of the training images where there are no others."""
    device = best_device()
    source = run.splits.train if run.splits.test is None else run.splits.test
    with WorkProgress() as progress:
        progress.name(name)
        return extract(
            _Bare(encoder).to(device),
            source,
            _own_views(encoder, run),
            batch_size=run.config.evaluation.batch_size,
            device=device,
            progress=progress.read("images", len(source)),
        )


def _own_views(encoder: nn.Module, run: RunParts) -> Views:
    """The normalization that timm's weights were trained with; that of the data for other encoders."""
    about = getattr(encoder, "pretrained_cfg", None) or {}
    if len(about.get("mean", ())) != run.splits.train.image_shape[0]:
        return run.views
    normalization = Normalization(mean=tuple(about["mean"]), std=tuple(about["std"]))
    return Views((), normalization=normalization, size=run.views.evaluate_size)


class _Bare(nn.Sequential):
    """An encoder alone, as `extract` asks for it."""

    def embed(self, images: Tensor) -> tuple[Tensor, None]:
        """Representations, and no embedding."""
        return self(images), None
