"""What a step costs on many GPUs: counts that are measured here, and a model of time made of them.

    python benchmarks/scaling.py --out results/scaling

Measured, on any machine: parameters and products of an encoder (on torch's meta device), what autograd keeps of an
image (two images on the CPU), products of the loss, calls and bytes of its communication (torch's fake process group).
Modelled: everything in seconds, by the assumptions in `Machine`, none of which we have measured.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch import Tensor
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils.flop_counter import FlopCounterMode

from falcon_ssl import FalconLoss, FalconProjector, RademacherDictionary
from falcon_ssl.core.devices import hardware
from falcon_ssl.engine import environment
from falcon_ssl.losses.falcon import chunked
from falcon_ssl.networks.timm import import_beside_torchvision

timm = import_beside_torchvision("timm")

ENCODERS = {
    "ViT-S/16": "vit_small_patch16_224",
    "ViT-B/16": "vit_base_patch16_224",
    "ViT-L/16": "vit_large_patch16_224",
    "ViT-g/14": "vit_giant_patch14_224",
}
CODES = (65_536, 1_048_576, 10_485_760)
GPUS = (8, 32, 64, 256, 1024)
VIEWS, WIDTH, IMAGES = 2, 256, 64  # views of 224 pixels, F, images of a GPU


@dataclass(frozen=True)
class Machine:
    """Assumptions: an H100 SXM and its links, from data sheets, and the fraction of them that is reached."""

    flops: float = 989e12  # bfloat16, dense
    reached: float = 0.4  # of them, by encoder and loss alike
    memory: float = 3.35e12  # bytes a second
    inside: float = 300e9  # bytes a second of an all-reduce inside a node of eight
    between: float = 150e9  # over nodes with a 400 Gb/s link a GPU
    latency_inside: float = 20e-6  # seconds a collective
    latency_between: float = 15e-6  # more, for every doubling of the nodes


def encoder_counts(name: str) -> dict[str, float]:
    """Parameters, and floating point operations of one image of 224 pixels, forward and backward."""
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=0)
        with FlopCounterMode(display=False) as forward:
            z = model(torch.empty(1, 3, 224, 224))
        with FlopCounterMode(display=False) as backward:
            z.sum().backward()
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "width": z.shape[1],
        "depth": len(model.blocks),
        "tokens": model.pos_embed.shape[1],
        "forward": forward.get_total_flops(),
        "backward": backward.get_total_flops(),
    }


def kept_of_an_image(name: str) -> int:
    """Bytes that autograd keeps between forward and backward, beside the weights, under bfloat16 autocast."""
    model = timm.create_model(name, num_classes=0)
    weights = {p.data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    sizes = []
    for images in (1, 2):  # their difference has no bfloat16 copies of weights in it
        kept.clear()
        with (
            torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
            torch.autocast("cpu", torch.bfloat16),
        ):
            z = model(torch.randn(images, 3, 224, 224))
        sizes.append(sum(kept.values()))
        del z
    return sizes[1] - sizes[0]


@contextmanager
def counted() -> Iterator[list[int]]:
    """Bytes of every collective."""
    found: list[int] = []
    plain = {name: getattr(dist, name) for name in ("all_reduce", "all_gather")}

    def noting(name: str) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            sent = args[-1] if name == "all_gather" else args[0]
            found.append(sent.nbytes)
            return plain[name](*args, **options)

        return call

    with (
        patch.object(dist, "all_reduce", noting("all_reduce")),
        patch.object(dist, "all_gather", noting("all_gather")),
    ):
        yield found


def loss_counts() -> dict[str, float]:
    """Of projector and loss: products in units of V N F C, collectives, and their bytes in units of C."""
    dist.init_process_group("fake", rank=0, world_size=8, store=FakeStore())
    rows, results = 32, {}
    for codes in (4096, 8192):
        projector = FalconProjector(WIDTH, WIDTH)
        loss = FalconLoss(RademacherDictionary(codes, WIDTH), backend="chunked", block_size=4096)
        z = torch.randn(VIEWS * rows, WIDTH, requires_grad=True)
        with (
            patch.object(chunked, "KEEP_BYTES", 0),
            counted() as sent,
            FlopCounterMode(display=False) as flops,
        ):
            loss(*projector(z).chunk(VIEWS)).total.backward()
        results[codes] = (flops.get_total_flops(), len(sent), sum(sent))
    dist.destroy_process_group()
    (few, calls, small), (many, more_calls, large) = results.values()
    return {
        "products": (many - few) / (2 * VIEWS * rows * WIDTH * 4096),
        "collectives": calls,
        "collectives_a_block": more_calls - calls,
        "bytes_a_code": (large - small) / 4096,
        "other_bytes": small - (large - small),
    }


def cpu_seconds() -> dict[str, float]:
    """Seconds of one core in float32: of an image through ViT-S and back, and of the loss a row and code."""
    torch.set_num_threads(1)
    model = timm.create_model(ENCODERS["ViT-S/16"], num_classes=0)
    x, rows, codes = torch.randn(4, 3, 224, 224), 128, 32_768
    model(x).sum().backward()
    start = time.process_time()
    model(x).sum().backward()
    of_image = (time.process_time() - start) / len(x)
    loss = FalconLoss(RademacherDictionary(codes, WIDTH), backend="chunked")
    u = torch.nn.functional.normalize(torch.randn(rows, WIDTH), dim=1).requires_grad_()
    with patch.object(chunked, "KEEP_BYTES", 0):
        loss(*u.chunk(VIEWS)).total.backward()
        start = time.process_time()
        loss(*u.chunk(VIEWS)).total.backward()
    return {"image": of_image, "row_and_code": (time.process_time() - start) / rows / codes}


def step(
    encoder: dict[str, float], loss: dict[str, float], codes: int, gpus: int, on: Machine
) -> dict[str, float]:
    """The model: seconds and gigabytes of one GPU in one step."""
    rows, speed = VIEWS * IMAGES, on.flops * on.reached
    forward, backward = (rows * encoder[name] / speed for name in ("forward", "backward"))
    inside = gpus <= 8
    link = on.inside if inside else on.between
    latency = on.latency_inside + on.latency_between * math.log2(max(1, gpus / 8))
    ring = 2 * (gpus - 1) / gpus / link
    products = 2 * loss["products"] * rows * WIDTH * codes / speed
    # Blocks of codes, unpacked and read in bfloat16, three times.
    signs = 3 * 2 * 2 * WIDTH * codes / on.memory
    marginal, gradient = loss["bytes_a_code"] * codes * ring, 4 * encoder["parameters"] * ring
    exposed = max(0.0, gradient - 0.8 * backward) + max(0.0, marginal - products / 4)
    waits = loss["collectives"] * latency
    total = forward + backward + products + signs + exposed + waits
    kept = encoder["kept"] * rows
    return {
        "encoder_ms": 1e3 * (forward + backward),
        "loss_ms": 1e3 * (products + signs),
        "communication_ms": 1e3 * (exposed + waits),
        "step_ms": 1e3 * total,
        "images_per_s": IMAGES * gpus / total,
        "efficiency": (forward + backward + products + signs) / total,
        "weights_gb": 16 * encoder["parameters"] / 1e9,
        "kept_gb": kept / 1e9,
        "kept_gb_of_8_parts": kept / 8e9,
        "codes_gb": codes * (WIDTH / 8 + 4 * VIEWS) / 1e9,
        "sent_gb": (4 * encoder["parameters"] + loss["bytes_a_code"] * codes) / 1e9,
    }


def main() -> None:
    """Count, model, write scaling.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    out: Path = parser.parse_args().out
    encoders = {name: encoder_counts(model) for name, model in ENCODERS.items()}
    small = encoders["ViT-S/16"]
    unit = kept_of_an_image(ENCODERS["ViT-S/16"]) / (
        small["tokens"] * small["width"] * small["depth"]
    )
    for one in encoders.values():
        one["kept"] = unit * one["tokens"] * one["width"] * one["depth"]
    loss, machine = loss_counts(), Machine()
    steps = [
        {"encoder": name, "codes": codes, "gpus": gpus, **step(one, loss, codes, gpus, machine)}
        for name, one in encoders.items()
        for codes in CODES
        for gpus in GPUS
    ]
    record = {
        "measured": {
            "encoders": encoders,
            "loss": loss,
            "kept_bytes_a_token_and_width": unit,
            "cpu_seconds": cpu_seconds(),
            **environment(hardware(torch.device("cpu"))),
        },
        "assumed": {**asdict(machine), "views": VIEWS, "width": WIDTH, "images_a_gpu": IMAGES},
        "modelled": steps,
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "scaling.json").write_text(json.dumps(record, indent=1))
    print(json.dumps(record["measured"], indent=1))
    for one in steps:
        print(" | ".join(f"{v:.3g}" if isinstance(v, float) else str(v) for v in one.values()))


if __name__ == "__main__":
    main()
