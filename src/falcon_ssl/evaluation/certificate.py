"""A certificate from the loss terms alone: how far from the optimum, and proof that nothing collapsed.

Three numbers that add up to the distance from the optimum of the theory (docs/theory.md, "The optimum"):

    loss - bound = beta (entropy - H_least) + beta consistency + (D - D_min)

All are zero exactly at the optimum. And a threshold: a network that gives every sample the same assignment p pays

    reverse, renyi2:  beta H(p) + KL(p || q)      forward:  beta H(p) + CE(q, p)

Its least value over all p is the collapse threshold. A measured loss below it cannot come from such a network; nor from
one whose assignments depend on the view or the place in it but not on the image, whatever the marginals: with m_o the
mean over the places of target o, and m over all targets, I >= mean_o H(m_o) and I >= H(m) (docs/theory-views.md).
Pure Python numbers in and out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from falcon_ssl.core.averaging import RISK
from falcon_ssl.core.checks import check_at_least, check_choice
from falcon_ssl.core.errors import InputError
from falcon_ssl.core.notebook import html_table
from falcon_ssl.core.theory import LN2, PRIOR_MATCHINGS, Optimum, PriorMatching

TERMS = ("total", "invariance", "prior_matching", "entropy", "consistency")
ROUNDING = 1e-5  # of log C: float32 sums of the loss are good to about 1e-6


@dataclass(frozen=True)
class Certificate:
    """What the loss terms of a batch prove; in nats unless the name says bits.

    Args:
        loss: The measured loss.
        bound: Least loss on orthogonal codes.
        gap_entropy: beta (entropy - H_least). Random codes are only nearly orthogonal, so it may be slightly negative.
        gap_consistency: beta * consistency: what the two views of a sample disagree about.
        gap_prior: D - D_min. With N < C samples and sure assignments at least log(C / N) of it is due to the batch. An
            unbiased D is an estimate, which chance takes below 0.
        collapse_threshold: Least loss of a network that gives every sample the same assignment; None where it is not
            known (forward matching of a prior that is not uniform).
        certified: Whether the loss is below that threshold, by more than rounding.
        mutual_information_bits: Bits of code that the batch carries about its samples (their places, their views, where
            these share a marginal); None where the terms do not contain it (forward matching, priors that are not
            uniform, an unbiased or sampled divergence, a running marginal).
        shared_bits: Mutual information minus consistency: bits about a sample that the codes of both views contain,
            see `certify`; negative when guessing would do better. None where the former is.
        max_bits: log2 min(N, C), N rows of a marginal: the most it could carry.
        sentence: The verdict in plain words.
    """

    loss: float
    bound: float
    gap_entropy: float
    gap_consistency: float
    gap_prior: float
    collapse_threshold: float | None
    certified: bool
    mutual_information_bits: float | None
    shared_bits: float | None
    max_bits: float
    sentence: str

    @property
    def gap(self) -> float:
        """Distance from the optimum: the sum of the three gaps."""
        return self.gap_entropy + self.gap_consistency + self.gap_prior

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a JSON record."""
        return asdict(self)

    def _repr_html_(self) -> str:
        named = {
            "loss": self.loss,
            "collapse threshold": self.collapse_threshold,
            "least loss": self.bound,
            "gap: entropy": self.gap_entropy,
            "gap: consistency": self.gap_consistency,
            "gap: prior matching": self.gap_prior,
            "bits of code": self.mutual_information_bits,
            "at most": self.max_bits,
        }
        units = ["nats"] * 6 + ["bits"] * 2
        rows = [
            [name, "not known", ""] if value is None else [name, f"{value:.3f}", unit]
            for (name, value), unit in zip(named.items(), units, strict=True)
        ]
        return html_table(
            rows, sentence=self.sentence, verdict="proven" if self.certified else "not proven"
        )


