"""What a measured loss still proves when its divergence is of an average over batches, or of codes that are drawn.

Both ask for the least loss of a network that gives every sample the same assignment p, with entropy H, see
`falcon_ssl.core.theory.collapse_threshold`. Numbers in and out, without torch.
"""

from __future__ import annotations

import functools
import math

from falcon_ssl.core.checks import check_fraction

RISK = 1e-6  # of a proof that rests on drawn codes
_POINTS = 400  # of each of two searches; the bound is smooth in both
_SLACK = 1.01  # for what lies between the points


def running_threshold(log_num_codes: float, beta: float, *, momentum: float, renyi2: bool) -> float:
    """Least loss of a batch whose samples have the same assignment, where the marginal is a running average.

    The average is at least w p, with w = 1 - momentum the weight of the batch (it is larger in the first batches), the
    rest of it being of earlier batches, whatever they were. So for a uniform prior

        renyi2    D2 = log C sum m^2 >= log C + 2 log w - H        since  H >= H2(p)
        reverse   KL = log C - H(m)  >= w (log C - H) - h(w)       since  H(m) <= h(w) + wH + (1-w) log C

    and neither is below 0; the minimum over H of beta H + D is at one of two corners, H = 0 and D = 0:

        renyi2    min(beta, 1) (log C + 2 log w)          reverse   min(beta, w) (log C - h(w) / w)

    or 0, where these are negative: then nothing is proven.
    """
    check_fraction("momentum", momentum, below_one=True)
    w = 1 - momentum
    if renyi2:
        return min(beta, 1.0) * max(0.0, log_num_codes + 2 * math.log(w))
    binary = -w * math.log(w) - (1 - w) * math.log1p(-w) if w < 1 else 0.0
    return min(beta, w) * max(0.0, log_num_codes - binary / w)


def sampling_error(width: int, draws: int, *, risk: float = RISK) -> float:
    """By how much a drawn KL(p || uniform) over 2^F codes is below the truth, with probability ``risk`` at most.

    It is F log 2 - mean s over n codes drawn from p, s = -log p(w) a sum over F independent bits. By Chernoff's bound,
    for every lambda in (0, 1) and every p

        P(mean s - H > t) <= exp(n [F kappa(lambda) - lambda t])
        kappa(lambda) = max_b log(b^(1-lambda) + (1-b)^(1-lambda)) - lambda h(b),  b the probability of a bit

    so that t = min over lambda of (F kappa(lambda) + log(1/risk) / n) / lambda, about sqrt(.88 F log(1/risk) / n).

    Args:
        width: F.
        draws: n, samples of a marginal times codes of each.
        risk: Largest probability.

    Example:
        >>> round(sampling_error(128, 16 * 256), 2)
        0.62
    """
    allowed = math.log(1 / risk) / draws
    return _SLACK * min((width * kappa + allowed) / power for power, kappa in _kappas())


@functools.cache
def _kappas() -> tuple[tuple[float, float], ...]:
    """Pairs of lambda and kappa(lambda)."""
    bits = [0.5 * 10 ** (-12 * i / _POINTS) for i in range(_POINTS + 1)]
    pairs = []
    for j in range(_POINTS):
        power = 10 ** (-4 * (1 - (j + 0.5) / _POINTS))
        most = max(
            math.log(b ** (1 - power) + (1 - b) ** (1 - power))
            + power * (b * math.log(b) + (1 - b) * math.log1p(-b))
            for b in bits
        )
        pairs.append((power, most))
    return tuple(pairs)
