"""All 2^F codes, never written out: the limit of the paper's quality with a growing dictionary."""

from __future__ import annotations

import torch
from torch import Tensor

from falcon_ssl.core.checks import check_at_least
from falcon_ssl.dictionary.base import check_block


class CompleteDictionary:
    """All 2^F sign vectors of width F.

    The softmax over them factorises into F independent bits, p(w) = prod_f (1 + t_f w_f) / 2 with
    t = tanh(L / sqrt(F) u), so that the loss has a closed form whose cost does not depend on C at all. Bit f of a
    code's index tells the sign of its feature f.

    Args:
        width: F >= 1.
        samples_per_row: Codes drawn from every assignment where a sum over codes has no closed form, that is for
            prior_matching="reverse"; 16 keeps the noise of its value near 1 %.

    Raises:
        InputError: F < 1 or fewer than two samples a row.

    Example:
        >>> dictionary = CompleteDictionary(128)
        >>> dictionary.num_codes == 2**128
        True
    """

    kind = "complete"

    def __init__(self, width: int, *, samples_per_row: int = 16) -> None:
        check_at_least("width", width, 1, fix="use at least one feature")
        check_at_least("samples_per_row", samples_per_row, 2, fix="draw at least two codes a row")
        self.width = width
        self.samples_per_row = samples_per_row

    @property
    def num_codes(self) -> int:
        """C = 2^F, exactly."""
        return 1 << self.width

    def block(
        self,
        start: int,
        stop: int,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Codes start to stop as rows of +-1, [stop - start, F]; for looking at, no loss needs it.

        Raises:
            InputError: Unless 0 <= start < stop <= C.
        """
        check_block(start, stop, self.num_codes)
        rows = [[2 * (code >> f & 1) - 1 for f in range(self.width)] for code in range(start, stop)]
        return torch.tensor(rows, device=device, dtype=dtype)

    def checksum(self) -> str:
        """Short fingerprint: the width says everything."""
        return f"complete-{self.width}"

    def __repr__(self) -> str:
        return f"CompleteDictionary(width={self.width})"
