"""Weights to start from or to diagnose: from timm, the Hugging Face hub, a file, an export or a run."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from falcon_ssl.commands.formats import ABOUT, CONFIG, WEIGHTS, read_about
from falcon_ssl.commands.loading import load_method
from falcon_ssl.config.encoder import EncoderConfig
from falcon_ssl.config.mapping import build
from falcon_ssl.core.errors import InputError, one_line
from falcon_ssl.core.extras import train_extra
from falcon_ssl.methods import Method
from falcon_ssl.networks.timm import pretrained_timm
from falcon_ssl.networks.weights import load_weights
from falcon_ssl.records.files import read_json, replacing
from falcon_ssl.records.folder import CONFIG as RUN_CONFIG
from falcon_ssl.records.folder import INITIAL
from falcon_ssl.views import Normalization, Views

logger = logging.getLogger(__name__)

PICKLED = (".pth", ".pt", ".bin", ".ckpt", ".tar")
_CFG = {"mean?": [float], "std?": [float]}
_TIMM = {"architecture?": str, "pretrained_cfg?": _CFG}  # its config.json
EXPECTED = (
    "timm:NAME, hf:OWNER/NAME, a file .safetensors or .pth, or the folder of a run or an export"
)


class Initial(NamedTuple):
    """Weights from elsewhere, and what is known of them.

    Args:
        source: What the user called them.
        tensors: By name.
        encoder: The network that they are of; None where the file does not say.
        normalization: What their network was trained with; None where the file does not say.
    """

    source: str
    tensors: Mapping[str, Tensor]
    encoder: EncoderConfig | None = None
    normalization: Normalization | None = None

    def check_views(self, views: Views) -> None:
        """Log if the views normalize otherwise: the encoder then sees other numbers than it was trained on."""
        if self.normalization is not None and self.normalization != views.normalization:
            logger.info(
                "initial weights: trained with mean %s and standard deviation %s; the views have %s and %s",
                *(_listed(self.normalization.mean), _listed(self.normalization.std)),
                *(_listed(views.normalization.mean), _listed(views.normalization.std)),
            )

    def fill(self, encoder: nn.Module, *, in_channels: int, partial: tuple[str, ...] = ()) -> None:
        """Load them into an encoder, and log what was found.

        Raises:
            InputError: They are not of this encoder.
        """
        match = load_weights(
            encoder, self.tensors, source=self.source, in_channels=in_channels, partial=partial
        )
        for sentence in match.sentences():
            logger.info("initial weights: %s", sentence)


def _listed(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def read_initial(weights: str) -> Initial:
    """Read weights, wherever they are.

    Args:
        weights: "timm:NAME", "hf:OWNER/NAME", a file, or a folder.

    Raises:
        InputError: They are not there, cannot be read, or are of no known kind.
    """
    kind, _, where = weights.partition(":")
    if kind == "timm" and where:
        return _from_timm(weights, where)
    if kind == "hf" and where:
        return _from_folder(weights, _downloaded(where))
    path = Path(weights)
    if path.is_dir():
        return _from_folder(weights, path)
    if not path.is_file():
        raise InputError("no initial weights", received=weights, expected=EXPECTED)
    return _from_file(weights, path)


def _from_timm(source: str, name: str) -> Initial:
    model, about = pretrained_timm(name)
    return Initial(
        source,
        model.state_dict(),
        EncoderConfig(name=f"timm:{name}"),
        Normalization(mean=tuple(about["mean"]), std=tuple(about["std"])),
    )


def _downloaded(repo: str) -> Path:
    """A repository of the hub as a folder; files of weights and configuration alone, no code."""
    with train_extra("hf:OWNER/NAME", extra="export"):
        from huggingface_hub import snapshot_download
    try:
        return Path(snapshot_download(repo, allow_patterns=["*.json", "*.safetensors", "*.bin"]))
    except Exception as error:  # no network, no such repository: the library's own kinds
        raise InputError(
            f"cannot download {repo} from the Hugging Face hub",
            received=one_line(error, named=True),
            expected="a repository, and a network connection",
        ) from error


def _from_folder(source: str, folder: Path) -> Initial:
    """A run, an export, or a folder as timm and transformers write it."""
    if (folder / RUN_CONFIG).is_file():
        return _from_run(source, folder)
    files = [folder / WEIGHTS, folder / "pytorch_model.bin"]
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        raise InputError(
            f"{source} holds no weights",
            received=", ".join(sorted(path.name for path in folder.iterdir())[:8]) or "nothing",
            expected=f"{WEIGHTS}; or a run",
            fix="export the encoder --to safetensors, timm or hf: ONNX and torch.export hold programs"
            if (folder / ABOUT).is_file()
            else "",
        )
    initial = _from_file(source, file)
    if (folder / ABOUT).is_file():
        return _described(initial, read_about(folder))
    about = read_json(folder / CONFIG, _TIMM) if (folder / CONFIG).is_file() else {}
    if "architecture" in about:  # as timm writes it
        known = about.get("pretrained_cfg", {})
        normalization = None
        if "mean" in known and "std" in known:
            normalization = Normalization(tuple(known["mean"]), tuple(known["std"]))
        encoder = EncoderConfig(name=f"timm:{about['architecture']}")
        return initial._replace(encoder=encoder, normalization=normalization)
    return initial


def _from_run(source: str, folder: Path) -> Initial:
    """What a run evaluates: of methods with a teacher, that."""
    config, method, views = load_method(folder)
    tensors = method.evaluated_encoder.state_dict()
    return Initial(source, tensors, config.encoder, views.normalization)


def _described(initial: Initial, about: Mapping[str, Any]) -> Initial:
    seen = about["preprocessing"]
    return initial._replace(
        encoder=build(EncoderConfig, about["encoder"]),
        normalization=Normalization(tuple(seen["mean"]), tuple(seen["std"])),
    )


def _from_file(source: str, file: Path) -> Initial:
    try:
        if file.suffix == ".safetensors":
            from safetensors import safe_open

            with safe_open(file, "pt") as opened:
                about = (opened.metadata() or {}).get("falcon_ssl")
                tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            initial = Initial(source, tensors)
            return initial if about is None else _described(initial, json.loads(about))
        if file.suffix in PICKLED:  # with weights_only nothing in the file is run
            return Initial(source, _flat(torch.load(file, map_location="cpu", weights_only=True)))
    except InputError:
        raise
    except UnpicklingError as error:
        raise InputError(
            f"the weights {source} hold more than tensors",
            received="a pickle of objects, which would run code",
            expected="tensors and plain values",
            fix="save the state_dict where you trust the file: safetensors.torch.save_file",
        ) from error
    except Exception as error:  # each reader raises its own kinds; all mean the same to the user
        raise InputError(
            f"cannot read the weights {source}",
            received=one_line(error, named=True),
            expected="tensors: .safetensors, or a pickle of tensors and plain values, which can hold no code",
        ) from error
    raise InputError("unknown kind of weights", received=file.name, expected=EXPECTED)


def _flat(values: object, prefix: str = "") -> dict[str, Tensor]:
    """The tensors of nested dictionaries, by their names with dots: of "state_dict", "model", "teacher", ..."""
    if isinstance(values, Tensor):
        return {prefix.removesuffix("."): values}
    found: dict[str, Tensor] = {}
    if isinstance(values, Mapping):
        for name, value in values.items():
            found |= _flat(value, f"{prefix}{name}.")
    return found


def write_initial(run: Path, method: Method) -> None:
    """Keep what the encoder of a run started from: the run is compared with it, and needs the source no more."""
    from safetensors.torch import save_file

    tensors = method.encoder.state_dict()
    with replacing(run / INITIAL) as unfinished:
        save_file({name: value.contiguous() for name, value in tensors.items()}, unfinished)


def restore_initial(run: Path, method: Method) -> None:
    """Give the encoder of a run, and the teacher's copy of it, what `write_initial` kept.

    Raises:
        InputError: It is missing or damaged.
    """
    kept = _from_file(str(run / INITIAL), run / INITIAL)
    for encoder in (method.encoder, method.evaluated_encoder):
        encoder.load_state_dict(dict(kept.tensors))
