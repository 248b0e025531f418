"""What the theory promises at the optimum, computed from the records (spec: sections 2 and 4).

    L      = log((1 - eps (C-1)) / eps),    eps = 1 / (e^L + C - 1)         logit scale
    H_eps  = -(1-(C-1) eps) log(1-(C-1) eps) - (C-1) eps log eps            least entropy
           = log(1 + r) + L r / (1 + r),    r = (C-1) e^-L
           = F h((1 + tanh(L/F)) / 2)       complete dictionary, h the entropy of a bit
    loss - bound = beta (entropy - H_eps) + beta consistency + (D - D_min)  optimality gap
    D_min  = log C (forward, uniform prior), 0 (reverse, renyi2)

The three gaps are zero exactly at the optimum of the theorem (on orthogonal codes; quasi-orthogonal
ones may push the first slightly below zero).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from falcon_ssl.records.run import Array, Curve, Run, as_number
from falcon_ssl.report.svg import Level

# What a configuration means that states neither epsilon nor a temperature (see FalconConfig).
DEFAULT_EPSILON = 1e-8
DEFAULT_TEMPERATURE_COMPLETE = 0.38


@dataclass(frozen=True)
class Objective:
    """The numbers of a FALCON run that its bounds depend on.

    Attributes:
        log_codes: log C, in nats; F log 2 for the complete dictionary.
        width: F.
        complete: Whether the dictionary is the complete one.
        logit_scale: L, in nats.
        beta: Weight of the invariance term.
        prior_matching: "forward", "reverse" or "renyi2".
        uniform: Whether the prior is uniform.
    """

    log_codes: float
    width: float
    complete: bool
    logit_scale: float
    beta: float
    prior_matching: str
    uniform: bool

    @property
    def epsilon(self) -> float | None:
        """1 / (e^L + C - 1); None for the complete dictionary, whose codes are not orthogonal."""
        if self.complete:
            return None
        return 1.0 / (math.exp(self.logit_scale) + math.expm1(self.log_codes))

    @property
    def least_entropy(self) -> float:
        """H_eps, in nats: the least entropy of an assignment."""
        if self.complete:
            x = self.logit_scale / self.width
            return self.width * (math.log1p(math.exp(-2 * x)) + x * (1 - math.tanh(x)))
        rest = math.expm1(self.log_codes) * math.exp(-self.logit_scale)
        return math.log1p(rest) + self.logit_scale * rest / (1 + rest)

    @property
    def least_prior_matching(self) -> float | None:
        """D_min, in nats; None for a prior that is not uniform and matched forward."""
        if self.prior_matching != "forward":
            return 0.0
        return self.log_codes if self.uniform else None

    @property
    def collapse_threshold(self) -> float | None:
        """Least loss when every sample has the same assignment, in nats; None when not closed.

        beta H(p) + log C - H(p) >= min(beta, 1) log C for reverse matching; renyi2 is no less.
        """
        if self.prior_matching == "forward" or not self.uniform:
            return None
        return min(self.beta, 1.0) * self.log_codes


def objective(run: Run) -> Objective | None:
    """The FALCON objective of a run; None for another method or when a size is not recorded."""
    num_codes, width = run.number_setting("num_codes"), run.embed_dim
    beta = run.number_setting("beta")
    falcon = {"invariance", "prior_matching"} <= run.curves.keys()
    complete = run.setting("dictionary") == "complete"
    if not falcon or beta is None or width is None:
        return None
    if not complete and (num_codes is None or num_codes < 2):
        return None
    scale = _logit_scale(run, width, None if complete else num_codes)
    if scale is None:
        return None
    return Objective(
        log_codes=width * math.log(2) if complete or num_codes is None else math.log(num_codes),
        width=width,
        complete=complete,
        logit_scale=scale,
        beta=beta,
        prior_matching=str(run.setting("prior_matching") or "reverse"),
        uniform=not run.number_setting("prior_exponent"),
    )


def _logit_scale(run: Run, width: float, num_codes: float | None) -> float | None:
    """L as recorded, else as configured; None when the configuration admits none."""
    recorded = as_number(run.about("logit_scale"))
    if recorded is not None:
        return recorded
    epsilon, temperature = run.number_setting("epsilon"), run.number_setting("temperature")
    if num_codes is None:
        return math.sqrt(width / (temperature or DEFAULT_TEMPERATURE_COMPLETE))
    if epsilon is None and temperature:
        return math.sqrt(width / temperature)
    epsilon = epsilon or DEFAULT_EPSILON
    if not 0 < epsilon < 1 / num_codes:
        return None
    return math.log1p(-epsilon * (num_codes - 1)) - math.log(epsilon)


def collapse_threshold(run: Run) -> float | None:
    """The least loss of a run whose samples all get the same assignment: recorded or computed."""
    recorded = run.metric("certificate", "collapse_threshold")
    terms = objective(run)
    return terms.collapse_threshold if recorded is None and terms else recorded


def gap_curves(run: Run) -> dict[str, Curve]:
    """The gap to each condition of the theorem over training, in nats, by name for a legend."""
    terms = objective(run)
    if terms is None:
        return {}
    bounds = {
        "entropy": ("entropy − H_ε", terms.least_entropy),
        "consistency": ("consistency", 0.0),
        "prior_matching": ("D − D_min", terms.least_prior_matching),
    }
    return {
        text: Curve(run.curves[name].x, run.curves[name].y - least)
        for name, (text, least) in bounds.items()
        if name in run.curves and least is not None
    }


def curve_levels(run: Run) -> Mapping[str, Level]:
    """Bounds and ideals to draw in the chart of a logged quantity, by its name."""
    levels = {}
    threshold = collapse_threshold(run)
    if threshold is not None:
        levels["total"] = Level(threshold, f"all samples alike: {threshold:.2f}")
    terms = objective(run)
    if terms is not None:
        text = f"uniform assignment: log C = {terms.log_codes:.2f}"
        levels["invariance"] = Level(terms.log_codes, text)
    bits = run.metric("certificate", "max_bits")
    if bits is not None:
        levels["mutual_information_bits"] = Level(bits, f"most: {bits:.1f} bits")
    width = run.embed_dim
    if width is not None:
        levels["effective_rank_u"] = Level(width, f"width F = {width:.0f}")
    return levels


@dataclass(frozen=True)
class BlockContrast:
    """Cosines of the pairs of rows that share a code, and of those that do not."""

    within: Array
    across: Array


def block_contrast(similarity: Array, codes: Array) -> BlockContrast:
    """Sort the pairs of an adjacency by whether they share a code (Corollary 3: cosines 1 and 0).

    Args:
        similarity: Cosines [M, M].
        codes: Code of each row [M].

    Returns:
        Both groups of cosines, each pair once; either may be empty.
    """
    rows, columns = np.triu_indices(len(codes), k=1)
    same = codes[rows] == codes[columns]
    pairs = similarity[rows, columns]
    return BlockContrast(within=pairs[same], across=pairs[~same])
