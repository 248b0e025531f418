"""Learned codes, such as the prototypes of SwAV, DINO or Self-Classifier, seen as a dictionary."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor
from torch.nn.functional import normalize

from falcon_ssl.checks import InputError, check_finite, check_matrix


class PrototypeDictionary:
    """Any matrix of codes, compared by cosine; it follows the matrix while that is trained.

    Args:
        codes_CF: [C, F] floating, one code per row, none of them zero.

    Raises:
        InputError: If the matrix is not [C, F] floating and finite, or a row is zero.

    Example:
        >>> PrototypeDictionary(torch.tensor([[3.0, 0.0], [0.0, 2.0]])).block(0, 1)
        tensor([[1., 0.]])
    """

    def __init__(self, codes_CF: Tensor) -> None:
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
        self._codes_CF = codes_CF

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

    def checksum(self) -> str:
        """Short fingerprint of the prototypes as they are now."""
        codes_CF = self.block(0, self.num_codes)
        return hashlib.sha256(codes_CF.numpy().tobytes()).hexdigest()[:16]

    def __repr__(self) -> str:
        return f"PrototypeDictionary(num_codes={self.num_codes}, width={self.width})"
