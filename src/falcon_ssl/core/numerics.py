"""Sums in full precision: of matrix products, and of statistics."""

from __future__ import annotations

import torch
from torch import Tensor


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """a @ b, accumulated and returned in float32 for half precision and in its own dtype otherwise.

    Args:
        a: [N, K], any floating dtype.
        b: [K, M], the dtype of ``a``.

    Returns:
        [N, M], float64 for float64, else float32.

    Numerics:
        On CUDA nothing is rounded between the accumulator and the result. A CPU has no such product: there bfloat16
        results are rounded once to bfloat16, and float16, for which a CPU has no fast product, is computed in float32.
    """
    if a.dtype not in (torch.bfloat16, torch.float16):
        return a @ b
    if a.is_cuda and hasattr(torch.ops.aten.mm, "dtype"):  # torch >= 2.8
        return torch.mm(a, b, out_dtype=torch.float32)
    if a.is_cuda or a.dtype == torch.float16:
        return a.float() @ b.float()
    return (a @ b).float()


def with_float64(x: Tensor) -> Tensor:
    """The tensor where float64 can be computed: itself, or a copy on the CPU for a device without it, MPS."""
    return x.cpu() if x.device.type == "mps" else x


def at_least_float32(x: Tensor) -> Tensor:
    """The dtype in which statistics are accumulated: float64 stays, everything else becomes float32."""
    return x if x.dtype == torch.float64 else x.float()
