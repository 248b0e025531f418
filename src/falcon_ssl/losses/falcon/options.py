"""Which options the FALCON loss takes: what is out of range, and what does not suit the dictionary."""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor

from falcon_ssl.core.checks import check_at_least, check_choice, check_fraction, check_positive
from falcon_ssl.core.errors import InputError
from falcon_ssl.core.theory import PRIOR_MATCHINGS, PriorMatching
from falcon_ssl.dictionary.base import Dictionary, check_streamed
from falcon_ssl.dictionary.complete import CompleteDictionary
from falcon_ssl.losses.falcon.backends import Backend, Compute, InputPrecision, choose_backend
from falcon_ssl.losses.falcon.terms import check_prior

Marginal = Literal["separate", "pooled"]


def check_options(
    dictionary: Dictionary,
    *,
    logit_scale: float,
    beta: float,
    prior_matching: PriorMatching | None,
    prior: Tensor | None,
    marginal: Marginal,
    backend: Backend,
    block_size: int | None,
    input_precision: InputPrecision,
    marginal_momentum: float,
) -> Compute | None:
    """What computes the loss; raise InputError for options that are out of range or do not suit the dictionary."""
    check_positive(
        "logit_scale", logit_scale, fix="compute it with logit_scale(num_codes, epsilon)"
    )
    check_at_least("beta", beta, 0)
    if prior_matching is not None:
        check_choice("prior_matching", prior_matching, PRIOR_MATCHINGS)
    check_choice("marginal", marginal, get_args(Marginal))
    check_fraction(
        "marginal_momentum",
        marginal_momentum,
        below_one=True,
        fix="use 0 to match every batch alone, 0.9 to average over about ten",
    )
    if not isinstance(dictionary, CompleteDictionary):
        if prior is not None:
            check_prior(prior, dictionary.num_codes)
        return choose_backend(
            backend,
            check_streamed(dictionary),
            block_size=block_size,
            input_precision=input_precision,
        )
    if dictionary.kernel_order is not None and prior_matching not in (None, "renyi2"):
        raise InputError(
            f"kernel_order does nothing with prior_matching={prior_matching!r}",
            received=f"kernel_order={dictionary.kernel_order}",
            expected="renyi2, or no kernel_order",
        )
    needs_codes = {
        "prior": prior is not None,
        "backend": backend != "auto",
        "block_size": block_size is not None,
        "input_precision": input_precision != "bf16x3",
        "marginal_momentum": marginal_momentum != 0,
    }
    for name, is_given in needs_codes.items():
        if is_given:
            raise InputError(
                f"the complete dictionary takes no {name}",
                received=f"a {name}",
                expected="its closed form: uniform prior, one back end, no blocks, no average",
                fix=f"leave {name} out, or use a finite dictionary",
            )
    return None
