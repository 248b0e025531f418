"""Codes of embeddings: how well they align, and how evenly the codes are used."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from falcon_ssl.core.checks import check_matrix
from falcon_ssl.core.errors import InputError
from falcon_ssl.dictionary.base import BLOCK, Dictionary


def aligned_cosine(u_NF: Tensor, code_N: Tensor, dictionary: Dictionary) -> float:
    """Mean cosine of an embedding and its code: 1 when every embedding aligns with exactly one code (the theorem).

    Args:
        u_NF: Embeddings [N, F], floating.
        code_N: Code of every row, int64 [N].
        dictionary: Codes of width F.

    Raises:
        InputError: If ``u_NF`` is not a floating matrix of the dictionary's width, or a code is not in the dictionary.

    Example:
        >>> from falcon_ssl.dictionary import PrototypeDictionary
        >>> aligned_cosine(torch.tensor([[2.0, 0.0]]), torch.tensor([0]), PrototypeDictionary(torch.eye(2)))
        1.0
    """
    check_matrix("u", u_NF, columns=dictionary.width)
    _check_codes(code_N, dictionary.num_codes)
    total = 0.0
    for start in range(0, int(code_N.max()) + 1, BLOCK):
        stop = min(start + BLOCK, dictionary.num_codes)
        mine_N = (code_N >= start) & (code_N < stop)
        codes_BF = dictionary.block(start, stop, device=u_NF.device, dtype=u_NF.dtype)
        own_NF = codes_BF[code_N[mine_N] - start]
        total += float(cosine_similarity(u_NF[mine_N], own_NF, dim=1).double().sum())
    return total / len(code_N)


def code_usage(code_N: Tensor, *, num_codes: int) -> dict[str, float]:
    """How evenly the codes are used, from m_j = (samples with code j) / N.

    Args:
        code_N: Code of every sample, int64 [N].
        num_codes: C.

    Returns:
        ``codes_used``; ``codes_used_share`` of the min(C, N) that could be; ``code_entropy_share``
        = H(m) / log min(C, N); ``code_perplexity`` = exp H(m); ``code_largest_share`` = max_j m_j.
        All samples on one code give 1, 1/min(C, N), 0, 1 and 1; equal use gives the first three
        their largest values.

    Raises:
        InputError: If a code is not below ``num_codes``, or there is none.

    Example:
        >>> code_usage(torch.tensor([0, 1, 2, 2]), num_codes=8)["codes_used"]
        3.0
    """
    counts_C = code_counts(code_N, num_codes=num_codes).double()
    most = min(num_codes, len(code_N))
    m = counts_C[counts_C > 0] / len(code_N)
    entropy = max(0.0, -float((m * m.log()).sum()))
    return {
        "codes_used": float(len(m)),
        "codes_used_share": len(m) / most,
        # A single sample, or a single code, is as evenly spread as it can be.
        "code_entropy_share": entropy / math.log(most) if most > 1 else 1.0,
        "code_perplexity": math.exp(entropy),
        "code_largest_share": float(m.max()),
    }


def code_counts(code_N: Tensor, *, num_codes: int) -> Tensor:
    """Samples on each code, int64 [C].

    Raises:
        InputError: If a code is not below ``num_codes``, or there is none.
    """
    _check_codes(code_N, num_codes)
    return torch.bincount(code_N, minlength=num_codes)


def _check_codes(code_N: Tensor, num_codes: int) -> None:
    if code_N.numel() == 0 or int(code_N.max()) >= num_codes:
        raise InputError(
            "codes do not fit the dictionary",
            received=f"{code_N.numel()} codes up to {int(code_N.max()) if code_N.numel() else '-'}",
            expected=f"at least one, each below num_codes = {num_codes}",
            fix="pass the num_codes of the dictionary that assigned them",
        )
