"""Write the encoder's weights, for any other tool."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from falcon_ssl.commands.files import new_file
from falcon_ssl.commands.loading import load_method, readout_width, seen_shape
from falcon_ssl.engine import RunFolder
from falcon_ssl.networks import Readout
from falcon_ssl.records.folder import DATA


def export(
    run: str | Path,
    *,
    out: str | Path,
    evaluation: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write the encoder alone as .safetensors, with what is needed to use it and what to read off it in its header.

    The names are those of the encoder's own ``state_dict``; for ResNets these are torchvision's and timm's. The images
    of the run are not needed.

    Args:
        run: The run folder.
        out: The file.
        evaluation: Options of `EvaluationConfig` in place of the run's own: another readout.
        overwrite: Replace the file if there is one.

    Raises:
        InputError: As `load_run`, or a file that may not be written.
    """
    from safetensors.torch import save_file

    out = new_file(out, suffixes=(".safetensors",), overwrite=overwrite)
    config, method, views = load_method(run, evaluation=evaluation)
    channels, height, width = RunFolder.open(run).read_json(DATA)["image_shape"]
    about = {
        "encoder": asdict(config.encoder),
        "image_shape": seen_shape((channels, height, width), views),
        "normalization": asdict(views.normalization),
        "readout": asdict(Readout.of(config.evaluation)),
        "numbers_read": readout_width(config, method, views, (channels, height, width)),
        "data": config.data,
        "method": config.method,
    }
    tensors = {
        name: value.contiguous() for name, value in method.evaluated_encoder.state_dict().items()
    }
    save_file(tensors, out, metadata={"falcon_ssl": json.dumps(about)})
    return out
