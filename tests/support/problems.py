"""Small problems and the loss in plain float64 loops."""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

import falcon_ssl
from falcon_ssl import LossTerms
from falcon_ssl.dictionary.base import Dictionary


def unit_rows(
    num_rows: int, width: int, *, seed: int = 0, dtype=torch.float64
) -> tuple[Tensor, Tensor]:
    """Two views that resemble each other."""
    generator = torch.Generator().manual_seed(seed)
    base, noise1, noise2 = torch.randn(3, num_rows, width, dtype=torch.float64, generator=generator)
    u1, u2 = normalize(base + 0.5 * noise1, dim=1), normalize(base + 0.5 * noise2, dim=1)
    return u1.to(dtype), u2.to(dtype)


def random_prior(num_codes: int, *, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    q_C = torch.rand(num_codes, dtype=torch.float64, generator=generator) + 0.05
    return q_C / q_C.sum()


def value_and_gradients(
    u1: Tensor, u2: Tensor, dictionary: Dictionary, **options
) -> tuple[LossTerms, Tensor]:
    """Terms, and the gradient of the total with respect to both views, [2, N, F]."""
    u1, u2 = u1.detach().requires_grad_(), u2.detach().requires_grad_()
    terms = falcon_ssl.falcon_loss((u1, u2), dictionary, **options)
    return terms, torch.stack(torch.autograd.grad(terms.total, (u1, u2)))


def stacked(terms: LossTerms) -> Tensor:
    return torch.stack([term.detach() for term in terms])


def loss_by_loops(
    u1: np.ndarray,
    u2: np.ndarray,
    codes: np.ndarray,
    q: np.ndarray,
    *,
    L: float,
    beta: float,
    prior_matching: str,
) -> dict[str, float]:
    """One order of the views, one number at a time: nothing to get wrong but the formula."""
    N, F = u1.shape
    C = len(codes)

    def assignment(u):
        p = np.zeros((N, C))
        for i in range(N):
            weights = [
                math.exp(L / math.sqrt(F) * sum(u[i, f] * codes[j, f] for f in range(F)))
                for j in range(C)
            ]
            for j in range(C):
                p[i, j] = weights[j] / sum(weights)
        return p

    p, p_other = assignment(u1), assignment(u2)
    invariance = -sum(p[i, j] * math.log(p_other[i, j]) for i in range(N) for j in range(C)) / N
    entropy = -sum(p[i, j] * math.log(p[i, j]) for i in range(N) for j in range(C)) / N
    m = [sum(p[i, j] for i in range(N)) / N for j in range(C)]
    if prior_matching == "forward":
        prior = -sum(q[j] * math.log(m[j]) for j in range(C))
    elif prior_matching == "reverse":
        prior = sum(m[j] * math.log(m[j] / q[j]) for j in range(C))
    else:
        prior = math.log(sum(m[j] ** 2 / q[j] for j in range(C)))
    return {
        "total": beta * invariance + prior,
        "invariance": invariance,
        "prior_matching": prior,
        "entropy": entropy,
        "consistency": invariance - entropy,
    }
