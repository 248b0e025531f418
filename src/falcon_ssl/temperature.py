"""The one scalar between cosine and logit: L, stated through epsilon or through a temperature.

    s_ij = L * cos(h_i, w_j) = L * <u_i, w_j> / sqrt(F),      L = log((1 - epsilon (C - 1)) / epsilon)

so that an embedding aligned with code j, on orthogonal codes, gives p_ij = 1 - epsilon (C - 1) and p_ik = epsilon.
The batch size cancels. (The published note prints another temperature that cannot be meant; see docs/theory.md.)
"""

from __future__ import annotations

import math

from falcon_ssl.checks import InputError, check_at_least


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
