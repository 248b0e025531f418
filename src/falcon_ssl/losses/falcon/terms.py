"""What a loss returns, and the priors it may be given."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from falcon_ssl.core.checks import check_at_least, check_entries
from falcon_ssl.core.errors import InputError
from falcon_ssl.core.notebook import html_table
from falcon_ssl.core.theory import power_law


class LossTerms(NamedTuple):
    """The FALCON loss and what it is made of: 0-dim tensors, in nats, equal on every rank.

    Only ``total`` carries a gradient; the other terms are detached, whatever back end computed them. They mean the same
    for every dictionary: the complete one, for which log C = F log 2, subtracts nothing.

    Args:
        total: beta * invariance + prior_matching.
        invariance: I = -(1/N) sum_ij p_ij log p'_ij = entropy + consistency.
        prior_matching: Divergence between the marginal m and the prior q.
        entropy: mean_i H(p_i); 0 when every sample is sure of its code.
        consistency: mean_i KL(p_i || p'_i); 0 when both views get the same assignment.

    Example:
        >>> LossTerms(*torch.tensor([5.0, 1.0, 4.0, 0.75, 0.25])).as_floats()["entropy"]
        0.75
    """

    total: Tensor
    invariance: Tensor
    prior_matching: Tensor
    entropy: Tensor
    consistency: Tensor

    def backward(self) -> None:
        """``total.backward()``: ``criterion(u1, u2).backward()``, as a loss of one number is used."""
        torch.autograd.backward(self.total)

    def as_floats(self) -> dict[str, float]:
        """The terms as Python numbers, for logs; copies them from the device at once."""
        values = torch.stack([term.detach() for term in self]).tolist()
        return dict(zip(self._fields, values, strict=True))

    def _repr_html_(self) -> str:
        meanings = {
            "total": "beta · invariance + prior matching; has the gradient",
            "invariance": "entropy + consistency",
            "prior_matching": "how unevenly the codes are used",
            "entropy": "of one sample's assignment",
            "consistency": "how much the views of a sample disagree",
        }
        rows = [[name, f"{value:.4f}", meanings[name]] for name, value in self.as_floats().items()]
        return html_table(rows, head=["term", "nats", ""])


def power_law_prior(num_codes: int, exponent: float) -> Tensor:
    """q_j proportional to j^-exponent, j = 1 ... C: a few frequent codes and a long tail.

    Args:
        num_codes: C >= 1.
        exponent: 0 gives the uniform prior, 1 Zipf's law.

    Returns:
        q [C] float64, positive, sums to 1.

    Raises:
        InputError: C < 1 or a negative exponent.

    Example:
        >>> power_law_prior(3, 1.0)
        tensor([0.5455, 0.2727, 0.1818], dtype=torch.float64)
    """
    check_at_least("num_codes", num_codes, 1)
    check_at_least("exponent", exponent, 0)
    return torch.from_numpy(power_law(num_codes, exponent))


def check_prior(prior: Tensor, num_codes: int) -> None:
    """Raise InputError unless ``prior`` is [C], positive and sums to 1 (to 1e-4)."""
    fix = "pass a vector of num_codes probabilities"
    check_entries("prior", prior, num_codes, each="code", fix=fix)
    least = float(prior.min())
    if not least > 0:
        raise InputError(
            "prior has entries that are not positive",
            received=f"smallest entry {least}",
            expected="every entry > 0",
            fix="leave codes out of the dictionary instead of giving them no mass",
        )
    total = float(prior.double().sum())
    if abs(total - 1) > 1e-4:
        raise InputError(
            "prior does not sum to 1", received=total, expected=1, fix="divide it by its sum"
        )
