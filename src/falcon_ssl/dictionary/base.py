"""What may be known of a dictionary."""

from __future__ import annotations

import math
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from falcon_ssl.core.errors import InputError
from falcon_ssl.core.notebook import html_table
from falcon_ssl.core.theory import PriorMatching, count_text

BLOCK = 2048  # rows and codes that are compared at a time


class Dictionary(Protocol):
    """C codes of width F. One of your own inherits from it and gets what is written out here.

    Attributes:
        num_codes: C, exactly.
        width: F, the length of a code.
        default_prior_matching: What the loss takes when none is given.
        has_histogram: Whether it makes sense to count samples by code: not where every sample has its own.
    """

    num_codes: int
    width: int
    default_prior_matching: PriorMatching = "reverse"
    has_histogram: bool = True

    @property
    def log_num_codes(self) -> float:
        """log C, in nats."""
        return math.log(self.num_codes)

    def _repr_html_(self) -> str:
        rows = [
            ["codes C", count_text(self.num_codes)],
            ["width F", str(self.width)],
            ["log C", f"{self.log_num_codes:.2f} nats"],
            ["prior matching by default", self.default_prior_matching],
        ]
        return html_table(rows, sentence=repr(self))

    def block(
        self,
        start: int,
        stop: int,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Codes start to stop as rows.

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
        ...

    def center(self, start: int, stop: int) -> Tensor | None:
        """What is subtracted from the scores of codes start to stop, [stop - start]; None for nothing."""
        return None

    def nearest(self, u_NF: Tensor, *, block_size: int = BLOCK) -> Tensor:
        """Index of the code of largest inner product with each row, the lowest on ties.

        Args:
            u_NF: Embeddings [N, F], floating.
            block_size: Rows and codes at a time.

        Returns:
            int64 [N].

        Memory:
            O(block_size^2 + N): never an N x C matrix.
        """
        best_N = torch.full_like(u_NF[:, 0], -torch.inf)
        code_N = torch.zeros_like(best_N, dtype=torch.int64)
        for start in range(0, self.num_codes, block_size):
            stop = min(start + block_size, self.num_codes)
            codes_BF = self.block(start, stop, device=u_NF.device, dtype=u_NF.dtype)
            center_B = self.center(start, stop)
            blocks = (torch.split(rows, block_size) for rows in (u_NF, best_N, code_N))
            for u_BF, best_B, code_B in zip(*blocks, strict=True):
                score_BB = u_BF @ codes_BF.T
                if center_B is not None:
                    score_BB = score_BB - center_B.to(score_BB)
                score_B, index_B = score_BB.max(dim=1)
                better_B = score_B > best_B
                best_B[better_B] = score_B[better_B]  # views of best_N and code_N: written in place
                code_B[better_B] = index_B[better_B] + start
        return code_N

    def checksum(self) -> str:
        """Short fingerprint; runs, ranks and dictionaries of the same one have the same codes."""
        ...


@runtime_checkable
class StreamedDictionary(Dictionary, Protocol):
    """A dictionary that the loss walks through block by block, by products alone.

    A structured dictionary computes them without ever writing its codes out.

    Attributes:
        granule: Codes that are cheapest computed together; blocks start and stop at its multiples where they can.
    """

    granule: int

    def project(self, u_NF: Tensor, start: int, stop: int) -> Tensor:
        """Inner products <u_i, w_j> with codes start to stop.

        Args:
            u_NF: Embeddings [N, F], any floating dtype.
            start: First code.
            stop: One past the last code.

        Returns:
            [N, stop - start], float64 for float64, else float32.
        """
        ...

    def adjoint(self, g_NK: Tensor, start: int, stop: int, *, dtype: torch.dtype) -> Tensor:
        """sum_j g_ij w_j over codes start to stop.

        Args:
            g_NK: Weights [N, stop - start].
            start: First code.
            stop: One past the last code.
            dtype: Precision of the product, where that is worth it.

        Returns:
            [N, F], float64 for float64, else float32.
        """
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
            expected="a falcon_ssl.dictionary.StreamedDictionary",
            fix="inherit from it; write block(), checksum(), granule, project() and adjoint()",
        )
    return dictionary
