"""What every process of the rank tests of training runs: steps with every dictionary, method and optimizer."""

from __future__ import annotations

import os
import time
import weakref
from datetime import timedelta
from typing import Any
from unittest.mock import patch

import torch
import torch._dynamo  # optimizers import it: here once, before the ranks are forked
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from falcon_ssl.commands.features import untrained
from falcon_ssl.config.run import RunConfig, from_mapping
from falcon_ssl.core import distributed
from falcon_ssl.core.errors import LostRankError
from falcon_ssl.data import TensorSource
from falcon_ssl.data.order import BatchPlan
from falcon_ssl.engine.accelerator import build_accelerator
from falcon_ssl.engine.step import TrainingStep
from falcon_ssl.evaluation import extract
from falcon_ssl.methods import build_method
from falcon_ssl.views import Views, build_views

SHAPE, ROWS, STEPS = (1, 8, 8), 18, 2
HEAD = {"hidden_dim": 12, "embed_dim": 8}
CODES = {"dictionary": "rademacher", "embed_dim": 8, "num_codes": 24}
MANY = {"count": 3, "small_views": 2, "small_size": 6}
SMALL = {"small_views": 2, "small_size": 6}

KINDS: dict[str, dict[str, Any]] = {
    "rademacher": {"falcon": CODES},
    "hadamard, five views": {"falcon": {**CODES, "dictionary": "hadamard"}, "views": MANY},
    "complete": {"falcon": {"embed_dim": 8, "dictionary": "complete"}},
    "series, five views": {
        "falcon": {"embed_dim": 8, "dictionary": "complete", "kernel_order": 3},
        "views": MANY,
    },
    "places, pooled": {"falcon": {**CODES, "places": True, "marginal": "pooled"}},
    "prior, momentum, five views": {
        "falcon": {**CODES, "prior_exponent": 1.0, "marginal_momentum": 0.9},
        "views": MANY,
    },
    "forward matching, Muon": {
        "falcon": {**CODES, "prior_matching": "forward"},
        "optim": {"name": "muon"},
    },
    "renyi2, LARS": {"falcon": {**CODES, "prior_matching": "renyi2"}, "optim": {"name": "lars"}},
    "barlow_twins": {"barlow_twins": HEAD},
    "vicreg, Muon by blocks": {
        "vicreg": HEAD,
        "optim": {"name": "muon", "block_rows": 5},
    },
    "swav": {"swav": {**HEAD, "num_prototypes": 10, "queue_length": 20}, "views": SMALL},
    "self_classifier": {"self_classifier": {**HEAD, "num_prototypes": [10, 4]}, "views": MANY},
    "gedi": {
        "gedi": {
            "hidden_dim": 12,
            "num_prototypes": 10,
            "generative": True,
            "sgld_steps": 2,
            "buffer_size": 24,
        }
    },
    "dino": {"dino": {**HEAD, "num_prototypes": 10, "teacher_momentum": 0.5}, "views": SMALL},
    "lejepa": {"lejepa": {**HEAD, "num_directions": 5}, "views": SMALL},
    "simclr": {"simclr": HEAD},
    "byol": {"byol": {**HEAD, "target_momentum": 0.5}},
}
MUON = "forward matching, Muon"
ACCUMULATED = ("hadamard, five views", "places, pooled", "swav", "dino")


class Cast:
    """Views of another precision."""

    def __init__(self, views: Views, dtype: torch.dtype) -> None:
        self.views, self.dtype = views, dtype

    def at(self, progress: float) -> Cast:
        return Cast(self.views.at(progress), self.dtype)

    def __call__(self, images: Tensor, *, generator: Any) -> list[Tensor]:
        return [view.to(self.dtype) for view in self.views(images, generator=generator)]


def config_of(kind: str, *, encoder: str = "digits_cnn", **engine: Any) -> RunConfig:
    options = KINDS[kind]
    method = next(iter(options))
    plain = {"preset": "grayscale", "size": 8}
    return from_mapping(
        {
            "method": method,
            "batch_size": ROWS,
            "epochs": 4,
            "encoder": {"name": encoder, "width": 4},
            **options,
            "views": plain | options.get("views", {}),
            "engine": {"device": "cpu", "precision": "no", **engine},
            "optim": {"name": "adamw", "warmup_epochs": 0} | options.get("optim", {}),
        }
    )


