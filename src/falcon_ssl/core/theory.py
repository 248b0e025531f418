"""What the theory says in numbers: the scale of the logits, the optimum of the loss, the least loss of a collapse.

    s_ij = L * cos(h_i, w_j) = L * <u_i, w_j> / sqrt(F),      L = log((1 - epsilon (C - 1)) / epsilon)

so that an embedding aligned with code j, on orthogonal codes, gives p_ij = 1 - epsilon (C - 1) and p_ik = epsilon.
The batch size cancels. (The published note prints another temperature that cannot be meant; see docs/theory.md.)

    loss - bound = beta (entropy - H_least) + beta consistency + (D - D_min),     bound = beta H_least + D_min

All three gaps are zero exactly at the optimum. Numbers in and out, without torch: the report needs them too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from falcon_ssl.core.averaging import running_threshold, sampling_error
from falcon_ssl.core.checks import check_at_least, check_positive
from falcon_ssl.core.errors import InputError

PriorMatching = Literal["reverse", "forward", "renyi2"]
PRIOR_MATCHINGS: tuple[PriorMatching, ...] = get_args(PriorMatching)

LN2 = math.log(2)
LARGEST_LOG = 700  # of what float64 holds
# At any width; the best on photographs with F = 512 (results/defaults). The paper's epsilon, 1e-8, is .38 at F = 128.
DEFAULT_TEMPERATURE = 0.25


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
    check_at_least("num_codes", num_codes, 2)
    check_positive("epsilon", epsilon, fix="try 1e-8")
    if num_codes >= 1 / epsilon:  # C may be too large for a float
        largest = f"1/{count_text(num_codes)}"
        if num_codes < 10**300:
            largest = f"{1 / num_codes:.6g}"
        raise InputError(
            f"epsilon is too large for {count_text(num_codes)} codes",
            received=epsilon,
            expected=f"0 < epsilon < 1/num_codes = {largest}",
            fix="lower epsilon, use fewer codes, or state a temperature instead",
        )
    return math.log1p(-epsilon * (num_codes - 1)) - math.log(epsilon)


def logit_scale_from_temperature(width: float, temperature: float) -> float:
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
    check_at_least("width", width, 1)
    check_positive("temperature", temperature, fix="try 0.4")
    return math.sqrt(width / temperature)


def effective_temperature(width: float, logit_scale: float) -> float:
    """F / L^2: with many codes FALCON is alignment plus uniformity at this temperature.

    To second order the invariance is const - (L^2/F) mean_i cos(u_i, u'_i) and the prior term
    log mean_ik exp((L^2/F) cos(u_i, u_k)); hence the name.

    Args:
        width: F, width of the embedding.
        logit_scale: L, in nats.

    Example:
        >>> round(effective_temperature(128, 18.42), 2)
        0.38
    """
    return width / logit_scale**2


def codes_needed(temperature: float, accuracy: float) -> int:
    """C from which random codes give the softmax of the complete dictionary to a relative accuracy.

        C = (exp(1/T) - 1) / accuracy^2

    A softmax over random codes is a random energy model (Lucibello and Mezard, 2023, arXiv 2304.14964): energies
    L cos(u, w_j) have variance L^2 / F = 1/T, and Z = sum_j exp has the relative deviation sqrt((exp(1/T) - 1) / C),
    while 1/T < 2 log C. Below T = 1 / (2 log C) a finite dictionary differs in kind: its largest codes decide.
    The second moment of embeddings needs F (F - 1) / 2 codes whatever the temperature, see docs/theory.md.

    Args:
        temperature: T = F / L^2, > 0.
        accuracy: Relative standard deviation of Z that is allowed, > 0.

    Raises:
        InputError: A number that is not positive, or a temperature for which no finite dictionary will do.

    Example:
        >>> codes_needed(0.38, 0.028)
        16449
    """
    check_positive(
        "temperature", temperature, fix="0.25 is the default, 0.38 the paper's at F = 128"
    )
    check_positive("accuracy", accuracy, fix="0.03 is 3 percent")
    if (log_codes := 1 / temperature - 2 * math.log(accuracy)) > LARGEST_LOG:
        raise InputError(
            "temperature is too small for any finite dictionary",
            received=f"{temperature}, at which exp({log_codes:.4g}) codes are needed",
            expected=f"at most exp({LARGEST_LOG})",
            fix="use the complete dictionary",
        )
    return max(2, math.ceil(math.expm1(1 / temperature) / accuracy**2))


def choose_logit_scale(
    num_codes: int,
    width: float,
    *,
    epsilon: float | None,
    temperature: float | None,
) -> float:
    """L from epsilon or from temperature, whichever is given, or from `DEFAULT_TEMPERATURE`.

    Args:
        num_codes: C.
        width: F.
        epsilon: See `logit_scale`.
        temperature: See `logit_scale_from_temperature`.

    Raises:
        InputError: Both are given, or the one that counts is out of range.
    """
    if epsilon is not None and temperature is not None:
        raise InputError(
            "epsilon and temperature state the same thing",
            received=f"epsilon={epsilon} and temperature={temperature}",
            expected="one of the two",
            fix="leave one out",
        )
    if epsilon is not None:
        return logit_scale(num_codes, epsilon)
    return logit_scale_from_temperature(
        width, DEFAULT_TEMPERATURE if temperature is None else temperature
    )


def count_text(num_codes: int) -> str:
    """Number of codes as a person writes it: 4096, or 2^128 when it has too many digits."""
    is_power = num_codes & (num_codes - 1) == 0
    return f"2^{num_codes.bit_length() - 1}" if is_power and num_codes > 10**12 else str(num_codes)


def power_law(num_codes: int, exponent: float) -> NDArray[np.float64]:
    """q_j proportional to j^-exponent, j = 1 ... C, float64 [C]; sums to 1."""
    q_C = np.arange(1, num_codes + 1, dtype=np.float64) ** -exponent
    normalized: NDArray[np.float64] = q_C / q_C.sum()
    return normalized


@dataclass(frozen=True)
class Optimum:
    """The numbers of a FALCON objective against which a loss is read; in nats.

    Args:
        num_codes: C.
        logit_scale: L.
        beta: Weight of the invariance.
        prior_matching: "reverse", "forward" or "renyi2".
        prior: q [C]; None is uniform.
        complete: Whether the dictionary is the complete one, C = 2^F, whose codes are far from orthogonal.
        marginal_momentum: Of a running average that the prior is matched by; 0 matches every batch alone.
        draws: Codes that a marginal is sampled by, samples times codes of each, for the complete dictionary with
            reverse matching; None where that is not known.
    """

    num_codes: int
    logit_scale: float
    beta: float
    prior_matching: PriorMatching
    prior: Sequence[float] | None = None
    complete: bool = False
    marginal_momentum: float = 0.0
    draws: int | None = None

    @property
    def is_sampled(self) -> bool:
        """Whether the divergence is estimated from codes that are drawn."""
        return self.complete and self.prior_matching == "reverse"

    @property
    def log_num_codes(self) -> float:
        """log C."""
        return math.log(self.num_codes)

    @property
    def epsilon(self) -> float | None:
        """1 / (e^L + C - 1); None for the complete dictionary."""
        if self.complete:
            return None
        # Without e^L, which overflows where L was recorded wrongly.
        inverse = math.exp(-self.logit_scale)
        return inverse / (1 + (self.num_codes - 1) * inverse)

    @cached_property
    def least_entropy(self) -> float:
        """H_least, see `least_entropy`."""
        return least_entropy(self.num_codes, self.logit_scale, complete=self.complete)

    @cached_property
    def least_prior_matching(self) -> float:
        """D_min: the entropy of the prior for forward matching, a cross-entropy; 0 for a divergence."""
        if self.prior_matching != "forward":
            return 0.0
        if self.prior is None:
            return self.log_num_codes
        return -math.fsum(q * math.log(q) for q in self.prior)

    @property
    def bound(self) -> float:
        """Least loss on orthogonal codes."""
        return self.beta * self.least_entropy + self.least_prior_matching

    @cached_property
    def collapse_threshold(self) -> float | None:
        """Least loss when every sample has the same assignment, see `collapse_threshold`; None where it is not known.

        Of a sampled divergence it is exceeded with probability 1 - `averaging.RISK` at least.
        """
        if self.marginal_momentum:
            if self.prior is not None or self.prior_matching == "forward":
                return None
            return running_threshold(
                self.log_num_codes,
                self.beta,
                momentum=self.marginal_momentum,
                renyi2=self.prior_matching == "renyi2",
            )
        least = collapse_threshold(self.num_codes, self.beta, self.prior_matching, prior=self.prior)
        if not self.is_sampled or least is None:
            return least
        if self.draws is None:
            return None
        return least - sampling_error(self.num_codes.bit_length() - 1, self.draws)

    def mutual_information(self, terms: Mapping[str, float]) -> float | None:
        """MI(sample; code) = log C - D - entropy of a batch, not clipped at 0.

        The Renyi-2 divergence is at least the KL divergence, so that with renyi2 this is a lower bound. None where the
        terms do not give it: forward matching, priors that are not uniform, a marginal of more than this batch.
        """
        if self.prior is not None or self.prior_matching == "forward" or self.marginal_momentum:
            return None
        return self.log_num_codes - terms["prior_matching"] - terms["entropy"]


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
    check_positive("logit_scale", logit_scale)
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
    # Z = e^L (1 + r): log Z - L / (1 + r) without e^L, so that nothing overflows.
    r = math.exp(math.log(num_codes - 1) - logit_scale)
    return math.log1p(r) + logit_scale * r / (1 + r)


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

              is found by a search over r. It is (1 + beta) log C, the value of a uniform p, only while beta is small;
              for larger beta one code with most of the mass pays less.

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
    q = 1 / num_codes

    def loss(log_r: float) -> float:
        r = math.exp(log_r)
        log_kept = math.log1p(-r)
        entropy = -(1 - r) * log_kept - r * (log_r - log_others)
        return beta * entropy - q * log_kept - (1 - q) * (log_r - log_others)

    # Up to two local minima: scan for the better one, then narrow it down by golden section.
    low, high, points = -50.0, math.log1p(-q), 2000
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