def certify(
    terms: Mapping[str, float],
    *,
    num_codes: int,
    logit_scale: float,
    beta: float,
    prior_matching: PriorMatching,
    batch_size: int,
    prior: Sequence[float] | None = None,
    complete: bool = False,
    rows_per_sample: int = 1,
    unbiased: bool = False,
    num_places: int = 1,
    kernel_places: int | None = None,
    marginal_momentum: float = 0.0,
    draws: int | None = None,
) -> Certificate:
    """Read the terms of a FALCON loss.

    With reverse matching and a uniform prior, MI(sample; code) = log C - D - entropy. The Renyi-2 divergence is at
    least the KL divergence, so with renyi2 the same expression is a lower bound of the mutual information.

    Let J be a code drawn from the assignment p of one view, and let the assignment p' of the other view X' guess it.
    Any guess bounds the mutual information from below (Barber & Agakov, 2003):

        MI(J; X') >= H(J) + E log p'(J | X') = log C - D - invariance = MI(sample; code) - consistency

    These are the shared bits. Of places and pooled marginals, J is drawn at a random place of a random target view, and
    any other view guesses at any of its places: bits about the sample all the same, never about view or place, for
    I >= mean_i H(p_i), p_i the mean over the places and target views of a sample. Neither beta nor the temperature is
    part of the definition, so runs that differ in them can be compared.

    Args:
        terms: Loss terms in nats, as of ``LossTerms.as_floats()``; other names are of no interest.
        num_codes: C.
        logit_scale: L, the scale of the cosine in the assignment.
        beta: Weight of the invariance.
        prior_matching: "reverse", "forward" or "renyi2".
        batch_size: N, samples of the global batch.
        prior: q [C]; None is uniform.
        complete: Whether the dictionary is the complete one, with C = 2^F. Its codes are far from orthogonal; the
            least entropy is that of F bits whose features are all equally large, see `least_entropy`.
        rows_per_sample: Rows of one sample in a marginal: S of a view of S places, K S of K target views together.
        unbiased: Whether D is a U-statistic, `FalconLoss.is_unbiased`. It may be below the divergence of the batch, so
            that nothing is said about mutual information. The threshold holds: where assignments do not depend on
            the sample it is the divergence.
        num_places: S, places of a view.
        kernel_places: How many of them enter the divergence of each sample; None for all. With some, nothing is said
            about mutual information, and the threshold is lower by what may be unseen, see docs/theory-views.md.
        marginal_momentum: Of a running marginal, `FalconLoss.marginal_momentum`. What is matched is then no marginal of
            this batch: nothing is said about mutual information, and the threshold is lower, see
            `falcon_ssl.core.averaging.running_threshold`.
        draws: Codes that each marginal is sampled by, samples of the batch times ``samples_per_row`` of the dictionary:
            needed for a proof where a complete one is matched in reverse. The threshold is then lower by what chance
            may do with probability 1e-6, see `falcon_ssl.core.averaging.sampling_error`; without them, and where views
            or places share a marginal, there is none. Nothing is said about mutual information.

    Returns:
        The certificate of this batch.

    Raises:
        InputError: A term is missing or not finite, an option is out of range, or the prior is not one over C codes.

    Example:
        >>> terms = dict(total=5.0, invariance=1.0, prior_matching=4.0, entropy=0.75, consistency=0.25)
        >>> options = dict(logit_scale=18.42, beta=1.0, prior_matching="reverse", batch_size=256)
        >>> certificate = certify(terms, num_codes=4096, **options)
        >>> certificate.certified, round(certificate.collapse_threshold, 2)
        (True, 8.32)
        >>> round(certificate.mutual_information_bits, 2), certificate.max_bits
        (5.15, 8.0)
    """
    check_choice("prior_matching", prior_matching, PRIOR_MATCHINGS)
    check_at_least("num_codes", num_codes, 2)
    check_at_least("batch_size", batch_size, 1, fix="pass the global batch size")
    check_at_least("beta", beta, 0)
    check_at_least("rows_per_sample", rows_per_sample, 1)
    if not all(math.isfinite(terms.get(name, math.nan)) for name in TERMS):
        raise InputError(
            "loss terms are missing or not finite",
            received={name: terms.get(name) for name in TERMS},
            expected="a number for each",
            fix="pass LossTerms.as_floats()",
        )
    if prior is not None and len(prior) != num_codes:
        expected = f"one probability for each of {num_codes} codes"
        raise InputError("prior has the wrong length", received=len(prior), expected=expected)
    optimum = Optimum(
        num_codes,
        logit_scale,
        beta,
        prior_matching,
        prior,
        complete,
        marginal_momentum=marginal_momentum,
        draws=draws if rows_per_sample == 1 else None,
    )
    loss, threshold = terms["total"], optimum.collapse_threshold
    is_partial = kernel_places is not None and kernel_places < num_places
    if is_partial and threshold is not None:
        unseen = _unseen(batch_size, num_places, unbiased=unbiased)
        threshold = None if unseen is None else threshold - unseen
    margin = ROUNDING * optimum.log_num_codes  # not of the threshold, which may be 0 or below
    certified = threshold is not None and loss < threshold - margin
    max_bits = math.log2(min(batch_size * rows_per_sample, num_codes))
    is_estimate = unbiased or is_partial or optimum.is_sampled
    nats = None if is_estimate else optimum.mutual_information(terms)
    # The bound is exact, what exceeds it rounding.
    bits = None if nats is None else min(max(0.0, nats) / LN2, max_bits)
    shared_bits = None if nats is None else (nats - terms["consistency"]) / LN2
    about, at_least = "", "at least " if prior_matching == "renyi2" else ""
    if bits is not None:
        carried = f"{at_least}{bits:.1f} of at most {max_bits:.1f} bits"
        whose, which = ("a place or view", "one") if rows_per_sample > 1 else ("an image", "image")
        about = f"; the code of {whose} carries {carried} about which {which} of the batch it is"
    return Certificate(
        loss=loss,
        bound=optimum.bound,
        gap_entropy=beta * (terms["entropy"] - optimum.least_entropy),
        gap_consistency=beta * terms["consistency"],
        gap_prior=terms["prior_matching"] - optimum.least_prior_matching,
        collapse_threshold=threshold,
        certified=certified,
        mutual_information_bits=bits,
        shared_bits=shared_bits,
        max_bits=max_bits,
        sentence=_sentence(loss, threshold, certified, about, sampled=optimum.is_sampled),
    )


