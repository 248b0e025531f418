"""Which codes an embedding is assigned to, without N x C memory."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from falcon_ssl.core.checks import check_at_least, check_matrix, check_positive
from falcon_ssl.core.errors import InputError
from falcon_ssl.core.numerics import at_least_float32
from falcon_ssl.dictionary.base import BLOCK, Dictionary, check_streamed
from falcon_ssl.dictionary.blocks import fitting_block_size
from falcon_ssl.dictionary.complete import CompleteDictionary

MOST_CODES = 2**28  # that can be compared one by one


class Assignment(NamedTuple):
    """Codes of embeddings.

    Args:
        code: int64 [N], or [N, k] from the most probable on. For a complete dictionary of more than 62 features, whose
            indices exceed int64, a fixed hash of the sign pattern: equal for equal codes.
        probability: Their entries of p_i, float32 or float64, same shape.
    """

    code: Tensor
    probability: Tensor


def assign(u: Tensor, dictionary: Dictionary, *, logit_scale: float) -> Assignment:
    """The most probable code of each embedding, argmax_j p_ij, and its probability.

    Args:
        u: [N, F] embeddings.
        dictionary: C codes of width F, or all of them.
        logit_scale: L > 0.

    Returns:
        Assignment of [N] tensors.

    Raises:
        InputError: An embedding of the wrong shape or dtype, L <= 0.

    Example:
        >>> from falcon_ssl.dictionary import RademacherDictionary
        >>> dictionary = RademacherDictionary(1024, 64)
        >>> assign(dictionary.block(5, 8) / 8, dictionary, logit_scale=18.4).code.tolist()
        [5, 6, 7]
    """
    top = top_codes(u, dictionary, logit_scale=logit_scale, k=1)
    return Assignment(top.code[:, 0], top.probability[:, 0])


@torch.no_grad()
def top_codes(u: Tensor, dictionary: Dictionary, *, logit_scale: float, k: int) -> Assignment:
    """The k most probable codes of each embedding, in descending order.

    Args:
        u: [N, F] embeddings.
        dictionary: C codes of width F, or all of them.
        logit_scale: L > 0.
        k: 1 <= k <= C.

    Returns:
        Assignment of [N, k] tensors.

    Raises:
        InputError: As `assign`, or k out of range.

    Memory:
        O(N block); O(N k) for the complete dictionary.

    Example:
        >>> from falcon_ssl.dictionary import CompleteDictionary
        >>> top_codes(torch.tensor([[0.6, -0.8]]), CompleteDictionary(2), logit_scale=3.0, k=2).code
        tensor([[1, 0]])
    """
    check_matrix("u", u, columns=dictionary.width)
    check_positive(
        "logit_scale", logit_scale, fix="compute it with logit_scale(num_codes, epsilon)"
    )
    check_at_least("k", k, 1)
    if k > dictionary.num_codes:
        raise InputError(
            "k exceeds the dictionary",
            received=k,
            expected=f"k <= {dictionary.num_codes}",
            fix="ask for fewer codes",
        )
    scale = logit_scale / math.sqrt(dictionary.width)
    if isinstance(dictionary, CompleteDictionary):
        return Assignment(*dictionary.top_signs(at_least_float32(u) * scale, k))
    streamed = check_streamed(dictionary)
    size = fitting_block_size(streamed, len(u), u.device)
    best_NK = at_least_float32(u).new_empty(len(u), 0)
    code_NK = torch.empty(len(u), 0, dtype=torch.int64, device=u.device)
    lse_N = best_NK.new_full((len(u),), -math.inf)
    for start in range(0, streamed.num_codes, size):
        s_NK = streamed.project(u, start, min(start + size, streamed.num_codes)) * scale
        lse_N = torch.logaddexp(lse_N, s_NK.logsumexp(dim=1))
        top_NK, index_NK = s_NK.topk(min(k, s_NK.shape[1]), dim=1)
        best_NK = torch.cat([best_NK, top_NK], dim=1)
        best_NK, position_NK = best_NK.topk(min(k, best_NK.shape[1]), dim=1)
        code_NK = torch.cat([code_NK, index_NK + start], dim=1).gather(1, position_NK)
    return Assignment(code_NK, (best_NK - lse_N[:, None]).exp())


def nearest_codes(u_NF: Tensor, dictionary: Dictionary, *, block_size: int = BLOCK) -> Tensor:
    """Index of the code with the largest inner product, the lowest index on ties.

        code_i = argmax_j <u_i, w_j> (- c_j, where prototypes have a center)

    All codes of a dictionary have the same length, so this is the code of largest cosine and of
    largest assignment p_ij. Unlike `falcon_ssl.assign` it needs no logit_scale, sums nothing, and
    takes prototypes that cannot be streamed through a loss.

    Args:
        u_NF: Embeddings [N, F], floating.
        dictionary: Codes of width F.
        block_size: Rows and codes at a time.

    Returns:
        int64 [N].

    Raises:
        InputError: If ``u_NF`` is not a floating matrix of the dictionary's width, or the dictionary has too many
            codes to count samples by (the complete dictionary has 2^F).

    Memory:
        O(block_size^2 + N): never an N x C matrix.

    Example:
        >>> from falcon_ssl.dictionary import PrototypeDictionary
        >>> codes = PrototypeDictionary(torch.eye(3))
        >>> nearest_codes(torch.tensor([[0.1, 0.9, 0.2]]), codes)
        tensor([1])
    """
    check_matrix("u", u_NF, columns=dictionary.width)
    if dictionary.num_codes > MOST_CODES:
        raise InputError(
            "too many codes to compare one by one",
            received=dictionary,
            expected=f"at most {MOST_CODES} codes",
            fix="leave the dictionary out",
        )
    return dictionary.nearest(u_NF, block_size=block_size)
