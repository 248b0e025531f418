"""What may be known of a dictionary."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from falcon_ssl.core.errors import InputError


class Dictionary(Protocol):
    """What everyone may know of a dictionary: its sizes, its codes and their fingerprint."""

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

    def checksum(self) -> str:
        """Short fingerprint; dictionaries that share it share their codes."""
        ...


@runtime_checkable
class StreamedDictionary(Dictionary, Protocol):
    """A dictionary that the loss walks through block by block, by products alone.

    A structured dictionary computes them without ever writing its codes out.
    """

    @property
    def granule(self) -> int:
        """Codes that are cheapest computed together; blocks start and stop at its multiples where they can."""
        ...

    def project(self, u_NF: Tensor, start: int, stop: int) -> Tensor:
        """Inner products <u_i, w_j> with codes start to stop, [N, stop - start]; float32 for half precision."""
        ...

    def adjoint(self, g_NK: Tensor, start: int, stop: int, *, dtype: torch.dtype) -> Tensor:
        """sum_j g_ij w_j over codes start to stop, [N, F], multiplied in ``dtype``; float32 for half precision."""
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


def check_streamed(dictionary: Dictionary) -> StreamedDictionary:
    """Raise InputError unless the loss can walk through the dictionary block by block."""
    if not isinstance(dictionary, StreamedDictionary):
        raise InputError(
            "this dictionary cannot be streamed",
            received=type(dictionary).__name__,
            expected="granule, project() and adjoint() beside num_codes, width, block() and checksum()",
            fix="see falcon_ssl.dictionary.StreamedDictionary",
        )
    return dictionary
