"""Codes from a seed: fixed +-1 vectors that are never trained, stored in a checkpoint or broadcast.

Independent random signs in F dimensions are nearly orthogonal: cos(w_j, w_k) has mean 0 and variance 1/F, so
C >> F codes fit. A code is stored as F bits; a block of codes is unpacked when it is needed.
"""

from __future__ import annotations

import hashlib
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from falcon_ssl.checks import InputError, check_at_least


class Dictionary(Protocol):
    """What a loss needs to know of a dictionary: C, F and the codes block by block."""

    @property
    def num_codes(self) -> int:
        """C, the number of codes."""
        ...

    @property
    def width(self) -> int:
        """F, the length of a code."""
        ...

    def block(
        self,
        start: int,
        stop: int,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Codes start to stop as rows, [stop - start, F]."""
        ...


def check_block(start: int, stop: int, num_codes: int) -> None:
    """Raise InputError unless 0 <= start < stop <= C."""
    if not 0 <= start < stop <= num_codes:
        raise InputError(
            "no such block of codes",
            received=f"[{start}, {stop})",
            expected=f"0 <= start < stop <= {num_codes}",
            fix="ask for codes that exist",
        )


class RademacherDictionary:
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

    def __init__(self, num_codes: int, width: int, seed: int = 0) -> None:
        check_at_least("num_codes", num_codes, 2, fix="use at least two codes")
        check_at_least("width", width, 1, fix="use at least one feature")
        check_at_least("seed", seed, 0, fix="use a non-negative seed")
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
        """Codes start to stop as rows of +-1.

        Args:
            start: First code.
            stop: One past the last code.
            device: Where to put them.
            dtype: Any floating or integer dtype; +-1 is exact in each.

        Returns:
            [stop - start, F].

        Raises:
            InputError: Unless 0 <= start < stop <= C.
        """
        check_block(start, stop, self.num_codes)
        bits = self._bits[start:stop].to(device)
        positions = torch.arange(8, device=bits.device, dtype=torch.uint8)
        signs = (bits.unsqueeze(-1) >> positions & 1).flatten(1)[:, : self.width]
        return signs.to(dtype).mul_(2).sub_(1)

    def checksum(self) -> str:
        """Short fingerprint of the codes; runs and ranks that share it share the dictionary."""
        return hashlib.sha256(self._bits.numpy().tobytes()).hexdigest()[:16]

    def __repr__(self) -> str:
        return f"RademacherDictionary(num_codes={self.num_codes}, width={self.width}, seed={self.seed})"
