"""What every process of the rank tests runs for the losses that FALCON is compared with."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from falcon_ssl.losses import rows as loss_rows
from falcon_ssl.losses import sinkhorn, updated_center
from support.compared import LOSSES, WIDTH, views
from support.ranks import shard

# What `ranks.shard` splits.
LOCAL_ROWS = 12


def inputs(num: int) -> list[Tensor]:
    return views(num, rows=LOCAL_ROWS)


def result_of(name: str, rows: slice, *, parallel: bool) -> dict[str, Tensor]:
    """Values of the terms and gradients of a small network's parameters."""
    num, loss = LOSSES[name]
    torch.manual_seed(1)
    plain = nn.Sequential(nn.Linear(WIDTH, 8), nn.Tanh(), nn.Linear(8, WIDTH)).double()
    model = DistributedDataParallel(plain) if parallel else plain
    batch = torch.cat([view[rows] for view in inputs(num)])
    terms = loss(list(model(batch).chunk(num)))
    terms.total.backward()
    gradients = torch.cat([parameter.grad.flatten() for parameter in plain.parameters()])
    return {"values": torch.stack([t.detach() for t in terms]), "gradients": gradients}


def results_of(rows: slice, *, parallel: bool) -> dict[str, Any]:
    results: dict[str, Any] = {name: result_of(name, rows, parallel=parallel) for name in LOSSES}
    scores = inputs(1)[0]
    results["sinkhorn"] = sinkhorn(scores[rows], eps=0.2)
    results["center"] = updated_center(torch.ones(WIDTH).double(), [scores[rows]])
    return results


def work(rank: int, num_ranks: int) -> dict[str, Any]:
    """Everything that the tests compare with one process."""
    results: dict[str, Any] = {}
    for equal in (True, False):
        rows = shard(rank, num_ranks, equal=equal)
        results["equal" if equal else "unequal"] = {
            "rows": rows,
            **results_of(rows, parallel=True),
        }
    # Negative control: sums that carry no gradient over ranks.
    kept = loss_rows.all_reduce_sum
    loss_rows.all_reduce_sum = lambda x: x + (kept(x.detach()) - x.detach())
    results["detached"] = result_of(
        "self_classifier", shard(rank, num_ranks, equal=True), parallel=True
    )
    loss_rows.all_reduce_sum = kept
    return results
