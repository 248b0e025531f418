"""Write the encoder's weights, for any other tool."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from falcon_ssl.commands.loading import load_method, seen_shape
from falcon_ssl.core.errors import InputError
from falcon_ssl.engine import RunFolder
from falcon_ssl.records.folder import DATA


def export(run: str | Path, *, out: str | Path, overwrite: bool = False) -> Path:
    """Write the encoder alone as .safetensors, with what is needed to use it in the file's header.

    The names are those of the encoder's own ``state_dict``; for ResNets these are torchvision's and timm's. The images
    of the run are not needed.

    Raises:
        InputError: As `load_run`, or a file that may not be written.
    """
    from safetensors.torch import save_file

    out = _new_file(out, suffixes=(".safetensors",), overwrite=overwrite)
    config, method, views = load_method(run)
    channels, height, width = RunFolder.open(run).read_json(DATA)["image_shape"]
    about = {
        "encoder": asdict(config.encoder),
        "image_shape": seen_shape((channels, height, width), views),
        "normalization": asdict(views.normalization),
        "data": config.data,
        "method": config.method,
    }
    tensors = {
        name: value.contiguous() for name, value in method.evaluated_encoder.state_dict().items()
    }
    save_file(tensors, out, metadata={"falcon_ssl": json.dumps(about)})
    return out


def _new_file(path: str | Path, *, suffixes: Sequence[str], overwrite: bool) -> Path:
    """A file that may be written, with its folder; said before any work is done."""
    path = Path(path)
    if path.suffix not in suffixes:
        raise InputError(
            "unknown kind of file",
            received=path.name,
            expected=f"a name that ends in {' or '.join(suffixes)}",
            fix="rename it",
        )
    if path.exists() and not overwrite:
        raise InputError(
            "the file exists",
            received=path,
            expected="a path that does not exist yet",
            fix="choose another --out, or replace it with --overwrite",
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
