"""Parameters that are divided over ranks by torch's FSDP2: this rank's rows, the whole, and norms of the whole.

DTensor    what FSDP registers in a module: rows chunk(w, R)[r] of a parameter w, on rank r of R
Shard      the same rows as a plain tensor: what an optimizer moves
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from falcon_ssl.core.errors import InputError

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


class Shard(nn.Parameter):
    """This rank's rows of a parameter, with the memory of its DTensor; may be empty.

    Attributes:
        whole: The DTensor.
    """

    whole: DTensor

    @classmethod
    def of(cls, whole: Tensor) -> Shard:
        """The rows of a DTensor."""
        rows = torch.Tensor._make_subclass(cls, local(whole), whole.requires_grad)
        rows.whole = cast("DTensor", whole)
        return rows

    def take_gradient(self) -> None:
        """Take over the gradient that FSDP has left in the DTensor, and its memory should it have moved."""
        grad, self.whole.grad = self.whole.grad, None
        self.data = local(self.whole)
        self.grad = None if grad is None else local(grad)


def divide(module: nn.Module, blocks: Sequence[nn.Module]) -> None:
    """Divide the parameters of a module over all ranks: each is whole only while its block computes.

    Args:
        module: Called as a whole; what is in no block is gathered when it is called.
        blocks: Modules inside, gathered one after the other, in the forward and again in the backward pass.

    Raises:
        InputError: This torch has no FSDP2.

    Source:
        https://docs.pytorch.org/docs/stable/distributed.fsdp.fully_shard.html
    """
    try:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard
    except ImportError as error:
        raise InputError(
            "this torch cannot divide weights over ranks",
            received=f"torch {torch.__version__}",
            expected="torch.distributed.fsdp.fully_shard",
            fix="leave out engine.shard, or install a newer torch",
        ) from error
    with torch.no_grad():
        for parameter in module.parameters():  # FSDP takes no channels_last
            parameter.data = parameter.contiguous()
    device = next(module.parameters()).device.type
    mesh = init_device_mesh(device, (dist.get_world_size(),))
    # FSDP hangs its backward pass on the output, which an operation in place on a view would lose.
    module.register_forward_hook(lambda _, __, z: z.clone())
    # True for the module too: a teacher has no backward pass, and would keep weights of the step before.
    for part in (*blocks, module):
        fully_shard(part, mesh=mesh, reshard_after_forward=True)


def local(x: Tensor) -> Tensor:
    """This rank's rows of a DTensor, with its memory; a plain tensor is its own."""
    if not hasattr(x, "to_local"):
        return x
    with torch.no_grad():
        rows: Tensor = x.to_local()
    return rows


def gathered(x: Tensor, parameter: Tensor | None = None) -> Tensor:
    """The whole of a DTensor, or of what has the rows of a `Shard`; every rank calls it.

    Args:
        x: A tensor; one that is not divided is its own whole.
        parameter: Where ``x`` is a plain tensor: the parameter that it belongs to.
    """
    if isinstance(parameter, Shard):
        x = _divided(x, parameter.whole)
    whole: Tensor = x.full_tensor() if hasattr(x, "full_tensor") else x
    return whole


def rows_of(x: Tensor, parameter: Tensor) -> Tensor:
    """This rank's rows of a whole tensor of the shape of a parameter; all of it where that is not divided."""
    if not isinstance(parameter, Shard):
        return x
    parts = x.chunk(dist.get_world_size())  # R of them or fewer
    return parts[dist.get_rank()] if dist.get_rank() < len(parts) else x[:0]


def divided_as(x: Tensor, other: Tensor) -> Tensor:
    """A whole tensor divided as another one is; itself where that is a plain tensor."""
    if not hasattr(other, "full_tensor") or x.ndim == 0:
        return x
    return _divided(rows_of(x, Shard.of(other)), cast("DTensor", other), like=x)


def whole_shape(parameter: Tensor) -> torch.Size:
    """The shape of a parameter, all of its rows."""
    return parameter.whole.shape if isinstance(parameter, Shard) else parameter.shape


def whole_norms(norms: Sequence[Tensor], parameters: Sequence[Tensor]) -> list[Tensor]:
    """Euclidean norms of whole tensors from those of the rows that are here; every rank calls it.

    Args:
        norms: 0-dim; of tensors that are not divided they are whole.
        parameters: What they belong to.
    """
    if not any(_is_divided(parameter) for parameter in parameters):
        return list(norms)
    return [one.sqrt() for one in whole_sums([norm.square() for norm in norms], parameters)]


def whole_sums(sums: Sequence[Tensor], parameters: Sequence[Tensor]) -> list[Tensor]:
    """Sums over whole tensors from those over the rows that are here; see `whole_norms`."""
    found = list(sums)
    mine = [i for i, parameter in enumerate(parameters) if _is_divided(parameter)]
    if mine:
        total = torch.stack([sums[i] for i in mine])
        dist.all_reduce(total)
        for i, one in zip(mine, total, strict=True):
            found[i] = one
    return found


@torch.no_grad()
def copy_from_first(tensors: Iterable[Tensor]) -> None:
    """Give every rank the values of rank 0, in place, as DDP does when it begins."""
    for tensor in tensors:
        values = tensor.detach().contiguous()
        dist.broadcast(values, 0)
        tensor.copy_(values)


def average(tensors: Sequence[Tensor]) -> None:
    """Bring tensors to their mean over ranks, in place: what DDP does to gradients."""
    kinds: dict[torch.dtype, list[Tensor]] = {}
    for tensor in tensors:
        kinds.setdefault(tensor.dtype, []).append(tensor)
    for same in kinds.values():
        flat = torch.cat([tensor.flatten() for tensor in same])
        dist.all_reduce(flat)
        flat /= dist.get_world_size()
        parts = torch.split(flat, [tensor.numel() for tensor in same])
        for tensor, part in zip(same, parts, strict=True):
            tensor.copy_(part.view_as(tensor))


def _is_divided(x: Tensor) -> bool:
    return isinstance(x, Shard) or hasattr(x, "full_tensor")


def _divided(rows: Tensor, whole: DTensor, *, like: Tensor | None = None) -> DTensor:
    """The DTensor of these rows, placed as another; ``like``: of the shape of a third."""
    from torch.distributed.tensor import DTensor

    of = whole if like is None else like
    return DTensor.from_local(
        rows.contiguous(),
        whole.device_mesh,
        whole.placements,
        run_check=False,
        shape=of.shape,
        stride=of.stride(),
    )
