"""Learned codes seen as a dictionary: prototypes as in SwAV, DINO, Self-Classifier; outputs of a head as in GEDI."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor
from torch.nn.functional import normalize

from falcon_ssl.core.checks import check_entries, check_finite, check_matrix
from falcon_ssl.core.errors import InputError
from falcon_ssl.dictionary.base import Dictionary


class PrototypeDictionary(Dictionary):
    """Any matrix of codes, compared by cosine; it follows the matrix while that is trained.

    Args:
        codes_CF: [C, F] floating, one code per row, none of them zero.
        center_C: What is subtracted from the cosines before they are compared [C], as DINO does; followed too.

    Raises:
        InputError: If the matrix is not [C, F] floating and finite, a row is zero, or the center is not [C].

    Example:
        >>> PrototypeDictionary(torch.tensor([[3.0, 0.0], [0.0, 2.0]])).block(0, 1)
        tensor([[1., 0.]])
    """

    def __init__(self, codes_CF: Tensor, *, center_C: Tensor | None = None) -> None:
        check_matrix("prototypes", codes_CF)
        check_finite("prototypes", codes_CF, fix="pass the weights of a trained head")
        norm_C = codes_CF.detach().norm(dim=1)
        if not bool((norm_C > 0).all()):
            raise InputError(
                "a prototype has no direction",
                received=f"{int((norm_C == 0).sum())} zero rows",
                expected="rows of non-zero length",
                fix="leave zero rows out",
            )
        self.num_codes, self.width = codes_CF.shape
        if center_C is not None:
            fix = "pass the center of the same head"
            check_entries("the center", center_C, self.num_codes, each="prototype", fix=fix)
        self._codes_CF = codes_CF
        self._center_C = center_C

    def block(
        self,
        start: int,
        stop: int,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Codes start to stop as unit rows, [stop - start, F]."""
        return normalize(self._codes_CF[start:stop].detach().float(), dim=1).to(device, dtype)

    def center(self, start: int, stop: int) -> Tensor | None:
        """What is subtracted from the cosines of codes start to stop, [stop - start]; None for nothing."""
        return None if self._center_C is None else self._center_C[start:stop].detach()

    def checksum(self) -> str:
        """Short fingerprint of the prototypes as they are now."""
        codes_CF = self.block(0, self.num_codes)
        return hashlib.sha256(codes_CF.numpy().tobytes()).hexdigest()[:16]

    def __repr__(self) -> str:
        return f"PrototypeDictionary(num_codes={self.num_codes}, width={self.width})"


class OneHotDictionary(Dictionary):
    """The codes of a head whose C outputs are the scores themselves: w_j = e_j, so the nearest is the largest output.

    Args:
        num_codes: C, which is also the width.

    Example:
        >>> OneHotDictionary(3).block(1, 3)
        tensor([[0., 1., 0.],
                [0., 0., 1.]])
    """

    def __init__(self, num_codes: int) -> None:
        self.num_codes = self.width = num_codes

    def block(
        self,
        start: int,
        stop: int,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Codes start to stop as rows, [stop - start, C]."""
        block_BC = torch.zeros(stop - start, self.num_codes, device=device, dtype=dtype)
        block_BC.diagonal(start).fill_(1)
        return block_BC

    def checksum(self) -> str:
        """Their number says all."""
        return f"one-hot-{self.num_codes}"

    def __repr__(self) -> str:
        return f"OneHotDictionary(num_codes={self.num_codes})"
