"""Codes from a seed: fixed +-1 vectors that are never trained, stored in a checkpoint or broadcast.

Independent random signs in F dimensions are nearly orthogonal: cos(w_j, w_k) has mean 0 and variance 1/F, so
C >> F codes fit. A code is stored as F bits; a block of codes is unpacked when it is needed.
"""

from __future__ import annotations

import functools
import hashlib

import numpy as np
import torch
from torch import Tensor

from falcon_ssl.core.checks import check_at_least
from falcon_ssl.core.numerics import matmul
from falcon_ssl.dictionary.base import StreamedDictionary, check_block


def _signs_of_byte(device: torch.device, dtype: torch.dtype) -> Tensor:
    """Row b holds the eight bits of b, lowest first, as +-1: [256, 8]."""
    byte = torch.arange(256, device=device).unsqueeze(1)
    bit = byte >> torch.arange(8, device=device) & 1
    return (2 * bit - 1).to(dtype)


class RademacherDictionary(StreamedDictionary):
    """C independent random sign vectors, the dictionary of the paper.

    The bits come from the counter-based Philox generator: the same seed gives the same codes on every machine,
    device and rank, and a larger dictionary of the same seed and width begins with the codes of a smaller one.

    Args:
        num_codes: C >= 2.
        width: F >= 1, width of the embedding.
        seed: Any integer >= 0.

    Raises:
        InputError: C < 2, F < 1 or seed < 0.

    Memory:
        ceil(F / 8) bytes a code: 25 MB for C = 524288, F = 384.

    Example:
        >>> dictionary = RademacherDictionary(1024, 128, seed=0)
        >>> dictionary.block(0, 2).shape
        torch.Size([2, 128])
    """

    kind = "rademacher"
    granule = 1

    def __init__(self, num_codes: int, width: int, seed: int = 0) -> None:
        check_at_least("num_codes", num_codes, 2)
        check_at_least("width", width, 1)
        check_at_least("seed", seed, 0)
        self.num_codes = num_codes
        self.width = width
        self.seed = seed
        num_bytes = -(-width // 8)
        words = np.random.Philox(key=seed).random_raw(-(-num_codes * num_bytes // 8))
        as_bytes = words.astype("<u8").view(np.uint8)[: num_codes * num_bytes]
        self._bits = torch.from_numpy(as_bytes.reshape(num_codes, num_bytes).copy())

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
        bits = self.bits(device)[start:stop]
        # A byte is looked up as eight signs: three times as fast as shifting the bits out.
        signs = _signs_of_byte(bits.device, dtype).index_select(0, bits.flatten().int())
        return signs.view(stop - start, -1)[:, : self.width]

    def bits(self, device: torch.device | str) -> Tensor:
        """All codes as stored: uint8 [C, ceil(F / 8)], bit f % 8 of byte f // 8 set where feature f is positive."""
        # Moved to where they are asked for, and kept there: a training run asks for one device only.
        self._bits = self._bits.to(device)
        return self._bits

    def project(self, u_NF: Tensor, start: int, stop: int) -> Tensor:
        """Inner products <u_i, w_j> with codes start to stop, [N, stop - start]."""
        return matmul(u_NF, self.block(start, stop, device=u_NF.device, dtype=u_NF.dtype).T)

    def adjoint(self, g_NK: Tensor, start: int, stop: int, *, dtype: torch.dtype) -> Tensor:
        """sum_j g_ij w_j over codes start to stop, [N, F].

        For float16 each row is scaled to its range, because the small weights of unused codes would underflow; on a
        CPU it is multiplied in float32.
        """
        if dtype == torch.float16 and g_NK.device.type == "cpu":
            dtype = torch.float32
        codes_KF = self.block(start, stop, device=g_NK.device, dtype=dtype)
        if dtype != torch.float16:
            return matmul(g_NK.to(dtype), codes_KF)
        unit_N1 = g_NK.abs().amax(dim=1, keepdim=True).clamp(min=1e-30) / 2**15
        return matmul((g_NK / unit_N1).half(), codes_KF) * unit_N1

    def checksum(self) -> str:
        """Short fingerprint of the codes."""
        return self._checksum

    @functools.cached_property
    def _checksum(self) -> str:
        name = f"{self.kind} {self.num_codes} {self.width} ".encode()
        return hashlib.sha256(name + self._bits.cpu().numpy().tobytes()).hexdigest()[:16]

    def __repr__(self) -> str:
        return f"RademacherDictionary(num_codes={self.num_codes}, width={self.width}, seed={self.seed})"
