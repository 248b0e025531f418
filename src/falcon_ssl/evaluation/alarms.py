"""Alarms: a collapsed run is reported in plain words while it trains, not 200 epochs later.

Two kinds of evidence. The loss terms, which are there anyway: mutual information between samples and codes, entropy,
consistency, and whether total or gradient explode. And now and then a probe of some rows of the batch, for the
directions and codes that embeddings use, and of the weights of the encoder. An alarm is raised when its symptom has
lasted for `PATIENCE` steps; once, and again if it returns.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import KW_ONLY, asdict, dataclass, field
from statistics import median
from typing import Any, Literal

import torch
from torch import Tensor, nn

from falcon_ssl.core.checks import check_at_least, check_choice
from falcon_ssl.core.distributed import all_gather_rows, world_size
from falcon_ssl.core.monitor import Moment, Observation, StuckValue
from falcon_ssl.core.numerics import with_float64
from falcon_ssl.core.sharding import local, whole_norms, whole_sums
from falcon_ssl.core.theory import LN2, Optimum, PriorMatching, count_text
from falcon_ssl.dictionary.base import Dictionary
from falcon_ssl.evaluation.collapse import CONSTANT, effective_rank

PATIENCE = 200  # steps
EVERY = 10  # steps between two probes of the batch: keeps the cost below 2 % of a step
ROWS = 256  # rows of a probe, over all ranks
NEAR = 0.01  # "at log C" means within 1 %
FAINT = 0.03  # no information means at most 3 % of what the batch could carry; learning runs were seen at 7 % and more
FEW = 0.05  # few codes, few directions: at most 5 % of those there could be
PROGRESS = 0.1  # two views must come at least this fraction nearer to each other than they were
SMOOTHING = 0.2  # weight of the newest step in what is smoothed, five steps after the last one
TINY = 1e-6  # nats
MOVED = 1e-4  # of the encoder's norm; the recipes for the digits move their sum by .18 and more in ten steps
INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by their bytes
EARLY = 5  # first values, from which total and gradient norm are measured
GROWN = 30.0  # times as large as at first, smoothed; most learning runs stay below 1.7, some reach 9 and 19


Symptoms = dict[str, str | None]  # everything that was checked, in words where it is there
TERM_ALARMS = ("uniform_assignment", "same_assignment", "views_disagree")


@dataclass
class _State:
    """What a resumed run goes on from."""

    since: dict[str, int] = field(default_factory=dict)  # step at which a symptom there now began
    raised: list[str] = field(default_factory=list)  # alarms whose symptom is still there
    read: int | None = None  # step whose terms were read last
    probed: int | None = None  # step of the last probe
    fingerprint: int | None = None  # of the encoder's weights then
    first_weights: float | None = None  # their sum at the first probe
    early: dict[str, list[float]] = field(default_factory=dict)  # first sizes of total, grad norm
    growth: dict[str, float] = field(default_factory=dict)  # log of times as large, smoothed
    difference: float | None = None  # of two views: consistency / mutual information, smoothed
    most_difference: float = 0.0  # the highest so far


@dataclass(eq=False)
class AlarmMonitor:
    """Watches a run for collapse; also reports ``effective_rank_u``, ``codes_used``, ``mutual_information_bits``.

    The alarms, each with its symptom:

        uniform_assignment   entropy so near to log C that less than 3 % of what the batch could carry is possible
        same_assignment      mutual information below 3 % of what the batch could carry; with forward matching, whose
                             terms do not contain it: loss within 1 % of (1 + beta) log C
        views_disagree       two views of an image differ as much as when the run began, and by more than the mutual
                             information: consistency / MI, smoothed, is above 1 and within 10 % of its highest.
                             It is about 2 for unrelated views, for KL(p_i || p_k) of two images is about twice
                             KL(p_i || m), whose mean is MI
        stuck_loss           a loss term within 1 % of the value at which the method learns nothing, such as log C
        few_directions       99 % of the variance of u in at most 5 % of the directions there could be
        few_codes            at most 5 % of the codes that the rows could use
        frozen_encoder       no weight of the encoder differs from what it was at the last probe
        no_progress          the sum of the encoder's weights is within 1e-4 of their norm of where it was at the first
                             probe. Moved at random, weights change their sum by about what they move in norm. The
                             loss does not show it: that of a slow start is flat too, and DINO's drifts with its center
        diverging            total or gradient norm is 30 times what it was at first: the smoothed logarithm of its size
                             over the median of the first 5 values. One outlier does not move it much

    Only the first of the first three that applies is raised. They need the terms of a FALCON loss; other methods state
    themselves at which values they are stuck.

    Of several places a view, and where target views share a marginal, mutual information is that between codes and
    places or views. A network that reads off these alone carries some; its views then differ by more, for the mean of
    KL(p_a || p_b) over its places exceeds that of KL(p_a || m), and views_disagree is what is raised.

    Args:
        dictionary: Codes that embeddings are assigned to; None for methods without codes.
        logit_scale: L; None for a method that is not FALCON, whose loss terms mean something else.
        beta: Weight of the invariance.
        prior_matching: Of the loss.
        uniform_prior: Whether the prior is uniform; mutual information is known only then.
        unbiased: Whether the divergence is an estimate, `FalconLoss.is_estimate`: mutual information is estimated for
            the symptoms and not reported, because it may exceed what the batch can carry.
        marginal_momentum: Of a running marginal; the terms do not give mutual information then, and a batch whose
            samples have one assignment shows as ``few_codes``.
        batch_size: N of the global batch.
        stuck_values: Where loss terms stay when nothing is learned, see `falcon_ssl.methods.Method.stuck_values`.
        few_codes_hint: What to ask when few codes are used, see `falcon_ssl.methods.Method`.
        on_collapse: "warn", or "stop" to end the run at the first alarm.
        patience: Steps that a symptom lasts before an alarm is raised.
        every: Steps between two probes of the embeddings.

    Raises:
        InputError: An option out of range.

    Distributed:
        All ranks probe the same rows and so come to the same answer.

    Memory:
        O(256 F) for a probe; never an N x C matrix.
    """

    dictionary: Dictionary | None = None
    _: KW_ONLY
    logit_scale: float | None = None
    beta: float = 1.0
    prior_matching: PriorMatching = "reverse"
    uniform_prior: bool = True
    unbiased: bool = False
    marginal_momentum: float = 0.0
    batch_size: int = 2
    stuck_values: Sequence[StuckValue] = ()
    few_codes_hint: str = "is beta too large?"
    on_collapse: Literal["warn", "stop"] = "warn"
    patience: int = PATIENCE
    every: int = EVERY
    _state: _State = field(default_factory=_State, init=False)

    def __post_init__(self) -> None:
        check_choice("on_collapse", self.on_collapse, ("warn", "stop"))
        check_at_least("patience", self.patience, 0, fix="200 steps are usual")
        check_at_least("every", self.every, 1, fix="10 steps are usual")
        check_at_least("batch_size", self.batch_size, 2, fix="pass the global batch size")
        self._optimum: Optimum | None = None
        if self.dictionary is not None and self.logit_scale is not None:
            self._optimum = Optimum(
                self.dictionary.num_codes,
                self.logit_scale,
                self.beta,
                self.prior_matching,
                marginal_momentum=self.marginal_momentum,
            )

    def __call__(self, moment: Moment) -> Observation:
        """Metrics of this step, and the alarms that begin with it."""
        metrics: dict[str, float] = {}
        symptoms: Symptoms = {}
        steps = 5 if self._state.read is None else moment.step - self._state.read
        self._state.read = moment.step
        newest = 1 - (1 - SMOOTHING) ** (steps / 5)
        if self._optimum is not None:
            metrics, symptoms = self._read(moment.terms, self._optimum, newest)
        if self.stuck_values:
            symptoms["stuck_loss"] = self._stuck(moment.terms)
        symptoms["diverging"] = self._grown(moment.terms, newest)
        if self._state.probed is None or moment.step - self._state.probed >= self.every:
            self._state.probed = moment.step
            found, more = _probe(moment.u_NF, self.dictionary, self.few_codes_hint)
            metrics |= found
            symptoms |= more | self._compare_weights(moment.method.get_submodule("encoder"))
        alarms = self._raise(moment.step, symptoms)
        return Observation(
            metrics=metrics, alarms=alarms, stop=self.on_collapse == "stop" and bool(alarms)
        )

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers and names: a resumed run raises the alarms that it would have raised."""
        return asdict(self._state)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from ``state_dict``."""
        self._state = _State(**deepcopy(dict(state)))

    def _read(
        self, terms: Mapping[str, float], optimum: Optimum, newest: float
    ) -> tuple[dict[str, float], Symptoms]:
        """What the loss terms show; in nats unless the name says bits. ``newest``: weight in what is smoothed."""
        log_codes = optimum.log_num_codes
        max_bits = math.log2(min(self.batch_size, optimum.num_codes))
        nats = optimum.mutual_information(terms) if self.uniform_prior else None
        bits = None if nats is None else max(0.0, nats) / LN2
        as_different = bits is not None and self._is_as_different_as_ever(terms, bits * LN2, newest)
        loss, collapsed_loss = terms["total"], (1 + optimum.beta) * log_codes
        symptoms: Symptoms = dict.fromkeys(TERM_ALARMS)
        # Mutual information is log C - D - entropy, so this is the most that these assignments could carry.
        if log_codes - terms["entropy"] <= FAINT * max_bits * LN2:
            symptoms["uniform_assignment"] = (
                f"invariance term at log C = {log_codes:.3g}: the assignment is uniform, is the temperature right?"
            )
        elif bits is not None and bits <= FAINT * max_bits:
            symptoms["same_assignment"] = (
                f"mutual information below 3 % of its most, loss {loss:.3g} (log C = {log_codes:.3g}): "
                "every sample gets the same assignment"
            )
        elif optimum.prior_matching == "forward" and (
            abs(loss - collapsed_loss) <= NEAR * collapsed_loss
        ):
            symptoms["same_assignment"] = (
                f"loss {loss:.3g} within 1 % of (1 + beta) log C: every sample gets the same assignment"
            )
        elif as_different:
            symptoms["views_disagree"] = (
                "two views of an image differ as much as at the start: is beta or the learning rate too small?"
            )
        metrics = {} if bits is None or self.unbiased else {"mutual_information_bits": bits}
        return metrics, symptoms

    def _is_as_different_as_ever(
        self, terms: Mapping[str, float], nats: float, newest: float
    ) -> bool:
        """Whether two views of an image are still as far apart as they were; ``nats`` of mutual information."""
        now = terms["consistency"] / max(nats, TINY)
        before = now if self._state.difference is None else self._state.difference
        self._state.difference = before + newest * (now - before)
        self._state.most_difference = max(self._state.most_difference, self._state.difference)
        return self._state.difference >= max(1.0, (1 - PROGRESS) * self._state.most_difference)

    def _stuck(self, terms: Mapping[str, float]) -> str | None:
        """Which term is where it stays when nothing is learned."""
        for term, value, words in self.stuck_values:
            if abs(terms[term] - value) <= NEAR * value:
                return f"{term} {terms[term]:.3g} within 1 % of {value:.3g}: {words}"
        return None

    def _grown(self, terms: Mapping[str, float], newest: float) -> str | None:
        """Whether total or gradient norm has exploded; relative to themselves, for losses have no common scale."""
        words = None
        for name, called in (("grad_norm", "gradient norm"), ("total", "loss")):
            size = abs(terms.get(name, math.nan))
            if not math.isfinite(size):  # not there, or a gradient that float16 has overflowed
                continue
            early = self._state.early.setdefault(name, [])
            if len(early) < EARLY:
                early.append(size)
                continue
            first = max(median(early), TINY)
            # A size that passes through zero means little: no less than a thousandth.
            grown, before = math.log(max(size / first, 1e-3)), self._state.growth.get(name, 0.0)
            self._state.growth[name] = before + newest * (grown - before)
            if self._state.growth[name] >= math.log(GROWN):
                words = (
                    f"{called} {size:.3g} where it was {first:.3g} at first: training diverges, "
                    "is the learning rate too large?"
                )
        return words

    @torch.no_grad()
    def _compare_weights(self, encoder: nn.Module) -> Symptoms:
        """Whether the encoder has moved; nothing about an encoder without weights."""
        parameters = list(encoder.parameters())
        if not parameters:
            return {}
        weights = [with_float64(local(parameter)) for parameter in parameters]
        # Their bits as integers: these have one sum in any order, whatever number of ranks adds them.
        bits = [weight.view(INTEGERS[weight.itemsize]).sum() for weight in weights]
        fingerprint = torch.stack(whole_sums(bits, parameters)).sum()
        sums = [weight.sum(dtype=torch.float64) for weight in weights]
        norms = [weight.norm().double() for weight in weights]
        total = torch.stack(whole_sums(sums, parameters)).sum()
        size = torch.stack(whole_norms(norms, parameters)).norm()
        # One read of the device: all as the integers of their bits.
        read = torch.stack([fingerprint, total.view(torch.int64), size.view(torch.int64)]).cpu()
        now, norm = read[1:].view(torch.float64).tolist()
        is_frozen = int(read[0]) == self._state.fingerprint
        self._state.fingerprint = int(read[0])
        if self._state.first_weights is None:
            self._state.first_weights = now
            return {}
        moved = abs(now - self._state.first_weights) / max(norm, TINY)
        frozen = "the weights of the encoder do not change: is it frozen?"
        still = (
            f"the weights of the encoder have moved by {moved:.1g} of their size since the first probe: "
            "nothing is learned, is the learning rate too small?"
        )
        return {
            "frozen_encoder": frozen if is_frozen else None,
            "no_progress": still if moved < MOVED and not is_frozen else None,
        }

    def _raise(self, step: int, symptoms: Symptoms) -> dict[str, str]:
        """Alarms of the symptoms that have lasted long enough and were not raised yet."""
        alarms = {}
        for name, words in symptoms.items():
            if words is None:
                self._state.since.pop(name, None)
                self._state.raised = [other for other in self._state.raised if other != name]
                continue
            steps = step - self._state.since.setdefault(name, step)
            if steps >= self.patience and name not in self._state.raised:
                self._state.raised.append(name)
                alarms[name] = f"for {steps} steps: {words}"
        return alarms


@torch.no_grad()
def _probe(
    u_NF: Tensor, dictionary: Dictionary | None, few_codes_hint: str
) -> tuple[dict[str, float], Symptoms]:
    """What some rows of the batch show."""
    u_RF = all_gather_rows(u_NF[: max(1, ROWS // world_size())].float())
    num_rows, width = u_RF.shape
    variance = _variances(u_RF)
    singular = variance.sqrt()
    metrics = {"effective_rank_u": effective_rank(singular / singular.sum().clamp(min=1e-300))}
    total = float(variance.sum())
    beyond = int((variance.cumsum(0) < 0.99 * total).sum())
    directions = beyond + 1 if total > 0 else 0  # of 99 % of the variance
    symptoms: Symptoms = {
        "few_directions": f"{directions} of {width} embedding directions carry 99 % of the variance"
        if _is_few(directions, min(width, num_rows - 1))
        else None
    }
    if dictionary is not None:
        codes = len(torch.unique(dictionary.nearest(u_RF)))
        metrics["codes_used"] = float(codes)
        symptoms["few_codes"] = (
            f"{codes} of {count_text(dictionary.num_codes)} codes used by {num_rows} images: {few_codes_hint}"
            if _is_few(codes, min(dictionary.num_codes, num_rows))
            else None
        )
    return metrics, symptoms


def _is_few(used: int, most: int) -> bool:
    return used <= max(1, FEW * most) < most


def _variances(u_RF: Tensor) -> Tensor:
    """Variance of the rows along their principal directions, descending, float64 [min(R, F)]; 0 for equal rows."""
    u_RF = with_float64(u_RF)
    centered_RF = u_RF.double() - u_RF.mean(dim=0, dtype=torch.float64)
    # The smaller of the two Gram matrices: their non-zero eigenvalues are the same.
    gram = centered_RF @ centered_RF.T if len(u_RF) < u_RF.shape[1] else centered_RF.T @ centered_RF
    squares = u_RF.double().square().sum()
    read = torch.cat([gram.flatten(), squares[None]]).cpu()  # one read of the device
    eigenvalues = torch.linalg.eigvalsh(read[:-1].view_as(gram)).flip(0).clamp(min=0)
    is_constant = float(eigenvalues.sum()) <= CONSTANT * float(read[-1])
    return torch.zeros_like(eigenvalues) if is_constant else eigenvalues
