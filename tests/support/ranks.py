"""What every process of the rank tests runs; imported once by the server that forks them."""

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from falcon_ssl import FalconLoss, FalconProjector, InputError, RademacherDictionary, falcon_loss
from falcon_ssl.dictionary.complete import CompleteDictionary
from falcon_ssl.dictionary.hadamard import HadamardDictionary
from falcon_ssl.losses.falcon import chunked as falcon_chunked
from falcon_ssl.losses.falcon import reference as falcon_reference
from falcon_ssl.networks.batchnorm import use_global_batch_norm

WIDTH, CODES, ROWS = 8, 60, 12


def problems():
    """Name -> how to build the loss: every path that sums over ranks."""
    random, structured = RademacherDictionary(CODES, WIDTH), HadamardDictionary(CODES, WIDTH)
    return {
        "reference": lambda: FalconLoss(random, beta=0.7, backend="reference"),
        "dense": lambda: FalconLoss(random, beta=0.7, backend="dense"),
        "chunked": lambda: FalconLoss(random, beta=0.7, backend="chunked", block_size=25),
        "chunked forward": lambda: FalconLoss(random, prior_matching="forward", block_size=7),
        "chunked saturated": lambda: FalconLoss(random, temperature=1e-4, block_size=25),
        "hadamard renyi2": lambda: FalconLoss(structured, prior_matching="renyi2"),
        "momentum": lambda: FalconLoss(random, marginal_momentum=0.9, block_size=25),
        "complete": lambda: FalconLoss(CompleteDictionary(WIDTH), temperature=0.4),
        "places": lambda: ByPlace(random, block_size=25),
        "dense pooled places": lambda: ByPlace(random, backend="dense", marginal="pooled"),
        "complete, some places": lambda: ByPlace(
            CompleteDictionary(WIDTH, kernel_places=1), marginal="pooled"
        ),
        "complete pooled places": lambda: ByPlace(CompleteDictionary(WIDTH), marginal="pooled"),
        "series": lambda: ByPlace(CompleteDictionary(WIDTH, kernel_order=3)),
        "series pooled": lambda: ByPlace(
            CompleteDictionary(WIDTH, kernel_order=3), marginal="pooled"
        ),
    }


class ByPlace(FalconLoss):
    """Views of two places, the second a shifted copy of the first."""

    def forward(self, *views, num_targets):
        views = [torch.stack([u, u.roll(1, dims=1)], dim=1) for u in views]
        return super().forward(*views, num_targets=num_targets)


class Network(nn.Module):
    """Encoder with a BatchNorm of its own, and projector."""

    def __init__(self):
        super().__init__()
        self.encoder = use_global_batch_norm(
            nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.Tanh())
        )
        self.projector = FalconProjector(16, WIDTH)

    def forward(self, x):
        return self.projector(self.encoder(x))


def views():
    """Four views; every problem is computed with all targets of two, one of two and two of four."""
    generator = torch.Generator().manual_seed(0)
    base, *noise = torch.randn(5, ROWS, 6, generator=generator).double()
    return [base + 0.3 * one for one in noise]


def network():
    torch.manual_seed(1)
    return Network().double()


def losses_and_gradients(rows, *, parallel, names=None):
    """Three steps' values, and the parameter gradients of the last, of all or some problems on the given rows."""
    of_rows = [view[rows] for view in views()]
    results = {}
    for name in names or problems():
        plain, loss = network(), problems()[name]()
        model = DistributedDataParallel(plain) if parallel else plain
        values = []
        for num_views, num_targets in ((2, 2), (2, 1), (4, 2)):
            plain.zero_grad()
            u_MF = model(torch.cat([(1 + num_views / 40) * x for x in of_rows[:num_views]]))
            terms = loss(*u_MF.chunk(num_views), num_targets=num_targets)
            terms.total.backward()
            values.append(list(terms.as_floats().values()))
        gradients = torch.cat([parameter.grad.flatten() for parameter in plain.parameters()])
        buffers = torch.cat([buffer.double().flatten() for buffer in plain.buffers()])
        results[name] = {"values": torch.tensor(values), "gradients": gradients, "buffers": buffers}
    return results


def shard(rank, world_size, *, equal):
    """This rank's share of the rows; unequal: the last rank has most."""
    bounds = [round(ROWS * r / world_size) for r in range(world_size + 1)]
    if not equal:
        bounds = [0, *range(3, 3 + 2 * (world_size - 1), 2), ROWS]
    return slice(bounds[rank], bounds[rank + 1])


def disagreements(rank):
    """Error texts of ranks that hold different dictionaries or options."""
    u = torch.eye(4, WIDTH, dtype=torch.float64)
    plain = {"dictionary": RademacherDictionary(CODES, WIDTH), "logit_scale": 3.0}
    cases = {
        "seed": {"dictionary": RademacherDictionary(CODES, WIDTH, seed=rank)},
        "codes": {"dictionary": RademacherDictionary(CODES + rank, WIDTH)},
        "scale": {"logit_scale": 3.0 + rank},
        "precision": {"input_precision": ["tf32", "ieee", "bf16x3"][rank]},
        "blocks": {"backend": "chunked", "block_size": 8 + rank},
        "momentum": {
            "marginal_momentum": 0.5 + rank / 8,
            "running_marginal": torch.zeros(CODES, dtype=torch.float64),
        },
    }
    messages = {}
    for name, different in cases.items():
        try:
            falcon_loss((u, u), **plain | different)
        except InputError as error:
            messages[name] = str(error)
    return messages


def controls(rank, world_size):
    """Gradients that a local marginal and a detached sum would give: the comparison must tell them apart."""
    wrong = {}
    kept = falcon_reference.all_reduce_sum, falcon_chunked.all_reduce_sum_async

    def gradients(name):
        rows = shard(rank, world_size, equal=True)
        return losses_and_gradients(rows, parallel=True, names=[name])[name]["gradients"]

    try:
        falcon_reference.all_reduce_sum = lambda x: x + (kept[0](x.detach()) - x.detach())
        wrong["detached"] = gradients("reference")
        falcon_reference.all_reduce_sum = kept[0]
        # Only this rank's rows, as if they were all.
        falcon_chunked.all_reduce_sum_async = lambda x: lambda: x * world_size
        wrong["local"] = gradients("chunked")
    finally:
        falcon_reference.all_reduce_sum, falcon_chunked.all_reduce_sum_async = kept
    return wrong


def work(rank, num_ranks):
    """Everything that the tests compare with one process."""
    results = {
        "equal": losses_and_gradients(shard(rank, num_ranks, equal=True), parallel=True),
        "unequal": losses_and_gradients(shard(rank, num_ranks, equal=False), parallel=True),
        "disagreements": disagreements(rank),
    }
    if num_ranks == 2:
        results["controls"] = controls(rank, num_ranks)
    return results
