"""Write the encoder's weights, for any other tool."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from falcon_ssl.commands.files import new_file
from falcon_ssl.commands.loading import load_method, seen_shape
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

    out = new_file(out, suffixes=(".safetensors",), overwrite=overwrite)
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