def _unseen(num_rows: int, num_places: int, *, unbiased: bool) -> float | None:
    """By how much D may be below that of all S places if each of N samples shows some; None if one may be missing.

    Assignments p_a that depend on the place a alone, shown by at least a fraction w = floor(N/S) / N of the samples:

        m' = sum_a w_a p_a >= w S m            so  D2(m') >= D2(m) + 2 log(w S)
        mean_i |q_i|^2 <= |m'|^2 / w           so, without pairs of one sample,  D2 >= D2(m') + log((N - 1/w) / (N - 1))

    with q_i the mean over what sample i shows.
    """
    w = (num_rows // num_places) / num_rows
    if w == 0 or (unbiased and num_rows * w <= 1):
        return None
    unseen = -2 * math.log(w * num_places)
    return unseen - math.log((num_rows - 1 / w) / (num_rows - 1)) if unbiased else unseen


def _sentence(
    loss: float, threshold: float | None, certified: bool, about: str, *, sampled: bool
) -> str:
    if threshold is None:
        proof = "This objective has no known collapse threshold, so the loss alone proves nothing"
    elif certified:
        proof = (
            f"Proven not collapsed: a network that treats every image alike cannot bring the loss below "
            f"{threshold:.2f} nats, and this one has {loss:.2f}"
        )
        if sampled:
            proof += f" (codes are drawn: wrong with probability {RISK:g} at most)"
    else:
        proof = (
            f"Not proven: the loss of {loss:.2f} nats is no lower than the {threshold:.2f} that a network could have "
            f"that treats every image alike"
        )
    return f"{proof}{about}."
