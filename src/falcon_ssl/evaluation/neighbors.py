"""Which images are alike: nearest ones by centered representations, groups of near-duplicates by whitened ones.

    y = z - m                     centered: m the mean
    y = (z - m) V e^(-1/2)        whitened: V and e the leading principal axes of standardized z and their variances
    cos(i, j) = <y_i, y_j> / (|y_i| |y_j|)

Centered ones rank: the six nearest are of the class of an image as often as those of z as it is, or more often, while
whitening amplifies what is noise in few images (docs/embeddings.md has the numbers). Whitened ones set a limit: z has a
few directions of most variance, so that on 600 photographs and 60 altered copies, embedded by a network trained on them
for 30 epochs, half of the other images had a cosine above .97 with their nearest. Of whitened ones the largest was .88,
and copies (recompressed, resized, brightened or cut by 4 %) had at least .92. The search is scikit-learn's, exact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from falcon_ssl.core.checks import check_at_least, check_fraction
from falcon_ssl.core.extras import train_extra
from falcon_ssl.evaluation.components import ROWS, Whitening

Array: TypeAlias = "NDArray[Any]"

# Axes of near-duplicates; with half of them more strangers are alike, with twice as many copies less.
COMPONENTS = 128
BLOCK = 4096  # rows that are searched for at a time
NEIGHBORS = 16  # of each row that may be its duplicates


class Nearest(NamedTuple):
    """The k nearest rows of each query, the nearest first.

    Args:
        row: Their numbers, int64 [Q, k].
        cosine: In the space of the search, float32 [Q, k].
    """

    row: Array
    cosine: Array


class Space(NamedTuple):
    """Where images are compared: unit rows y / |y|."""

    transform: Callable[[Tensor], Tensor]

    @classmethod
    def centered(cls, z_ND: Array) -> Space:
        """That of nearest images, by the mean of some rows."""
        mean_D = torch.tensor(z_ND).mean(dim=0)
        return cls(lambda z_MD: z_MD - mean_D)

    @classmethod
    def whitened(cls, z_ND: Array) -> Space:
        """That of near-duplicates, by the axes of some rows, at most 20 000 of them; fewer axes of few rows."""
        sample_ND = torch.tensor(z_ND[:: -(-len(z_ND) // ROWS)])
        whiten = Whitening.of(sample_ND, min(COMPONENTS, max(2, len(sample_ND) // 4)))
        return cls(whiten.__call__)

    def __call__(self, z_ND: Array) -> Array:
        """Unit rows, float32 [N, K]."""
        y_NK: Array = normalize(self.transform(torch.tensor(z_ND))).numpy()
        return y_NK


def nearest(query_QD: Array, groups: Iterable[Array], *, space: Space, k: int) -> Nearest:
    """The k rows nearest to each query, of rows that come group by group.

    Args:
        query_QD: Representations.
        groups: Matrices [N_g, D].
        space: Where they are compared.
        k: How many; fewer where there are not as many rows.

    Memory:
        One group.
    """
    check_at_least("k", k, 1)
    y_QK, start = space(query_QD), 0
    best = Nearest(np.empty((len(y_QK), 0), np.int64), np.empty((len(y_QK), 0), np.float32))
    for z_ND in groups:
        found = _ask(_index(space(z_ND)), y_QK, min(k, len(z_ND)))
        row_QM = np.concatenate([best.row, found.row + start], axis=1)
        cosine_QM = np.concatenate([best.cosine, found.cosine], axis=1)
        order_Qk = np.argsort(-cosine_QM, axis=1, kind="stable")[:, :k]
        best = Nearest(
            np.take_along_axis(row_QM, order_Qk, axis=1),
            np.take_along_axis(cosine_QM, order_Qk, axis=1),
        )
        start += len(z_ND)
    return best


def near_duplicates(
    y_NK: Array, *, similarity: float, progress: Callable[[int], None] = lambda rows: None
) -> list[Array]:
    """Groups of rows that are nearly the same as one of them, whose neighbors they are.

    The row with most neighbors takes those that no other has taken, then the next one: all of a group are alike to its
    first, where chains of neighbors would lead from one plane in the sky to every other.

    Args:
        y_NK: Unit rows, of `Space`.
        similarity: Least cosine with the first of a group, in [0, 1].
        progress: Called with the number of rows that are searched.

    Returns:
        Rows of each group of two or more, the largest group first.

    Memory:
        The rows, and 16 neighbors of each. Only these are looked at, so many equal rows may fall into several groups.

    Example:
        >>> y = np.array([[1.0, 0.0], [-1.0, 0.0], [0.8, 0.6], [0.6, 0.8]])
        >>> near_duplicates(np.concatenate([y, y[:1]]), similarity=0.99)
        [array([0, 4])]
    """
    check_fraction("similarity", similarity)
    count = len(y_NK)
    pairs: list[Array] = []
    for start, found in _blocks(y_NK, min(NEIGHBORS + 1, count)):
        row_Bk = np.broadcast_to(start + np.arange(len(found.row))[:, None], found.row.shape)
        alike = (found.cosine >= similarity) & (row_Bk != found.row)
        pairs.append(np.stack([row_Bk[alike], found.row[alike]]))
        progress(start + len(found.row))
    i, j = np.concatenate(pairs, axis=1)
    i, j = np.concatenate([i, j]), np.concatenate([j, i])  # j is a neighbor of i, or i one of j
    starts = np.searchsorted(np.sort(i), np.arange(count + 1))
    j = j[np.argsort(i, kind="stable")]
    free, groups = np.ones(count, bool), []
    for center in np.argsort(-np.diff(starts), kind="stable"):
        alike_M = np.unique(j[starts[center] : starts[center + 1]])
        others = alike_M[free[alike_M]]
        if free[center] and len(others):
            groups.append(np.concatenate([[center], others]))
            free[groups[-1]] = False
    return sorted(groups, key=lambda one: (-len(one), one[0]))


def _blocks(y_NK: Array, k: int) -> Iterator[tuple[int, Nearest]]:
    search = _index(y_NK)
    for start in range(0, len(y_NK), BLOCK):
        yield start, _ask(search, y_NK[start : start + BLOCK], k)


def _index(y_NK: Array) -> Any:
    """For unit rows the nearest by distance are the nearest by cosine, and that search is the faster one."""
    with train_extra("the search for neighbors"):
        from sklearn.neighbors import NearestNeighbors

    return NearestNeighbors(algorithm="brute", metric="euclidean").fit(y_NK)


def _ask(search: Any, query_QD: Array, k: int) -> Nearest:
    distance_Qk, row_Qk = search.kneighbors(query_QD, n_neighbors=k)
    return Nearest(row_Qk.astype(np.int64), (1 - distance_Qk**2 / 2).astype(np.float32))
