"""The options of the FALCON loss: what is out of range, and what does not suit the dictionary."""

from __future__ import annotations

from dataclasses import dataclass, field
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


@dataclass(frozen=True)
class LossOptions:
    """What stays the same from batch to batch, as `falcon_ssl.falcon_loss` takes it.

    Its text is what ranks compare: on all of them it must be the same.
    """

    logit_scale: float
    beta: float
    prior_matching: PriorMatching | None
    prior: Tensor | None = field(repr=False)  # its values may be on another device
    marginal: Marginal
    backend: Backend
    block_size: int | None
    input_precision: InputPrecision
    marginal_momentum: float

    def compute(self, dictionary: Dictionary) -> Compute | None:
        """What computes the loss of finite dictionaries; None for the complete one.

        Raises:
            InputError: Options that are out of range, or do not suit the dictionary.
        """
        check_positive(
            "logit_scale", self.logit_scale, fix="compute it with logit_scale(num_codes, epsilon)"
        )
        check_at_least("beta", self.beta, 0)
        if self.prior_matching is not None:
            check_choice("prior_matching", self.prior_matching, PRIOR_MATCHINGS)
        check_choice("marginal", self.marginal, get_args(Marginal))
        check_fraction(
            "marginal_momentum",
            self.marginal_momentum,
            below_one=True,
            fix="use 0 to match every batch alone, 0.9 to average over about ten",
        )
        if isinstance(dictionary, CompleteDictionary):
            self._check_complete(dictionary)
            return None
        if self.prior is not None:
            check_prior(self.prior, dictionary.num_codes)
        return choose_backend(
            self.backend,
            check_streamed(dictionary),
            block_size=self.block_size,
            input_precision=self.input_precision,
        )

    def _check_complete(self, dictionary: CompleteDictionary) -> None:
        """Raise InputError for what nothing but a list of codes can give."""
        if dictionary.kernel_order is not None and self.prior_matching not in (None, "renyi2"):
            raise InputError(
                f"kernel_order does nothing with prior_matching={self.prior_matching!r}",
                received=f"kernel_order={dictionary.kernel_order}",
                expected="renyi2, or no kernel_order",
            )
        needs_codes = {
            "prior": self.prior is not None,
            "backend": self.backend != "auto",
            "block_size": self.block_size is not None,
            "input_precision": self.input_precision != "bf16x3",
            "marginal_momentum": self.marginal_momentum != 0,
        }
        for name, is_given in needs_codes.items():
            if is_given:
                raise InputError(
                    f"the complete dictionary takes no {name}",
                    received=f"a {name}",
                    expected="its closed form: uniform prior, one back end, no blocks, no average",
                    fix=f"leave {name} out, or use a finite dictionary",
                )
