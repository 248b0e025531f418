"""Write the encoder for another library, and check there that it computes the same."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from falcon_ssl.commands.card import CARD, model_card, published
from falcon_ssl.commands.files import new_folder
from falcon_ssl.commands.formats import ABOUT, Kind, kind_of, own_preprocessing
from falcon_ssl.commands.frozen import FrozenEncoder, Preprocessing, ReadEncoder, described
from falcon_ssl.commands.loading import load_method, open_run_data
from falcon_ssl.commands.publish import check_hub, push
from falcon_ssl.config.export import Format
from falcon_ssl.config.run import ReadingConfig, RunConfig
from falcon_ssl.core.consent import trusting_code
from falcon_ssl.core.errors import InputError
from falcon_ssl.core.version import __version__
from falcon_ssl.data import read_images
from falcon_ssl.engine import RunFolder
from falcon_ssl.networks import Readout, representation_width
from falcon_ssl.networks.readout import OWN
from falcon_ssl.records.files import replacing_folder, write_json, write_text
from falcon_ssl.records.folder import DATA
from falcon_ssl.records.run import read_run

logger = logging.getLogger(__name__)

CHECKED = 100  # images
TOLERANCE = 1e-5  # of the largest number that the library computes of them


class DisagreementError(ArithmeticError):
    """An exported network computes something else than the one that was trained."""


def export(
    run: str | Path,
    *,
    out: str | Path,
    to: Format = "safetensors",
    data: str | None = None,
    reading: ReadingConfig | None = None,
    evaluation: Mapping[str, Any] | None = None,
    checkpoint: str = "last",
    push_to_hub: str | None = None,
    overwrite: bool = False,
    trust_code: bool = False,
) -> Path:
    """Write the encoder as a folder for another library: weights, configuration, preprocessing, model card.

    The folder is read back by that library and compared with the run on 100 images; it is kept only if both compute the
    same, to 1e-5 of the largest number.

    Args:
        run: The run folder.
        out: The folder to write.
        to: "safetensors", weights under the encoder's own names, which for ResNets are torchvision's and timm's; "timm"
            and "hf" (transformers), which load the folder by name; "onnx"; "torch" (torch.export). The last three, and
            "hf", compute what the readout reads; timm its own pooled representation.
        data: Images to compare on instead of the run's own. Where those are gone, random images do.
        reading: How to read them; None for the defaults.
        evaluation: Options of `EvaluationConfig` in place of the run's own: another readout.
        checkpoint: "last", or one that the run keeps beside it: "best", "epoch_10".
        push_to_hub: Repository of the Hugging Face hub to upload the folder to, OWNER/NAME; a new one is private.
        overwrite: Replace the folder, if it is one that this command wrote.
        trust_code: Whether code that files name may be run, see `falcon_ssl.trusting_code`.

    Returns:
        The folder.

    Raises:
        InputError: As `load_run`, a library that does not have this encoder, a folder that may not be written, or a hub
            that does not let the user in.
        DisagreementError: The library computes something else; nothing is left.
    """
    out = new_folder(out, marked_by=ABOUT, overwrite=overwrite)
    with trusting_code(trust_code):
        config, method, views = load_method(run, evaluation=evaluation, checkpoint=checkpoint)
    image_shape = RunFolder.open(run).read_json(DATA)["image_shape"]
    network = ReadEncoder(method.evaluated_encoder, Readout.of(config.evaluation))
    preprocess = Preprocessing.of(image_shape, views, config.reading)
    kind = kind_of(to, network)
    if push_to_hub is not None:
        check_hub(push_to_hub)
    frozen = FrozenEncoder(network, preprocess)
    with trusting_code(trust_code):
        pixels, source = _images(run, config, preprocess, data=data, reading=reading)
    about = {
        "to": to,
        **described(config.encoder, preprocess),
        "readout": asdict(network.readout),
        "numbers_read": representation_width(
            network.encoder, preprocess.shape, readout=network.readout
        ),
        "width": representation_width(network.encoder, preprocess.shape),
        "data": published(config.data),
        "method": config.method,
        "checkpoint": checkpoint,
        "falcon_ssl": __version__,
    }
    with replacing_folder(out) as unfinished:
        kind.write(unfinished, network, about)
        with trusting_code(trust_code):
            verified = _compare(kind, unfinished, frozen, pixels, about)
        about["verified"] = {"source": source, **verified}
        write_json(unfinished / ABOUT, about)
        card = model_card(read_run(Path(run)), about, folder=out, usage=kind.usage)
        write_text(unfinished / CARD, card)
    if kind.reads_pooled and not network.readout.is_own:
        logger.warning(
            "%s reads the pooled representation, the run %s: falcon_ssl.load_encoder reads that",
            *(to, network.readout),
        )
    if push_to_hub is not None:
        push(out, push_to_hub)
    return out


def _images(
    run: str | Path,
    config: RunConfig,
    preprocess: Preprocessing,
    *,
    data: str | None,
    reading: ReadingConfig | None,
) -> tuple[Tensor, str]:
    """Images to compare on, uint8 [N, C, H, W], and what they are."""
    try:
        few = replace(reading or ReadingConfig(), in_memory=False)  # decode a hundred, not all
        splits = open_run_data(run, config, data=data, reading=few)[1]
        source = splits.train if splits.test is None else splits.test
        rows = torch.linspace(0, len(source) - 1, min(CHECKED, len(source))).long()
        pixels = read_images(source, rows)[1]
        if len(pixels):
            part = "training" if splits.test is None else "test"
            return pixels, f"{part} images of {published(data or config.data)}"
    except (InputError, OSError) as error:
        if data is not None:
            raise
        logger.warning("the images of the run cannot be read (%s): random ones do", error)
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(CHECKED, preprocess.image_shape[0], 4, 4, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, preprocess.image_shape[1:], mode="bilinear")
    noise = 0.1 * torch.randn(smooth.shape, generator=generator)
    return ((smooth + noise).clamp(0, 1) * 255).round().to(torch.uint8), "random images"


def _compare(
    kind: Kind, folder: Path, frozen: FrozenEncoder, pixels: Tensor, about: Mapping[str, Any]
) -> dict[str, Any]:
    """What the library that a folder is for computes of images, beside what the run computes.

    Raises:
        DisagreementError: They differ.
    """
    network = frozen.network
    assert isinstance(network, ReadEncoder)
    if kind.reads_pooled:
        frozen = FrozenEncoder(ReadEncoder(network.encoder, OWN), frozen.preprocess)
    x_NCHW = frozen.preprocess(pixels)
    want_ND = frozen(x_NCHW)
    scale = max(float(want_ND.abs().max()), torch.finfo(torch.float32).tiny)
    with torch.no_grad():
        read = kind.read(folder, about)
        found_ND = read(x_NCHW)
        transformed = own_preprocessing(about["to"], folder, pixels)
        own_ND = None if transformed is None else read(transformed)
    if found_ND.shape != want_ND.shape or not torch.isfinite(found_ND).all():
        raise DisagreementError(
            f"the exported network returns {tuple(found_ND.shape)}, the trained one {tuple(want_ND.shape)};"
            " nothing was written"
        )
    largest = float((found_ND - want_ND).abs().max())
    if largest > TOLERANCE * scale:
        raise DisagreementError(
            f"the exported network differs from the trained one by {largest:.2g} on {len(pixels)} images, more than"
            f" {TOLERANCE:g} of the largest number, {scale:.3g}; nothing was written"
        )
    found = {
        "images": len(pixels),
        "of": "pooled" if kind.reads_pooled else "readout",
        "largest_difference": largest,
        "relative_difference": largest / scale,
    }
    logger.info(
        "%s: %d images, largest difference %.1e, %.1e of the largest number",
        *(about["to"], len(pixels), largest, largest / scale),
    )
    if own_ND is not None:
        found["own_preprocessing"] = float((own_ND - want_ND).abs().max()) / scale
    return found
