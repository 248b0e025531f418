"""The FALCON loss as it is called: options are checked, a back end is chosen, the terms come out.

    loss = beta * I + D        invariance plus prior matching, FALCON.md section 3 (arXiv 2410.04959, eq. 1)

With reverse matching, a uniform prior and beta = 1 it reads log C - MI(sample; code) + consistency: the batch carries
MI / log 2 of at most log2 min(N, C) bits of code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn

from falcon_ssl.core.checks import check_entries, check_matrix, check_same_shape
from falcon_ssl.core.distributed import agreed_global_count
from falcon_ssl.core.errors import InputError
from falcon_ssl.core.numerics import with_float64
from falcon_ssl.core.theory import PriorMatching, choose_logit_scale, effective_temperature
from falcon_ssl.dictionary.base import Dictionary, StreamedDictionary, check_streamed
from falcon_ssl.dictionary.complete import CompleteDictionary
from falcon_ssl.losses.falcon.backends import Backend, Compute, InputPrecision
from falcon_ssl.losses.falcon.complete import falcon_loss_complete
from falcon_ssl.losses.falcon.objective import Objective
from falcon_ssl.losses.falcon.options import LossOptions, Marginal
from falcon_ssl.losses.falcon.terms import LossTerms
from falcon_ssl.losses.rows import check_norms, check_targets, check_views


def falcon_loss(
    views: Sequence[Tensor],
    dictionary: Dictionary,
    *,
    logit_scale: float,
    num_targets: int | None = None,
    beta: float = 1.0,
    prior_matching: PriorMatching | None = None,
    prior: Tensor | None = None,
    marginal: Marginal = "separate",
    backend: Backend = "auto",
    block_size: int | None = None,
    input_precision: InputPrecision = "bf16x3",
    running_marginal: Tensor | None = None,
    marginal_momentum: float = 0.0,
) -> LossTerms:
    """FALCON loss of V views: agree across views, use all codes as the prior says.

        loss = beta * mean over (o, v) CE(p_o, p_v) + mean over o D(m_o, q),      o a target, v any other view

    All ordered pairs at a cost linear in V, because a cross-entropy is linear in its target and in log p. A view may
    have S places; each meets all places of the other views, none of its own, and every pair of places weighs the same.

    Args:
        views: V >= 2 tensors [N, F] or [N, S, F], rows no longer than 1 (this rank's); row i of each from the same
            sample.
        dictionary: C codes of width F.
        logit_scale: L > 0, see `falcon_ssl.logit_scale`.
        num_targets: K; the first K views are targets, the large crops in multi-crop. None: all. 1 of two views is the
            paper's one-directional formula.
        beta: Weight of the invariance, >= 0.
        prior_matching: "reverse" KL(m || q), "forward" -sum q log m, or "renyi2" log sum m^2 / q. None is the
            dictionary's own: "reverse", and "renyi2" for the complete one, where it is exact and "reverse" sampled.
        prior: q [C], positive, sums to 1; None is uniform.
        marginal: "separate": m_o of each target view, the mean over its N S rows, and the mean of the divergences;
            "pooled": one marginal of all target views. "renyi2" of the complete dictionary is then taken over pairs of
            rows of different samples alone, a U-statistic, which may be negative.
        backend: "reference", "dense", "chunked", "triton", or "auto" to choose by size and device.
        block_size: Codes per block of the chunked back end; None fits it to the cache.
        input_precision: How the triton back end multiplies float32: "bf16x3", three bfloat16 products on tensor cores,
            which with codes of +-1 lose nothing; "tf32", one of 11 significant bits; "ieee", without tensor cores.
        running_marginal: [C], zeros before the first batch. The prior is then matched by an average over batches, the
            gradient flows through the current one only, and this tensor is updated in place.
        marginal_momentum: Momentum of that average, in [0, 1).

    Returns:
        LossTerms of 0-dim tensors in nats; only ``total`` carries a gradient.

    Raises:
        InputError: Fewer than two views, targets outside 1..V, shapes that do not fit, other numbers of places,
            embeddings that are not floating point or empty, L <= 0, beta < 0, a prior that is not a distribution over
            the codes, an unknown option, a back end that is not available here or does not do what is asked, a running
            marginal without momentum or the reverse, ranks that disagree.

    Distributed:
        1/N and the marginal run over the rows of all ranks, with gradient; ranks may hold different numbers of rows.
        Accumulating gradients over micro-batches is not the same: each matches the prior by its own marginal, whose
        divergence is larger the fewer rows it has; a running marginal brings the two closer.

    Numerics:
        Statistics in float32, float64 for float64. log p as s - logsumexp(s), never log(softmax). For half precision
        the chunked and triton back ends multiply matrices in that precision, the others in float32. These two return
        NaN for rows so much longer than 1 that exp(L |u|) overflows; nothing is read from the device to find out.

    Example:
        >>> import falcon_ssl, torch
        >>> dictionary = falcon_ssl.RademacherDictionary(1024, 64, seed=0)
        >>> views = torch.nn.functional.normalize(torch.randn(8, 32, 64), dim=2)
        >>> L = falcon_ssl.logit_scale(1024, 1e-8)
        >>> terms = falcon_ssl.falcon_loss(views, dictionary, logit_scale=L, num_targets=2)
        >>> bool(terms.total > 0)
        True
    """
    options = LossOptions(
        logit_scale=logit_scale,
        beta=beta,
        prior_matching=prior_matching,
        prior=prior,
        marginal=marginal,
        backend=backend,
        block_size=block_size,
        input_precision=input_precision,
        marginal_momentum=marginal_momentum,
    )
    compute = options.compute(dictionary)
    if (running_marginal is None) != (marginal_momentum == 0):
        raise InputError(
            "a running marginal and its momentum go together",
            received=f"running_marginal={'None' if running_marginal is None else 'given'}, "
            f"marginal_momentum={marginal_momentum}",
            expected="both or neither",
            fix="pass zeros of num_codes as running_marginal, or leave both out",
        )
    if running_marginal is not None:
        check_entries(
            "running_marginal",
            running_marginal,
            dictionary.num_codes,
            each="code",
            fix="start from torch.zeros(num_codes)",
        )
    return _loss(
        views,
        dictionary,
        compute,
        options,
        num_targets=num_targets,
        running_marginal=running_marginal,
    )


class FalconLoss(nn.Module):
    """`falcon_loss` with its options fixed, to drop into a training loop.

    Args:
        dictionary: C codes of width F.
        epsilon: Probability of every code but the aligned one, in (0, 1/C); the paper's is 1e-8.
        temperature: Effective temperature F / L^2, instead of epsilon, alike at any width; 0.25 when neither is given.
        beta: Weight of the invariance.
        prior_matching: "reverse", "forward", "renyi2", or None to let the dictionary decide, see `falcon_loss`.
        prior: q [C]; None is uniform.
        marginal: "separate" or "pooled", see `falcon_loss`.
        backend: Which implementation computes it.
        block_size: Codes per block of the chunked back end.
        input_precision: How the triton back end multiplies float32, see `falcon_loss`.
        marginal_momentum: Momentum of a running average of the marginal, in [0, 1); 0 matches every batch alone. The
            average is a buffer, so a checkpoint holds it; evaluation neither uses nor changes it.

    Raises:
        InputError: Both epsilon and temperature, rows that are NaN or longer than 1 at the first call, or what
            `falcon_loss` and `falcon_ssl.logit_scale` refuse.

    Example:
        >>> import falcon_ssl, torch
        >>> loss = falcon_ssl.FalconLoss(falcon_ssl.RademacherDictionary(1024, 64))
        >>> u1, u2 = torch.nn.functional.normalize(torch.randn(2, 32, 64, requires_grad=True), dim=2)
        >>> loss(u1, u2).total.backward()
    """

    prior: Tensor | None
    running_marginal: Tensor | None

    def __init__(
        self,
        dictionary: Dictionary,
        *,
        epsilon: float | None = None,
        temperature: float | None = None,
        beta: float = 1.0,
        prior_matching: PriorMatching | None = None,
        prior: Tensor | None = None,
        marginal: Marginal = "separate",
        backend: Backend = "auto",
        block_size: int | None = None,
        input_precision: InputPrecision = "bf16x3",
        marginal_momentum: float = 0.0,
    ) -> None:
        super().__init__()
        if not isinstance(dictionary, CompleteDictionary):
            check_streamed(dictionary)
        self.logit_scale = choose_logit_scale(
            dictionary.num_codes,
            dictionary.width,
            epsilon=epsilon,
            temperature=temperature,
        )
        self.dictionary = dictionary
        self.beta = beta
        self.prior_matching: PriorMatching = prior_matching or dictionary.default_prior_matching
        self.marginal: Marginal = marginal
        self.backend: Backend = backend
        self.block_size = block_size
        self.input_precision: InputPrecision = input_precision
        self.marginal_momentum = marginal_momentum
        self.register_buffer("prior", prior, persistent=False)
        self._compute = self._options().compute(dictionary)
        running = torch.zeros(dictionary.num_codes) if marginal_momentum > 0 else None
        self.register_buffer("running_marginal", running)
        self._norms_are_checked = False

    def _options(self) -> LossOptions:
        """As they are now: attributes may be set between steps."""
        return LossOptions(
            logit_scale=self.logit_scale,
            beta=self.beta,
            prior_matching=self.prior_matching,
            prior=self.prior,
            marginal=self.marginal,
            backend=self.backend,
            block_size=self.block_size,
            input_precision=self.input_precision,
            marginal_momentum=self.marginal_momentum,
        )

    @property
    def is_unbiased(self) -> bool:
        """Whether the divergence is a U-statistic: that over all codes, of all target views together."""
        complete = isinstance(self.dictionary, CompleteDictionary)
        return complete and self.prior_matching == "renyi2" and self.marginal == "pooled"

    @property
    def is_estimate(self) -> bool:
        """Whether the divergence is unbiased, or sampled, and not that of the batch's marginal."""
        return self.is_unbiased or self.draws(1) is not None

    def draws(self, num_rows: int) -> int | None:
        """Codes that a marginal of so many rows is sampled by, as `certify` asks for them; None where it is not."""
        if not isinstance(self.dictionary, CompleteDictionary) or self.prior_matching != "reverse":
            return None
        return num_rows * self.dictionary.samples_per_row

    def forward(self, *views: Tensor, num_targets: int | None = None) -> LossTerms:
        """Loss terms of V views [N, F] or [N, S, F], of which the first ``num_targets`` are targets; None: all.

        Shapes are checked at every call, the rows' norms at the first one alone, which waits for the device.
        """
        terms = _loss(
            views,
            self.dictionary,
            self._compute,
            self._options(),
            num_targets=num_targets,
            running_marginal=self.running_marginal if self.training else None,
        )
        if not self._norms_are_checked:
            check_norms(views)
            self._norms_are_checked = True
        return terms

    def extra_repr(self) -> str:
        """One line for print(model)."""
        return (
            f"{self.dictionary}, logit_scale={self.logit_scale:.4g} (temperature "
            f"{effective_temperature(self.dictionary.width, self.logit_scale):.3g}), beta={self.beta}"
        )


def _loss(
    views: Sequence[Tensor],
    dictionary: Dictionary,
    compute: Compute | None,
    options: LossOptions,
    *,
    num_targets: int | None,
    running_marginal: Tensor | None,
) -> LossTerms:
    """The loss of checked options; ``compute`` is None for the complete dictionary."""
    u_VNF, num_places, num_targets = _by_place(views, dictionary.width, num_targets)
    num_local, device = u_VNF.shape[1], u_VNF.device
    prior_matching = options.prior_matching or dictionary.default_prior_matching
    num_rows = agreed_global_count(
        num_local,
        lambda: (
            f"{dictionary}, codes {dictionary.checksum()}, {replace(options, prior_matching=prior_matching)}, "
            f"num_views={len(views)}, num_places={num_places}, num_targets={num_targets}, "
            f"averages={running_marginal is not None}"
        ),
        device,
    )
    if isinstance(dictionary, CompleteDictionary):
        with torch.autocast(device.type, enabled=False):
            return falcon_loss_complete(
                u_VNF,
                dictionary,
                logit_scale=options.logit_scale,
                beta=options.beta,
                prior_matching=prior_matching,
                num_targets=num_targets,
                num_places=num_places,
                pooled=options.marginal == "pooled",
                num_rows=num_rows,
            )
    assert compute is not None
    dtype = torch.float64 if u_VNF.dtype == torch.float64 else torch.float32
    momentum, log_history_C, log_weight = options.marginal_momentum, None, None
    if running_marginal is not None:
        # Bias-corrected: the weights of all batches so far, kept as the sum of the running marginal, sum to one.
        past = momentum * running_marginal.to(dtype)
        weight = past.sum() + (1 - momentum)
        log_history_C, log_weight = (past / weight).log(), ((1 - momentum) / weight).log()
    objective = Objective(
        logit_scale=options.logit_scale,
        beta=options.beta,
        prior_matching=prior_matching,
        num_views=len(u_VNF),
        num_targets=num_targets,
        num_places=num_places,
        pooled=options.marginal == "pooled",
        num_rows=num_rows,
        log_prior_C=_log_prior(options.prior, dictionary.num_codes, dtype, device),
        log_history_C=log_history_C,
        log_weight=log_weight,
    )
    with torch.autocast(device.type, enabled=False):
        terms, log_m_MC = compute(u_VNF, cast(StreamedDictionary, dictionary), objective)
    if running_marginal is not None:
        current = log_m_MC.exp().mean(dim=0).to(running_marginal.dtype)
        running_marginal.lerp_(current, 1 - momentum)
    return terms


def _by_place(
    views: Sequence[Tensor], width: int, num_targets: int | None
) -> tuple[Tensor, int, int]:
    """Checked views as [V, N, F], the places of a view one after the other; S; and K. V and K count places."""
    rows = [view.flatten(0, 1) if view.dim() == 3 else view for view in views]
    for number, (view, own) in enumerate(zip(views, rows, strict=True), start=1):
        check_matrix(f"u{number}", own, columns=width)
        check_same_shape("u1", views[0], f"u{number}", view)
    check_views([f"u{number}" for number in range(1, len(rows) + 1)], rows)
    num_targets = check_targets(len(rows), num_targets)
    u_VNF = torch.stack([*views])
    if u_VNF.dim() == 3:
        return u_VNF, 1, num_targets
    num_places = u_VNF.shape[2]
    return u_VNF.transpose(1, 2).flatten(0, 1), num_places, num_targets * num_places


def _log_prior(
    prior: Tensor | None, num_codes: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    if prior is None:
        return -torch.full((num_codes,), num_codes, dtype=dtype, device=device).log()
    return with_float64(prior.detach()).double().log().to(device=device, dtype=dtype)
