"""How far a dictionary is from orthogonal, beside the bound that no dictionary beats."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from falcon_ssl.core.checks import check_at_least
from falcon_ssl.dictionary.base import Dictionary


@dataclass(frozen=True)
class Coherence:
    """Cosines between pairs of different codes, and the Welch bounds.

    Args:
        num_codes: Codes compared, C.
        width: F.
        mean_cosine: Mean over pairs; 0 is ideal.
        mean_square_cosine: Mean square over pairs; 1/F in expectation for random signs.
        largest_cosine: Largest |cos|; about 2 sqrt(log C / F) for random signs.
        welch_mean_square: (C - F) / (F (C - 1)), the least mean square of any C > F unit vectors: a tight frame has it.
        welch_largest: Its square root, the least largest |cos|.
        frame_error: ||W W^T / C - I||_F / sqrt(F); 0 for a tight frame.
    """

    num_codes: int
    width: int
    mean_cosine: float
    mean_square_cosine: float
    largest_cosine: float
    welch_mean_square: float
    welch_largest: float
    frame_error: float


def coherence(
    dictionary: Dictionary, *, max_codes: int = 8192, block_size: int = 1024
) -> Coherence:
    """Statistics of the cosines between the first ``max_codes`` codes.

    Args:
        dictionary: C codes of width F.
        max_codes: All pairs of this many codes are compared; O(max_codes^2 F).
        block_size: Codes compared at a time.

    Raises:
        InputError: max_codes < 2 or block_size < 1.

    Example:
        >>> from falcon_ssl.dictionary import HadamardDictionary
        >>> coherence(HadamardDictionary(512, 64)).frame_error
        0.0
    """
    check_at_least("max_codes", max_codes, 2)
    check_at_least("block_size", block_size, 1)
    num_codes, width = min(dictionary.num_codes, max_codes), dictionary.width
    codes_CF = dictionary.block(0, num_codes)
    total = squares = largest = 0.0
    for start in range(0, num_codes, block_size):
        # Integers up to F: exact in float32.
        products = codes_CF[start : start + block_size] @ codes_CF.T
        products[torch.arange(len(products)), start + torch.arange(len(products))] = 0
        total += float(products.double().sum())
        squares += float(products.double().square().sum())
        largest = max(largest, float(products.abs().max()))
    num_pairs = num_codes * (num_codes - 1)
    welch = max(0.0, (num_codes - width) / (width * (num_codes - 1)))
    frame_FF = (codes_CF.T @ codes_CF).double() / num_codes
    return Coherence(
        num_codes=num_codes,
        width=width,
        mean_cosine=total / num_pairs / width,
        mean_square_cosine=squares / num_pairs / width**2,
        largest_cosine=largest / width,
        welch_mean_square=welch,
        welch_largest=math.sqrt(welch),
        frame_error=float((frame_FF - torch.eye(width)).norm()) / math.sqrt(width),
    )