def trained(
    config: RunConfig, *, rank: int = 0, num_ranks: int = 1, dtype: torch.dtype = torch.float64
) -> dict[str, Tensor]:
    """Losses of all steps, and all parameters, buffers and moments after them."""
    torch.manual_seed(0)
    method = build_method(config, image_shape=SHAPE).to(dtype)
    accelerator = build_accelerator(config.engine)
    views = Cast(build_views(config.views), dtype)
    step = TrainingStep(method, views, config=config, num_steps=8, accelerator=accelerator)
    losses: list[Tensor] = []
    method.register_forward_hook(lambda _, __, out: losses.append(out.loss.detach()))
    images = torch.randint(256, (40, *SHAPE), dtype=torch.uint8)
    plan = BatchPlan(len(images), ROWS, seed=0, rank=rank, world_size=num_ranks)
    for number, rows in enumerate([*plan.epoch_indices(0)][:STEPS]):
        step(images[rows], number)
    step.terms()
    moments = step.optimizer.state_dict()["state"]
    state = {f"{k}.{name}": v for k, one in moments.items() for name, v in one.items()}
    return {**method.state_dict(), **state, "losses": torch.stack(losses)}


def is_ddp_freed(config: RunConfig) -> bool:
    """Whether nothing holds DDP once a step is closed; it must not outlive the process group."""
    method = build_method(config, image_shape=SHAPE)
    accelerator = build_accelerator(config.engine)
    views = build_views(config.views)
    step = TrainingStep(method, views, config=config, num_steps=8, accelerator=accelerator)
    step(torch.zeros(ROWS // 2, *SHAPE, dtype=torch.uint8), 0)
    ddp = weakref.ref(step._model)
    assert isinstance(ddp(), DistributedDataParallel)
    step.close()
    return ddp() is None


def features() -> dict[str, Tensor]:
    """Features of some images in another order, and of the untrained network of a run."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (90, *SHAPE), dtype=torch.uint8, generator=generator)
    source, config = TensorSource(images, name="noise"), config_of("rademacher")
    torch.manual_seed(1)
    trained = build_method(config, image_shape=SHAPE)
    other = untrained(config, source, trained=trained, device=torch.device("cpu"))
    views = build_views(config.views)
    with patch.object(distributed, "CHUNK", 7):
        one = extract(trained, source, views, indices=torch.arange(89, 9, -2), batch_size=6)
        two = extract(other, source, views, dictionary=other.dictionary)
    assert one.u is not None
    assert one.index is not None
    assert two.code is not None
    return {"z": one.z, "u": one.u, "index": one.index, "untrained": two.z, "code": two.code}


def lost_rank(rank: int) -> str:
    """What a rank says of another that stands still for longer than the timeout."""
    group = dist.new_group(timeout=timedelta(seconds=2))
    dist.barrier()
    if rank == 1:
        time.sleep(2 + distributed.GRACE)
        return ""
    try:
        with distributed.naming_lost_ranks():
            dist.all_reduce(torch.ones(1), group=group)
    except LostRankError as error:
        return str(error)
    return "nothing"


def work(rank: int, num_ranks: int) -> dict[str, Any]:
    """What is compared with one process, and what only several can show."""
    os.environ |= {name: str(rank) for name in ("RANK", "LOCAL_RANK")}
    os.environ |= {"WORLD_SIZE": str(num_ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    mine = {"rank": rank, "num_ranks": num_ranks}
    found: dict[str, Any] = {kind: trained(config_of(kind), **mine) for kind in KINDS}
    found["features"] = features()
    if num_ranks == 2:
        found["accumulate"] = {kind: trained(accumulating(kind), **mine) for kind in ACCUMULATED}
        found["float32"] = trained(config_of(MUON), **mine, dtype=torch.float32)
        found["freed"] = is_ddp_freed(config_of("rademacher"))
        found["lost"] = lost_rank(rank)
    return found


def accumulating(kind: str, parts: int = 4) -> RunConfig:
    """An encoder without batch statistics, which sees a batch in parts."""
    return config_of(kind, encoder="resnet8", accumulate=parts)
