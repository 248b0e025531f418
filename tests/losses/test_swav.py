"""SwAV against the algorithm of the paper, written out in float64 loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from falcon_ssl.losses import sinkhorn, swav_loss
from support.compared import views
from support.tolerances import EXACT, relative_error


def sinkhorn_by_loops(scores: np.ndarray, eps: float, steps: int) -> np.ndarray:
    """Algorithm of the paper: Q = exp(S/eps) of total mass 1; columns to mass 1/K, then rows to mass 1/B; times B."""
    B, K = scores.shape
    Q = np.exp(scores / eps)
    Q /= Q.sum()
    for _ in range(steps):
        for k in range(K):
            Q[:, k] /= Q[:, k].sum()
            Q[:, k] /= K
        for b in range(B):
            Q[b] /= Q[b].sum()
            Q[b] /= B
    return Q * B


def by_loops(
    all_scores: list[np.ndarray], queues: list[np.ndarray] | None, *, T: float, eps: float
) -> tuple[float, float, float]:
    total = entropy = 0.0
    pairs = 0
    for v in range(2):
        rows = all_scores[v] if queues is None else np.concatenate([queues[v], all_scores[v]])
        q = sinkhorn_by_loops(rows, eps, 3)[-len(all_scores[v]) :]
        entropy -= (q * np.log(q)).sum() / len(q) / 2
        for w, scores in enumerate(all_scores):
            if w == v:
                continue
            pairs += 1
            for n in range(len(scores)):
                norm = sum(math.exp(s / T) for s in scores[n])
                for k in range(scores.shape[1]):
                    total -= q[n, k] * math.log(math.exp(scores[n, k] / T) / norm) / len(scores)
    total /= pairs
    return total, entropy, total - entropy


@pytest.mark.parametrize("num_views", [2, 4])
@pytest.mark.parametrize("with_queue", [False, True])
def test_the_algorithm_of_the_paper(num_views: int, with_queue: bool) -> None:
    scores = views(num_views)
    queues = views(2, rows=7, seed=1) if with_queue else None
    expected = by_loops(
        [s.numpy() for s in scores], queues and [q.numpy() for q in queues], T=0.3, eps=0.4
    )
    terms = swav_loss(scores, queued_scores=queues, temperature=0.3, sinkhorn_eps=0.4)
    assert relative_error(torch.stack(terms), torch.tensor(expected, dtype=torch.float64)) < EXACT


@settings(deadline=None, max_examples=20)
@given(st.integers(2, 12), st.integers(2, 9), st.integers(0, 99), st.floats(0.05, 5.0))
def test_assignments_are_balanced(rows: int, columns: int, seed: int, eps: float) -> None:
    scores = torch.randn(
        rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    q_NC = sinkhorn(scores.clamp(-1, 1), eps=eps, steps=3000)
    assert torch.allclose(q_NC.sum(dim=1), torch.ones(rows).double(), atol=1e-12)
    # Sinkhorn converges linearly, the slower the smaller eps.
    assert torch.allclose(
        q_NC.sum(dim=0), torch.full((columns,), rows / columns).double(), atol=1e-3
    )


def test_one_step_is_not_balanced_yet() -> None:
    """Negative control of the test above."""
    q_NC = sinkhorn(views(1)[0], eps=0.1, steps=1)
    assert float((q_NC.sum(dim=0) - 9 / 6).abs().max()) > 0.05


def test_perfect_predictions_have_no_divergence() -> None:
    """Scores whose softmax is balanced: every sample sure of its own prototype."""
    scores = 30 * torch.eye(6, dtype=torch.float64)
    assert float(swav_loss([scores, scores], temperature=1.0, sinkhorn_eps=1.0).total) < 1e-10
