"""What every process of the rank tests of training runs: steps with every dictionary, method and optimizer."""

from __future__ import annotations

import os
import tempfile
import time
import weakref
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch._dynamo  # optimizers import it: here once, before the ranks are forked
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from falcon_ssl.commands.features import untrained
from falcon_ssl.config.run import RunConfig, from_mapping
from falcon_ssl.core import distributed
from falcon_ssl.core.consent import trusting_code
from falcon_ssl.core.errors import LostRankError
from falcon_ssl.core.sharding import local
from falcon_ssl.data import TensorSource
from falcon_ssl.data.order import BatchPlan
from falcon_ssl.engine.accelerator import build_accelerator
from falcon_ssl.engine.checkpoint import (
    load_training,
    on_host,
    save_checkpoint,
    split_optimizer,
)
from falcon_ssl.engine.step import TrainingStep
from falcon_ssl.evaluation import extract
from falcon_ssl.methods import Method, build_method
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
SHARDED = (  # the first two on two ranks, all on four: one for every way in which weights or a teacher move
    "renyi2, LARS",
    "vicreg, Muon by blocks",
    "rademacher",
    "dino",
)
ACCUMULATED = ("hadamard, five views", "places, pooled", "swav", "dino")

STATE = {"step": 1, "num_steps": 8, "finished": False, "seconds": 0.0, "monitors": []} | {
    "kept_as": [],
    "num_processes": 1,
    "num_threads": 1,
    "scaler": None,
}


