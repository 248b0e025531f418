"""All 2^F codes, never written out: the limit of the paper's quality with a growing dictionary."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from falcon_ssl.core.checks import check_at_least
from falcon_ssl.core.errors import InputError
from falcon_ssl.core.theory import LN2, PriorMatching
from falcon_ssl.dictionary.base import BLOCK, Dictionary, check_block


class CompleteDictionary(Dictionary):
    """All 2^F sign vectors of width F.

    The softmax over them factorizes into F independent bits, p(w) = prod_f (1 + t_f w_f) / 2 with
    t = tanh(L / sqrt(F) u), so that the loss has a closed form whose cost does not depend on C at all. Bit f of a
    code's index is the sign of its feature f.

    Args:
        width: F >= 1.
        samples_per_row: Codes drawn from every assignment where a sum over codes has no closed form, that is for
            prior_matching="reverse"; 16 keeps the noise of its value near 1 %.
        kernel_order: For prior_matching="renyi2": an odd number of terms to which the logarithm of the kernel is taken,
            3 for a few products in place of the exact value, None. Never below the truth; how far above depends on
            how sure single bits are, see `falcon_ssl.losses.falcon.complete.kernel_error`. The products are in half
            precision where the embeddings are.
        kernel_places: For prior_matching="renyi2": how many of a view's places enter the kernel, other ones for every
            sample, None for all. Its cost goes with the square; the invariance has all places.

    Raises:
        InputError: F < 1, fewer than two samples a row, an order that is not odd, or fewer than one place.

    Example:
        >>> dictionary = CompleteDictionary(128)
        >>> dictionary.num_codes == 2**128
        True
    """

    kind = "complete"
    default_prior_matching: PriorMatching = "renyi2"  # has a closed form
    has_histogram = False

    def __init__(
        self,
        width: int,
        *,
        samples_per_row: int = 16,
        kernel_order: int | None = None,
        kernel_places: int | None = None,
    ) -> None:
        check_at_least("width", width, 1)
        check_at_least("samples_per_row", samples_per_row, 2)
        check_at_least("kernel_places", 1 if kernel_places is None else kernel_places, 1)
        if kernel_order is not None and (kernel_order < 1 or kernel_order % 2 == 0):
            raise InputError(
                "kernel_order is not odd",
                received=kernel_order,
                expected="1, 3, 5, ..., whose error has one sign",
                fix="use 3, or None for the exact value",
            )
        self.width = width
        self.num_codes = 1 << width
        self.samples_per_row = samples_per_row
        self.kernel_order = kernel_order
        self.kernel_places = kernel_places

    @property
    def log_num_codes(self) -> float:
        """F log 2."""
        return self.width * LN2

    def block(
        self,
        start: int,
        stop: int,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Codes start to stop as rows of +-1, [stop - start, F]; no loss needs them."""
        check_block(start, stop, self.num_codes)
        rows = [[2 * (code >> f & 1) - 1 for f in range(self.width)] for code in range(start, stop)]
        return torch.tensor(rows, device=device, dtype=dtype)

    def nearest(self, u_NF: Tensor, *, block_size: int = BLOCK) -> Tensor:
        """Index of the signs of each row, int64 [N]; beyond 62 features a fixed hash of them."""
        del block_size
        return self.top_signs(u_NF, 1)[0][:, 0]

    def top_signs(self, x_NF: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The k most probable codes of each row and their probabilities, [N, k] each, in descending order.

        The most probable code is the signs of x. Flipping f divides the probability by exp(2 |x_f|), so the others
        flip only among the k - 1 features of smallest |x|; sums of subsets are merged feature by feature, keeping the
        k smallest.

        Args:
            x_NF: L / sqrt(F) u, float32 or float64.
            k: 1 <= k <= C.
        """
        weight_F = _index_weights(self.width).to(x_NF.device)
        code_NK = ((x_NF > 0) * weight_F).sum(dim=1, keepdim=True)
        cost_NK = torch.zeros_like(x_NF[:, :1])
        least, feature = x_NF.abs().topk(min(k - 1, self.width), dim=1, largest=False)
        for n in range(least.shape[1]):
            f = feature[:, n : n + 1]
            flip = torch.where(x_NF.gather(1, f) > 0, -weight_F[f], weight_F[f])
            costs = torch.cat([cost_NK, cost_NK + 2 * least[:, n : n + 1]], dim=1)
            cost_NK, position = costs.topk(min(k, costs.shape[1]), dim=1, largest=False)
            code_NK = torch.cat([code_NK, code_NK + flip], dim=1).gather(1, position)
        log_p_N1 = logsigmoid(2 * x_NF.abs()).sum(dim=1, keepdim=True)
        return code_NK & (2**63 - 1), (log_p_N1 - cost_NK).exp()

    def checksum(self) -> str:
        """Short fingerprint: the width says everything."""
        return f"complete-{self.width}"

    def __repr__(self) -> str:
        options = {"kernel_order": self.kernel_order, "kernel_places": self.kernel_places}
        given = [f", {name}={value}" for name, value in options.items() if value is not None]
        return f"CompleteDictionary(width={self.width}{''.join(given)})"


def _index_weights(width: int) -> Tensor:
    """What each positive feature adds to a code's index: 2^f, or fixed random integers where 2^F exceeds int64."""
    if width <= 62:
        return 2 ** torch.arange(width)
    return torch.from_numpy(np.random.Philox(key=0).random_raw(width).astype(np.int64))
