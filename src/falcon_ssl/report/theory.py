"""What the theory promises at the optimum, beside what the records of a run hold (see `falcon_ssl.core.theory`).

On orthogonal codes the three gaps are zero exactly at the optimum; quasi-orthogonal ones may push the first slightly
below zero.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import cast

import numpy as np

from falcon_ssl.core.errors import InputError
from falcon_ssl.core.theory import (
    Optimum,
    PriorMatching,
    choose_logit_scale,
    power_law,
)
from falcon_ssl.records.run import Array, Curve, Run, as_number
from falcon_ssl.report.svg import Level

IN_NATS = ("falcon", "swav", "self_classifier", "gedi", "dino", "simclr")
WIDEST = 2**24  # of embeddings; what is beyond these limits no run has recorded
MOST_WITH_PRIOR = 2**24  # codes
SCALES = (1e-6, 1e9)  # of logits
ONE_CODE_EACH = "a code for each sample: log(C/N) = {:.2f}"


def optimum_of(run: Run) -> Optimum | None:
    """The optimum of a FALCON run; None for another method, or when a size is not recorded or does not fit."""
    num_codes, width = run.number_setting("num_codes"), run.embed_dim
    beta = run.number_setting("beta")
    falcon = {"invariance", "prior_matching"} <= run.curves.keys()
    complete = run.setting("dictionary") == "complete"
    if not falcon or beta is None or width is None or not 1 <= width <= WIDEST:
        return None
    if complete:
        num_codes = 1 << int(width)
    if num_codes is None or not 2 <= num_codes < math.inf:
        return None
    num_codes, exponent = int(num_codes), run.number_setting("prior_exponent")
    if exponent and num_codes > MOST_WITH_PRIOR:
        return None
    scale = as_number(run.about("logit_scale"))
    if scale is None:
        try:
            scale = choose_logit_scale(
                num_codes,
                width,
                epsilon=run.number_setting("epsilon"),
                temperature=run.number_setting("temperature"),
            )
        except InputError:  # records changed by hand, or of a dictionary of another size
            return None
    if not SCALES[0] <= scale <= SCALES[1]:
        return None
    return Optimum(
        num_codes=num_codes,
        logit_scale=scale,
        beta=beta,
        prior_matching=cast(PriorMatching, run.setting("prior_matching") or "reverse"),
        prior=power_law(num_codes, exponent).tolist() if exponent else None,
        complete=complete,
        marginal_momentum=run.number_setting("marginal_momentum") or 0.0,
    )


def collapse_threshold(run: Run) -> float | None:
    """The least loss of a run whose samples all get the same assignment: recorded or computed."""
    recorded = run.metric("certificate", "collapse_threshold")
    best = optimum_of(run)
    return best.collapse_threshold if recorded is None and best else recorded


def loss_unit(run: Run) -> str:
    """Unit of the loss of a run's method: nats of a divergence or a cross-entropy, else ""."""
    return "nats" if str(run.setting("method") or "falcon") in IN_NATS else ""


def least_of_a_batch(run: Run) -> float | None:
    """log(C / N): what prior matching keeps at least when each of a batch's N < C samples takes one code.

    Known for reverse matching to a uniform prior; None where it is not, or N >= C.
    """
    best = optimum_of(run)
    if best is None or best.prior is not None or best.prior_matching != "reverse":
        return None
    size, bits = run.number_setting("batch_size"), run.metric("certificate", "max_bits")
    if best.marginal_momentum or not (size or bits):
        return None
    least = best.log_num_codes - (math.log(2) * bits if bits else math.log(size or 1))
    return least if least > 0.01 else None


def gap_curves(run: Run) -> dict[str, Curve]:
    """The gap to each condition of the theorem over training, in nats, by name for a legend."""
    best = optimum_of(run)
    if best is None:
        return {}
    bounds = {
        "entropy": ("entropy − H_ε", best.least_entropy),
        "consistency": ("consistency", 0.0),
        "prior_matching": ("D − D_min", best.least_prior_matching),
    }
    return {
        text: Curve(run.curves[name].x, run.curves[name].y - least)
        for name, (text, least) in bounds.items()
        if name in run.curves
    }


def curve_levels(run: Run) -> Mapping[str, Level]:
    """Bounds and ideals to draw in the chart of a logged quantity, by its name."""
    best = optimum_of(run)
    bounds = {
        "total": (collapse_threshold(run), "all samples alike: {:.2f}"),
        "invariance": (best.log_num_codes if best else None, "uniform assignment: log C = {:.2f}"),
        "prior_matching": (least_of_a_batch(run), ONE_CODE_EACH),
        "mutual_information_bits": (run.metric("certificate", "max_bits"), "most: {:.1f} bits"),
        "effective_rank_u": (run.embed_dim, "width F = {:.0f}"),
    }
    return {
        name: Level(value, text.format(value))
        for name, (value, text) in bounds.items()
        if value is not None
    }


def block_contrast(similarity: Array, codes: Array) -> tuple[Array, Array]:
    """Sort the pairs of an adjacency by whether they share a code (Corollary 3: cosines 1 and 0).

    Args:
        similarity: Cosines [M, M].
        codes: Code of each row [M].

    Returns:
        The cosines of the pairs that share one, and of the others, each pair once; either may be empty.
    """
    rows, columns = np.triu_indices(len(codes), k=1)
    same = codes[rows] == codes[columns]
    pairs = similarity[rows, columns]
    return pairs[same], pairs[~same]