class SmallViT(nn.Module):
    """Blocks, and parameters outside of them; widths that two ranks and four do not divide evenly."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(SHAPE[0], 6, 2, stride=2)
        self.token = nn.Parameter(torch.zeros(1, 1, 6))
        layer = partial(nn.TransformerEncoderLayer, dropout=0.0, batch_first=True, norm_first=True)
        self.blocks = nn.ModuleList([layer(6, 2, 10) for _ in range(3)])
        self.norm = nn.LayerNorm(6)

    def forward(self, images: Tensor) -> Tensor:
        x = self.patches(images).flatten(2).mT
        x = torch.cat([self.token.expand(len(x), -1, -1), x], dim=1)
        for block in self.blocks:
            x = block(x)
        return self.norm(x[:, 0])


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
            "encoder": {"name": encoder} if ":" in encoder else {"name": encoder, "width": 4},
            **options,
            "views": plain | options.get("views", {}),
            "engine": {"device": "cpu", "precision": "no", **engine},
            "optim": {"name": "adamw", "warmup_epochs": 0} | options.get("optim", {}),
        }
    )


def engine_of(config: RunConfig, dtype: torch.dtype) -> tuple[Method, TrainingStep, list[Tensor]]:
    """A fresh method, what trains it, and the list that its losses join."""
    torch.manual_seed(0)
    with trusting_code(True):
        method = build_method(config, image_shape=SHAPE).to(dtype)
    accelerator = build_accelerator(config.engine)
    views = Cast(build_views(config.views), dtype)
    step = TrainingStep(method, views, config=config, num_steps=8, accelerator=accelerator)
    losses: list[Tensor] = []
    method.register_forward_hook(lambda _, __, out: losses.append(out.loss.detach()))
    return method, step, losses


def trained(
    config: RunConfig,
    *,
    rank: int = 0,
    num_ranks: int = 1,
    dtype: torch.dtype = torch.float64,
    then: RunConfig | None = None,
) -> dict[str, Tensor]:
    """Losses of all steps, the last one's norm of the gradient, and all parameters, buffers and moments after them.

    With ``then`` a checkpoint follows the first step, from which another engine goes on.
    """
    images = torch.randint(256, (40, *SHAPE), dtype=torch.uint8, generator=torch.Generator())
    plan = BatchPlan(len(images), ROWS, seed=0, rank=rank, world_size=num_ranks)
    method, step, losses = engine_of(config, dtype)
    for number, rows in enumerate([*plan.epoch_indices(0)][:STEPS]):
        if number == 1 and then is not None:
            method, step, losses = restarted(method, step, losses, then, dtype, writes=rank == 0)
        step(images[rows], number)
    norm = torch.tensor(step.terms()["grad_norm"])
    weights = on_host(method.state_dict())
    with step.whole_method() as whole:  # what monitors see
        for name, value in whole.state_dict().items():
            torch.testing.assert_close(value, weights[name], rtol=0, atol=0)
    moments, _ = split_optimizer(step.optimizer)
    step.close()
    return {**weights, **moments, "losses": torch.stack(losses), "norm": norm}


def restarted(
    method: Method,
    step: TrainingStep,
    losses: list[Tensor],
    then: RunConfig,
    dtype: torch.dtype,
    *,
    writes: bool,
) -> tuple[Method, TrainingStep, list[Tensor]]:
    """Another engine, from a checkpoint that all ranks read."""
    folder = [tempfile.mkdtemp()]
    dist.broadcast_object_list(folder)
    run = Path(folder[0])
    save_checkpoint(run, method=method, optimizer=step.optimizer, state=STATE, writes=writes)
    dist.barrier()
    step.close()
    method, step, more = engine_of(then, dtype)
    with torch.no_grad():
        for parameter in method.parameters():
            local(parameter).zero_()
    load_training(run, method, step.optimizer)
    dist.barrier()
    more += losses
    return method, step, more


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


def drawn(**ranks: int) -> Tensor:
    """Random numbers that a method draws in some steps, as dropout does [STEPS, 3]."""
    method, step, _ = engine_of(config_of("rademacher"), torch.float64)
    numbers: list[Tensor] = []
    method.register_forward_pre_hook(lambda *_: numbers.append(torch.rand(3)))
    for number in range(STEPS):
        step(torch.zeros(ROWS // ranks["num_ranks"], *SHAPE, dtype=torch.uint8), number)
    step.close()
    return torch.stack(numbers)


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
    grace, timeout = 1.0, 1.0
    group = dist.new_group(timeout=timedelta(seconds=timeout))
    dist.barrier()
    if rank == 1:
        time.sleep(timeout + 2 * grace)
        return ""
    try:
        with patch.object(distributed, "GRACE", grace), distributed.naming_lost_ranks():
            dist.all_reduce(torch.ones(1), group=group)
    except LostRankError as error:
        return str(error)
    return "nothing"


def work(rank: int, num_ranks: int) -> dict[str, Any]:
    """What is compared with one process, and what only several can show."""
    mine = _as_torchrun(rank, num_ranks)
    found: dict[str, Any] = {kind: trained(config_of(kind), **mine) for kind in KINDS}
    found["features"] = features()
    if num_ranks == 2:
        found["accumulate"] = {kind: trained(accumulating(kind), **mine) for kind in ACCUMULATED}
        found["float32"] = trained(config_of(MUON), **mine, dtype=torch.float32)
        found["drawn"], found["again"] = drawn(**mine), drawn(**mine)
        found["freed"] = is_ddp_freed(config_of("rademacher"))
        found["lost"] = lost_rank(rank)
    return found


def sharded_work(rank: int, num_ranks: int) -> dict[str, Any]:
    """Weights that are divided over ranks, and two steps of which one is taken with them and one without."""
    mine = _as_torchrun(rank, num_ranks)
    if num_ranks > 2:
        return {kind: trained(sharded(kind), **mine) for kind in SHARDED}
    found: dict[str, Any] = {kind: trained(sharded(kind), **mine) for kind in SHARDED[:2]}
    shards, plain = sharded("dino"), sharded("dino", shard=False)
    for before, after in ((shards, plain), (plain, shards)):
        found[f"{before.engine.shard} {after.engine.shard}"] = trained(before, then=after, **mine)
    return found


def _as_torchrun(rank: int, num_ranks: int) -> dict[str, int]:
    """Names this rank to Accelerate; returns it for `trained`."""
    os.environ |= {name: str(rank) for name in ("RANK", "LOCAL_RANK")}
    os.environ |= {"WORLD_SIZE": str(num_ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    return {"rank": rank, "num_ranks": num_ranks}


def sharded(kind: str, **engine: Any) -> RunConfig:
    """Blocks whose weights are divided over ranks; equal to one process, which has nothing to divide."""
    name = "python:support.training_ranks:SmallViT"
    return config_of(kind, encoder=name, **{"shard": True, **engine})


def accumulating(kind: str, parts: int = 4) -> RunConfig:
    """An encoder without batch statistics, which sees a batch in parts."""
    return config_of(kind, encoder="resnet8", accumulate=parts)
