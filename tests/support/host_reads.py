"""Count what makes the host wait for the device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

ASKED = {Tensor.tolist, Tensor.numpy, Tensor.cpu}  # item, bool, float, int dispatch the first of:
DISPATCHED = {
    torch.ops.aten._local_scalar_dense.default,
    torch.ops.aten.nonzero.default,
    torch.ops.aten.is_nonzero.default,
    torch.ops.aten.equal.default,
}

INDEXED = {torch.ops.aten.index.Tensor, torch.ops.aten.index_put_.default}  # by a mask: nonzero


def _has_mask(indices: Sequence[Tensor | None]) -> bool:
    return any(index is not None and index.dtype == torch.bool for index in indices)


class _Asked(TorchFunctionMode):
    def __init__(self, found: list[str]) -> None:
        super().__init__()
        self.found = found

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func in ASKED:
            self.found.append(func.__name__)
        return func(*args, **(kwargs or {}))


class _Dispatched(TorchDispatchMode):
    def __init__(self, found: list[str]) -> None:
        super().__init__()
        self.found = found

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in DISPATCHED or (func in INDEXED and _has_mask(args[1])):
            self.found.append(str(func))
        return func(*args, **(kwargs or {}))


@contextmanager
def host_reads() -> Iterator[list[str]]:
    """The reads inside the block, on any device, forward and backward."""
    found: list[str] = []
    with _Asked(found), _Dispatched(found):
        yield found
