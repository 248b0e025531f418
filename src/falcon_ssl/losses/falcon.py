"""The door to the FALCON loss: checks what comes in, chooses a back end, says which one runs.

    loss = beta * I + D        invariance plus prior matching, FALCON.md section 3 (arXiv 2410.04959, eq. 1)

With reverse matching, a uniform prior and beta = 1 it reads log C - MI(sample; code) + consistency: the batch carries
MI / log 2 of at most log2 min(N, C) bits of code.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from falcon_ssl.checks import (
    InputError,
    check_at_least,
    check_choice,
    check_matrix,
    check_same_shape,
)
from falcon_ssl.dictionary import Dictionary
from falcon_ssl.losses.falcon_dense import falcon_loss_dense
from falcon_ssl.losses.falcon_reference import falcon_loss_reference
from falcon_ssl.losses.terms import LossTerms, PriorMatching, check_prior
from falcon_ssl.temperature import logit_scale as logit_scale_of
from falcon_ssl.temperature import logit_scale_from_temperature

Backend = Literal["auto", "reference", "dense"]
BACKENDS = {"reference": falcon_loss_reference, "dense": falcon_loss_dense}


def falcon_loss(
    u1: Tensor,
    u2: Tensor,
    dictionary: Dictionary,
    *,
    logit_scale: float,
    beta: float = 1.0,
    prior_matching: PriorMatching = "reverse",
    prior: Tensor | None = None,
    symmetric: bool = True,
    backend: Backend = "auto",
) -> LossTerms:
    """FALCON loss of two views: agree across views, use all codes as the prior says.

    Args:
        u1: [N, F] unit rows, embeddings of the first view (this rank's rows).
        u2: [N, F] unit rows, embeddings of the second view, row by row the same samples.
        dictionary: C codes of width F.
        logit_scale: L > 0, see `falcon_ssl.logit_scale`.
        beta: Weight of the invariance, >= 0.
        prior_matching: "reverse" KL(m || q) or "forward" -sum q log m.
        prior: q [C], positive, sums to 1; None is uniform.
        symmetric: Average both orders of the views; False is the paper's one-directional formula.
        backend: "reference", "dense", or "auto" to choose by size.

    Returns:
        LossTerms of 0-dim tensors in nats; only ``total`` carries a gradient.

    Raises:
        InputError: Shapes that do not fit, embeddings that are not floating point or empty, L <= 0, beta < 0, a prior
            that is not a distribution over the codes, an unknown option.

    Distributed:
        1/N and the marginal run over the rows of all ranks, with gradient; ranks may hold different numbers of rows.

    Numerics:
        Half precision is computed in float32, float64 in float64. log p as s - logsumexp(s), never log(softmax).

    Example:
        >>> import falcon_ssl, torch
        >>> dictionary = falcon_ssl.RademacherDictionary(1024, 64, seed=0)
        >>> u1, u2 = torch.nn.functional.normalize(torch.randn(2, 32, 64), dim=2)
        >>> L = falcon_ssl.logit_scale(1024, 1e-8)
        >>> terms = falcon_ssl.falcon_loss(u1, u2, dictionary, logit_scale=L)
        >>> bool(terms.total > 0)
        True
    """
    check_matrix("u1", u1, columns=dictionary.width)
    check_matrix("u2", u2, columns=dictionary.width)
    check_same_shape("u1", u1, "u2", u2)
    if not logit_scale > 0:
        raise InputError(
            "logit_scale is not positive",
            received=logit_scale,
            expected="> 0",
            fix="compute it with logit_scale(num_codes, epsilon)",
        )
    check_at_least("beta", beta, 0, fix="use a non-negative weight")
    check_choice("prior_matching", prior_matching, ("forward", "reverse"))
    check_choice("backend", backend, ("auto", *BACKENDS))
    dtype = torch.float64 if u1.dtype == torch.float64 else torch.float32
    if prior is None:
        log_prior_C = torch.full(
            (dictionary.num_codes,), -math.log(dictionary.num_codes), dtype=dtype, device=u1.device
        )
    else:
        check_prior(prior, dictionary.num_codes)
        log_prior_C = prior.detach().double().log().to(device=u1.device, dtype=dtype)
    compute = BACKENDS["dense" if backend == "auto" else backend]
    with torch.autocast(u1.device.type, enabled=False):
        return compute(
            u1.to(dtype),
            u2.to(dtype),
            dictionary,
            logit_scale=logit_scale,
            beta=beta,
            prior_matching=prior_matching,
            log_prior_C=log_prior_C,
            symmetric=symmetric,
        )


class FalconLoss(nn.Module):
    """`falcon_loss` with its options fixed, to drop into a training loop.

    Args:
        dictionary: C codes of width F.
        epsilon: Probability of every code but the aligned one, in (0, 1/C); default 1e-8, the paper's.
        temperature: Effective temperature F / L^2, instead of epsilon.
        beta: Weight of the invariance.
        prior_matching: "reverse" or "forward".
        prior: q [C]; None is uniform.
        symmetric: Average both orders of the views.
        backend: Which implementation computes it.

    Raises:
        InputError: Both epsilon and temperature, or what `falcon_loss` and `falcon_ssl.logit_scale` refuse.

    Example:
        >>> import falcon_ssl, torch
        >>> loss = falcon_ssl.FalconLoss(falcon_ssl.RademacherDictionary(1024, 64))
        >>> u1, u2 = torch.nn.functional.normalize(torch.randn(2, 32, 64, requires_grad=True), dim=2)
        >>> loss(u1, u2).total.backward()
    """

    prior: Tensor | None

    def __init__(
        self,
        dictionary: Dictionary,
        *,
        epsilon: float | None = None,
        temperature: float | None = None,
        beta: float = 1.0,
        prior_matching: PriorMatching = "reverse",
        prior: Tensor | None = None,
        symmetric: bool = True,
        backend: Backend = "auto",
    ) -> None:
        super().__init__()
        if prior is not None:
            check_prior(prior, dictionary.num_codes)
        self.dictionary = dictionary
        self.logit_scale = choose_logit_scale(dictionary, epsilon=epsilon, temperature=temperature)
        self.beta = beta
        self.prior_matching = prior_matching
        self.symmetric = symmetric
        self.backend = backend
        self.register_buffer("prior", prior, persistent=False)

    def forward(self, u1: Tensor, u2: Tensor) -> LossTerms:
        """Loss terms of embeddings u1, u2 [N, F]."""
        return falcon_loss(
            u1,
            u2,
            self.dictionary,
            logit_scale=self.logit_scale,
            beta=self.beta,
            prior_matching=self.prior_matching,
            prior=self.prior,
            symmetric=self.symmetric,
            backend=self.backend,
        )

    def extra_repr(self) -> str:
        """One line for print(model)."""
        return f"{self.dictionary}, logit_scale={self.logit_scale:.4g}, beta={self.beta}"


def choose_logit_scale(
    dictionary: Dictionary, *, epsilon: float | None, temperature: float | None
) -> float:
    """L from epsilon or from temperature, exactly one of the two; the paper's epsilon = 1e-8 when neither is given.

    Raises:
        InputError: Both are given, or the one given is out of range.
    """
    if epsilon is not None and temperature is not None:
        raise InputError(
            "epsilon and temperature state the same thing",
            received=f"epsilon={epsilon} and temperature={temperature}",
            expected="one of the two",
            fix="leave one out",
        )
    if temperature is not None:
        return logit_scale_from_temperature(dictionary.width, temperature)
    return logit_scale_of(dictionary.num_codes, 1e-8 if epsilon is None else epsilon)
