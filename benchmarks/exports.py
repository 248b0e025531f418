"""How well every export agrees with the library, on 100 images: one network a row, one kind of folder a column.

python benchmarks/exports.py --data parquet:imagenette224

Every network is trained for a moment on a few images, exported to every library that has it, and compared by the
command itself. The largest difference is given as a fraction of the largest number.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

from falcon_ssl import commands
from falcon_ssl.commands.formats import ABOUT
from falcon_ssl.config import (
    EncoderConfig,
    EngineConfig,
    EvaluationConfig,
    FalconConfig,
    MonitorConfig,
    ReadingConfig,
    RunConfig,
)
from falcon_ssl.core.errors import InputError
from record import arguments, machine, markdown, write_record

KINDS = ("safetensors", "timm", "hf", "onnx", "torch")
NETWORKS: dict[str, tuple[EncoderConfig, EvaluationConfig]] = {
    "digits_cnn": (EncoderConfig("digits_cnn"), EvaluationConfig("last_two", mirror=True)),
    "whitened_cnn": (
        EncoderConfig("whitened_cnn", head_width=512),
        EvaluationConfig("last_four", mirror=True),
    ),
    "whitened_cnn, 9 crops": (EncoderConfig("whitened_cnn"), EvaluationConfig(crops=9)),
    "resnet8": (EncoderConfig("resnet8", width=32), EvaluationConfig("last_three")),
    "resnet18, stem cifar": (
        EncoderConfig("resnet18", width=16, stem="cifar"),
        EvaluationConfig("pooled2x2"),
    ),
    "resnet18": (EncoderConfig("resnet18"), EvaluationConfig()),
    "resnet50": (EncoderConfig("resnet50"), EvaluationConfig()),
    "timm:vit_small_patch16_224": (
        EncoderConfig("timm:vit_small_patch16_224"),
        EvaluationConfig("last_n", mirror=True),
    ),
    "timm:convnext_atto": (EncoderConfig("timm:convnext_atto"), EvaluationConfig()),
}


def measured(data: str, encoder: EncoderConfig, evaluation: EvaluationConfig) -> dict[str, Any]:
    """The agreement of every kind of folder; None where a library does not have the network."""
    config = RunConfig(
        data=data,
        epochs=1,
        batch_size=32,
        encoder=encoder,
        evaluation=evaluation,
        falcon=FalconConfig(dictionary="rademacher", num_codes=256, embed_dim=32),
        reading=ReadingConfig(image_size=64, holdout=0.9),
        monitor=MonitorConfig(every_epochs=0),
        engine=EngineConfig(precision="no"),
    )
    with tempfile.TemporaryDirectory() as folder:
        run = commands.pretrain(config, out=Path(folder, "run"), monitors=[])
        found: dict[str, Any] = {}
        for to in KINDS:
            started = time.perf_counter()
            try:
                out = commands.export(run, out=Path(folder, to), to=to)
            except InputError:
                found[to] = None
                continue
            verified = json.loads((out / ABOUT).read_text(encoding="utf-8"))["verified"]
            found[to] = verified | {"seconds": round(time.perf_counter() - started, 1)}
    return found


def main() -> None:
    """Measure, write the record and print the table."""
    parser = arguments(__doc__ or "", "exports")
    parser.add_argument(
        "--data", required=True, help="images of any size: parquet:DIR, folder:PATH"
    )
    options = parser.parse_args()
    rows = {name: measured(options.data, *of) for name, of in NETWORKS.items()}
    cells = [
        [
            name,
            *(
                "–" if one is None else f"{one['relative_difference']:.0e}"
                for one in found.values()
            ),
        ]
        for name, found in rows.items()
    ]
    table = "\n".join(markdown(["network", *KINDS], cells)) + "\n"
    write_record(options.out, {"about": machine(), "rows": rows}, table)


if __name__ == "__main__":
    main()
