"""Structured codes: randomized Hadamard matrices side by side, with fast products.

    W = [D_1 P_1 H, D_2 P_2 H, ...],     H H^T = F I,  D_b random signs,  P_b a random permutation

The codes of a block are exactly orthogonal and W W^T = C I: a tight frame, so that the features of an optimal embedding
are exactly decorrelated at finite C. H is a Kronecker product of small Hadamard matrices, so that a product with it is
two or three small matrix products, O(F log F) a row: the Walsh-Hadamard transform of radix 16.
"""

from __future__ import annotations

import functools
import hashlib
import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from falcon_ssl.core.checks import check_at_least
from falcon_ssl.core.errors import InputError
from falcon_ssl.core.numerics import at_least_float32
from falcon_ssl.dictionary.base import StreamedDictionary, check_block

ODD_ORDERS = (1, 12, 20)  # F = order * 2^k; Paley's construction gives 12 and 20


class _Tables(NamedTuple):
    """What the products read: position g of block b reads feature order[g] with its sign; f is read by inverse[f]."""

    order_BF: Tensor
    inverse_BF: Tensor
    negative_BF: Tensor
    factors: tuple[Tensor, ...]  # H as a Kronecker product


class HadamardDictionary(StreamedDictionary):
    """C codes in blocks of F orthogonal ones; a tight frame when F divides C.

    Args:
        num_codes: C >= 2; a last block that is not full is cut.
        width: F = 2^k, 12 * 2^k or 20 * 2^k.
        seed: Any integer >= 0. A larger dictionary of the same seed and width begins with the codes of a smaller one.

    Raises:
        InputError: C < 2, an unsupported width (names the nearest ones), or seed < 0.

    Memory:
        9 bytes a code; products with K codes write a few tensors of N x K.

    Numerics:
        Half precision is multiplied in float32: the products are cheap.

    Example:
        >>> dictionary = HadamardDictionary(512, 128, seed=0)
        >>> codes_CF = dictionary.block(0, 512)
        >>> bool((codes_CF.T @ codes_CF == 512 * torch.eye(128)).all())
        True
    """

    kind = "hadamard"

    def __init__(self, num_codes: int, width: int, seed: int = 0) -> None:
        check_at_least("num_codes", num_codes, 2)
        check_at_least("width", width, 1)
        check_at_least("seed", seed, 0)
        _check_width(width)
        self.num_codes = num_codes
        self.width = width
        self.seed = seed
        num_blocks = -(-num_codes // width)
        words = np.random.Philox(key=seed).random_raw(num_blocks * width).reshape(num_blocks, width)
        order = np.argsort(words >> np.uint64(1), axis=1, kind="stable")
        self.granule = width  # a block of codes is transformed as a whole
        tables = _Tables(
            order_BF=torch.from_numpy(order.astype(np.int32)),
            inverse_BF=torch.from_numpy(np.argsort(order, axis=1).astype(np.int32)),
            negative_BF=torch.from_numpy((words & np.uint64(1)).astype(bool)),
            factors=tuple(_hadamard(n) for n in _split(width)),
        )
        self._tables = {torch.device("cpu"): tables}

    def block(
        self,
        start: int,
        stop: int,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Codes start to stop as rows of +-1, [stop - start, F]."""
        check_block(start, stop, self.num_codes)
        tables = self._tables[torch.device("cpu")]
        h_FF = functools.reduce(torch.kron, tables.factors)
        code_K = torch.arange(start, stop)
        rows_KF = h_FF.T[code_K % self.width]
        order_KF = tables.order_BF[code_K // self.width].long()
        negative_KF = tables.negative_BF[code_K // self.width]
        codes_KF = torch.empty_like(rows_KF)
        codes_KF.scatter_(1, order_KF, torch.where(negative_KF, -rows_KF, rows_KF))
        return codes_KF.to(device=device, dtype=dtype)

    def project(self, u_NF: Tensor, start: int, stop: int) -> Tensor:
        """Inner products <u_i, w_j> with codes start to stop, [N, stop - start]; stored code by code."""
        check_block(start, stop, self.num_codes)
        u_FN = at_least_float32(u_NF).T.contiguous()
        whole = self._whole_blocks(start, stop)
        tables = self._on(u_FN.device)
        # Signs come for free when -u lies below u.
        row_BF = tables.order_BF[whole] + self.width * tables.negative_BF[whole].int()
        v_KN = torch.cat([u_FN, -u_FN]).index_select(0, row_BF.flatten())
        first = whole.start * self.width
        return self._transform(v_KN, transpose=True)[start - first : stop - first].T

    def adjoint(self, g_NK: Tensor, start: int, stop: int, *, dtype: torch.dtype) -> Tensor:
        """sum_j g_ij w_j over codes start to stop, [N, F]."""
        del dtype  # the transform is cheap in full precision
        check_block(start, stop, self.num_codes)
        whole = self._whole_blocks(start, stop)
        first, end = whole.start * self.width, whole.stop * self.width
        g_KN = pad(at_least_float32(g_NK).T, (0, 0, start - first, end - stop))
        v_KN = self._transform(g_KN, transpose=False)
        tables = self._on(g_NK.device)
        v_KN *= torch.where(tables.negative_BF[whole].flatten(), -1, 1).to(v_KN.dtype)[:, None]
        # One row of v after another, block by block, in the order of the features.
        offset_B = torch.arange(0, end - first, self.width, dtype=torch.int32, device=g_NK.device)
        row_BF = tables.inverse_BF[whole] + offset_B[:, None]
        v_KN = v_KN.index_select(0, row_BF.flatten())
        return v_KN.view(-1, self.width, len(g_NK)).sum(dim=0).T

    def checksum(self) -> str:
        """Short fingerprint of the codes."""
        return self._checksum

    @functools.cached_property
    def _checksum(self) -> str:
        name = f"{self.kind} {self.num_codes} {self.width} ".encode()
        tables = self._tables[torch.device("cpu")]
        content = tables.order_BF.numpy().tobytes() + tables.negative_BF.numpy().tobytes()
        return hashlib.sha256(name + content).hexdigest()[:16]

    def _on(self, device: torch.device) -> _Tables:
        """The tables on a device, copied there once."""
        if device not in self._tables:
            here = self._tables[torch.device("cpu")]
            self._tables[device] = _Tables(
                here.order_BF.to(device),
                here.inverse_BF.to(device),
                here.negative_BF.to(device),
                tuple(factor.to(device) for factor in here.factors),
            )
        return self._tables[device]

    def _whole_blocks(self, start: int, stop: int) -> slice:
        """Blocks that hold codes start to stop."""
        return slice(start // self.width, -(-stop // self.width))

    def _transform(self, v_KN: Tensor, *, transpose: bool) -> Tensor:
        """H^T (or H) on every block of F rows of v, one Kronecker factor after another."""
        shape, inner = v_KN.shape, self.width * v_KN.shape[1]
        for factor in self._on(v_KN.device).factors:
            h = factor.to(v_KN)
            inner //= len(h)
            v_KN = torch.matmul(h.T if transpose else h, v_KN.reshape(-1, len(h), inner))
        return v_KN.view(shape)

    def __repr__(self) -> str:
        return (
            f"HadamardDictionary(num_codes={self.num_codes}, width={self.width}, seed={self.seed})"
        )


def _odd_order(width: int) -> int | None:
    """The order in ODD_ORDERS with width = order * 2^k, if there is one."""
    for order in ODD_ORDERS:
        quotient, rest = divmod(width, order)
        if rest == 0 and quotient & (quotient - 1) == 0 and quotient > 0:
            return order
    return None


def _check_width(width: int) -> None:
    if _odd_order(width) is None:
        below = max(n for n in range(1, width) if _odd_order(n))
        above = min(n for n in range(width, 2 * width + 1) if _odd_order(n))
        raise InputError(
            "no Hadamard matrix of this width is built here",
            received=f"width {width}",
            expected="2^k, 12 * 2^k or 20 * 2^k",
            fix=f"use {below} or {above}, or a RademacherDictionary",
        )


def _split(width: int) -> list[int]:
    """F as a product of orders: one of `ODD_ORDERS` with what is left of k, then sixteens, the fastest on CPUs."""
    order = _odd_order(width)
    assert order is not None
    k = int(math.log2(width // order))
    return [order * 2 ** (k % 4)] + [16] * (k // 4)


def _hadamard(n: int) -> Tensor:
    """A Hadamard matrix of order n, float32: Sylvester's doubling of order 1, 12 or 20."""
    order = _odd_order(n)
    assert order is not None
    h = torch.ones(1, 1) if order == 1 else _paley(order - 1)
    for _ in range(int(math.log2(n // order))):
        h = torch.kron(torch.tensor([[1.0, 1.0], [1.0, -1.0]]), h)
    return h


def _paley(q: int) -> Tensor:
    """Paley's first construction of order q + 1, q a prime with q = 3 mod 4.

    H = I + [[0, 1], [-1, Q]] with Q_ij = 1 where i - j is a square modulo q, -1 where it is not, 0 on the diagonal.
    """
    squares = {i * i % q for i in range(1, q)}
    h = torch.ones(q + 1, q + 1)
    h[1:, 0] = -1
    for i in range(q):
        for j in range(q):
            h[i + 1, j + 1] = 1.0 if i == j or (i - j) % q in squares else -1.0
    return h
