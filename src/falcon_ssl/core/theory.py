"""The one scalar between cosine and logit: L, stated through epsilon or through a temperature.

    s_ij = L * cos(h_i, w_j) = L * <u_i, w_j> / sqrt(F),      L = log((1 - epsilon (C - 1)) / epsilon)

so that an embedding aligned with code j, on orthogonal codes, gives p_ij = 1 - epsilon (C - 1) and p_ik = epsilon.
The batch size cancels. (The published note prints another temperature that cannot be meant; see docs/theory.md.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from falcon_ssl.core.checks import check_at_least
from falcon_ssl.core.errors import InputError


def logit_scale(num_codes: int, epsilon: float) -> float:
    """L = log((1 - epsilon (C - 1)) / epsilon), the scale of a cosine in the assignment.

    Args:
        num_codes: C >= 2, codes in the dictionary.
        epsilon: Probability of every code but the aligned one, in (0, 1/C).

    Returns:
        L > 0, in nats.

    Raises:
        InputError: C < 2, epsilon <= 0, or epsilon >= 1/C (states the largest admissible epsilon).

    Example:
        >>> round(logit_scale(4096, 1e-8), 2)
        18.42
    """
    check_at_least("num_codes", num_codes, 2, fix="use at least two codes")
    if not epsilon > 0:
        raise InputError(
            "epsilon is not positive", received=epsilon, expected="epsilon > 0", fix="try 1e-8"
        )
    if num_codes >= 1 / epsilon:  # C may be too large for a float
        largest = (
            f"2**-{num_codes.bit_length() - 1}" if num_codes > 10**300 else f"{1 / num_codes:.6g}"
        )
        raise InputError(
            f"epsilon is too large for {_count(num_codes)} codes",
            received=epsilon,
            expected=f"0 < epsilon < 1/num_codes = {largest}",
            fix="lower epsilon, use fewer codes, or state a temperature instead",
        )
    return math.log1p(-epsilon * (num_codes - 1)) - math.log(epsilon)


def logit_scale_from_temperature(width: int, temperature: float) -> float:
    """L = sqrt(F / temperature), the inverse of `effective_temperature`.

    Args:
        width: F >= 1, width of the embedding.
        temperature: Effective temperature of the equivalent alignment-and-uniformity objective, > 0.

    Raises:
        InputError: F < 1 or temperature <= 0.

    Example:
        >>> round(logit_scale_from_temperature(128, 0.38), 2)
        18.35
    """
    check_at_least("width", width, 1, fix="use at least one feature")
    if not temperature > 0:
        raise InputError(
            "temperature is not positive", received=temperature, expected="> 0", fix="try 0.4"
        )
    return math.sqrt(width / temperature)


def effective_temperature(width: int, logit_scale: float) -> float:
    """F / L^2: with many codes FALCON is alignment plus uniformity at this temperature.

    To second order the invariance is const - (L^2/F) mean <u_i, u'_i> and the prior term
    log mean_ik exp((L^2/F) <u_i, u_k>); hence the name.

    Example:
        >>> round(effective_temperature(128, 18.42), 2)
        0.38
    """
    return width / logit_scale**2


def _count(num_codes: int) -> str:
    """Number of codes as a person writes it: 4096, or 2**128 when it has too many digits."""
    exact_power = num_codes & (num_codes - 1) == 0
    return (
        f"2**{num_codes.bit_length() - 1}" if exact_power and num_codes > 10**12 else str(num_codes)
    )


PriorMatching = Literal["reverse", "forward", "renyi2"]


LN2 = math.log(2)


def least_entropy(num_codes: int, logit_scale: float, *, complete: bool = False) -> float:
    """Entropy of the surest assignment that a unit embedding can have, in nats.

    Orthogonal codes, embedding aligned with one, Z = e^L + C - 1:

        H_least = log Z - L e^L / Z      ( = -(1-(C-1) eps) log(1-(C-1) eps) - (C-1) eps log eps,  eps = 1/Z )

    Complete dictionary, C = 2^F, bits with t_f = tanh(L u_f / sqrt(F)): log 2 - h is a concave function of u_f^2, so
    that all features equally large, u_f^2 = 1/F, are the surest:

        H_least = F h((1 + tanh(L / F)) / 2),      h(p) = -p log p - (1-p) log(1-p)

    Raises:
        InputError: If L <= 0, or C is not a power of two although ``complete``.

    Example:
        >>> least_entropy(4096, 18.42) < 1e-3
        True
    """
    if not logit_scale > 0:
        raise InputError(
            "logit_scale is not positive", received=logit_scale, expected="> 0", fix="see epsilon"
        )
    if complete:
        width = num_codes.bit_length() - 1
        if num_codes != 1 << width:
            raise InputError(
                "a complete dictionary has 2^F codes",
                received=num_codes,
                expected="a power of two",
                fix="pass complete=False",
            )
        # h((1 + tanh x)/2) = log(2 cosh x) - x tanh x = log1p(e^-2x) + x (1 - tanh x)
        x = logit_scale / width
        return width * (math.log1p(math.exp(-2 * x)) + x * (1 - math.tanh(x)))
    # Z = e^L (1 + rest): log Z - L / (1 + rest) without e^L, so that nothing overflows.
    rest = math.exp(math.log(num_codes - 1) - logit_scale)
    return math.log1p(rest) + logit_scale * rest / (1 + rest)


def collapse_threshold(
    num_codes: int,
    beta: float,
    prior_matching: PriorMatching,
    *,
    prior: Sequence[float] | None = None,
) -> float | None:
    """Least loss of any network that gives every sample the same assignment p, in nats.

    Reverse:  min_p beta H(p) + KL(p || q) = -(1-beta) log sum_j q_j^(1/(1-beta))    for beta < 1
                                           = -log max_j q_j                          for beta >= 1
              which is min(beta, 1) log C for uniform q. The Renyi-2 divergence is no less, so it holds for renyi2.
    Forward, uniform q:  min_p beta H(p) + CE(q, p). At a minimum at most one p_j is large and the others are equal, so

              min over r in (0, (C-1)/C] of  beta [h(r) + r log(C-1)] - (1/C) log(1-r) - ((C-1)/C) log(r/(C-1))

              is found on a line. It is (1 + beta) log C, the value of a uniform p, only while beta is small; for
              larger beta one code with most of the mass pays less.

    Returns:
        The threshold; None for forward matching of a prior that is not uniform.

    Example:
        >>> round(collapse_threshold(4096, 0.5, "reverse") / math.log(4096), 6)
        0.5
    """
    if prior_matching == "forward":
        return None if prior is not None else _forward_threshold(num_codes, beta)
    if prior is None:
        return min(beta, 1.0) * math.log(num_codes)
    log_largest = math.log(max(prior))
    if beta >= 1:
        return -log_largest
    power = 1 / (1 - beta)
    total = math.fsum(math.exp(power * (math.log(q) - log_largest)) for q in prior)
    return -log_largest - (1 - beta) * math.log(total)


def _forward_threshold(num_codes: int, beta: float) -> float:
    log_others = math.log(num_codes - 1)
    share = 1 / num_codes

    def loss(log_r: float) -> float:
        r = math.exp(log_r)
        log_kept = math.log1p(-r)
        entropy = -(1 - r) * log_kept - r * (log_r - log_others)
        return beta * entropy - share * log_kept - (1 - share) * (log_r - log_others)

    # Up to two local minima on the line: scan for the better one, then narrow it down by golden section.
    low, high, points = -50.0, math.log1p(-share), 2000
    step = (high - low) / points
    best = min((low + i * step for i in range(points + 1)), key=loss)
    left, right = max(low, best - step), min(high, best + step)
    golden = (math.sqrt(5) - 1) / 2
    for _ in range(60):
        a, b = right - golden * (right - left), left + golden * (right - left)
        if loss(a) < loss(b):
            right = b
        else:
            left = a
    return min(loss(best), loss((left + right) / 2))


# Where neither epsilon nor temperature is stated: the best of three in the first trials, and what epsilon = 1e-8 means
# at F = 128. The default epsilon itself is far above 2^-F.
COMPLETE_TEMPERATURE = 0.38
