"""Which codes an embedding is assigned to, without N x C memory."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from falcon_ssl.core.checks import check_at_least, check_matrix, check_positive
from falcon_ssl.core.errors import InputError
from falcon_ssl.core.numerics import at_least_float32
from falcon_ssl.dictionary.base import Dictionary, check_streamed
from falcon_ssl.dictionary.blocks import fitting_block_size
from falcon_ssl.dictionary.complete import CompleteDictionary
from falcon_ssl.dictionary.prototypes import PrototypeDictionary


class Assignment(NamedTuple):
    """Codes of embeddings.

    Args:
        code: int64 [N], or [N, k] from the most probable on. For a complete dictionary of more than 62 features, whose
            indices exceed int64, a fixed hash of the sign pattern: equal for equal codes.
        probability: Their share of p_i, float32 or float64, same shape.
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

    Memory:
        O(N block).

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
    """
    check_matrix("u", u, columns=dictionary.width)
    check_positive(
        "logit_scale", logit_scale, fix="compute it with logit_scale(num_codes, epsilon)"
    )
    check_at_least("k", k, 1, fix="ask for at least one code")
    if k > dictionary.num_codes:
        raise InputError(
            "k exceeds the dictionary",
            received=k,
            expected=f"k <= {dictionary.num_codes}",
            fix="ask for fewer codes",
        )
    scale = logit_scale / math.sqrt(dictionary.width)
    if isinstance(dictionary, CompleteDictionary):
        return _top_of_all_signs(at_least_float32(u) * scale, k)
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


def _top_of_all_signs(x_NF: Tensor, k: int) -> Assignment:
    """Most probable sign patterns: the signs of x, then those that flip the least sum of |x|.

    Flipping f divides the probability by exp(2 |x_f|), so the k best patterns flip only among the k - 1 features of
    smallest |x|; sums of subsets are merged feature by feature, keeping the k smallest.
    """
    weight_F = _index_weights(x_NF.shape[1]).to(x_NF.device)
    code_NK = ((x_NF > 0) * weight_F).sum(dim=1, keepdim=True)
    cost_NK = torch.zeros_like(x_NF[:, :1])
    least, feature = x_NF.abs().topk(min(k - 1, x_NF.shape[1]), dim=1, largest=False)
    for n in range(least.shape[1]):
        f = feature[:, n : n + 1]
        flip = torch.where(x_NF.gather(1, f) > 0, -weight_F[f], weight_F[f])
        costs = torch.cat([cost_NK, cost_NK + 2 * least[:, n : n + 1]], dim=1)
        cost_NK, position = costs.topk(min(k, costs.shape[1]), dim=1, largest=False)
        code_NK = torch.cat([code_NK, code_NK + flip], dim=1).gather(1, position)
    log_p_N = logsigmoid(2 * x_NF.abs()).sum(dim=1, keepdim=True)
    return Assignment(code_NK & (2**63 - 1), (log_p_N - cost_NK).exp())


def _index_weights(width: int) -> Tensor:
    """What each positive feature adds to a code's index: 2^f, or fixed random integers where 2^F exceeds int64."""
    if width <= 62:
        return 2 ** torch.arange(width)
    return torch.from_numpy(np.random.Philox(key=0).random_raw(width).astype(np.int64))


MOST_CODES = 2**28


_BLOCK = 2048


def nearest_codes(u_NF: Tensor, dictionary: Dictionary, *, block_size: int = _BLOCK) -> Tensor:
    """Index of the code with the largest inner product, the lowest index on ties.

        code_i = argmax_j <u_i, w_j> (- c_j, where prototypes have a centre)

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
            codes to compare one by one (the complete dictionary has 2^F).

    Memory:
        O(block_size^2 + N): never an N x C matrix.

    Example:
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
    best_N = torch.full_like(u_NF[:, 0], -torch.inf)
    code_N = torch.zeros_like(best_N, dtype=torch.int64)
    for start in range(0, dictionary.num_codes, block_size):
        stop = min(start + block_size, dictionary.num_codes)
        codes_BF = dictionary.block(start, stop, device=u_NF.device, dtype=u_NF.dtype)
        centre_B = None
        if isinstance(dictionary, PrototypeDictionary):
            centre_B = dictionary.centre(start, stop)
        blocks = zip(
            *(torch.split(rows, block_size) for rows in (u_NF, best_N, code_N)), strict=True
        )
        for u_BF, best_B, code_B in blocks:
            score_BB = u_BF @ codes_BF.T
            if centre_B is not None:
                score_BB = score_BB - centre_B.to(score_BB)
            score_B, index_B = score_BB.max(dim=1)
            better_B = score_B > best_B
            best_B[better_B] = score_B[better_B]  # views of best_N and code_N: written in place
            code_B[better_B] = index_B[better_B] + start
    return code_N
