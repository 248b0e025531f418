"""First links of the chain of trust: float64 loops -> reference -> numerical derivatives."""

import pytest
import torch
from torch.autograd import gradcheck

from falcon_ssl import RademacherDictionary, falcon_loss
from support.problems import loss_by_loops, random_prior, unit_rows

PRIORS = ("forward", "reverse", "renyi2")


@pytest.mark.parametrize("prior_matching", PRIORS)
@pytest.mark.parametrize("scale", [3.0, 18.42])
@pytest.mark.parametrize("num_targets", [1, 2])
def test_reference_equals_loops(prior_matching, scale, num_targets):
    dictionary = RademacherDictionary(13, 6, seed=1)
    u1, u2 = unit_rows(4, 6)
    q = random_prior(13)
    terms = falcon_loss(
        (u1, u2),
        dictionary,
        logit_scale=scale,
        beta=0.7,
        prior_matching=prior_matching,
        prior=q,
        num_targets=num_targets,
        backend="reference",
    )
    codes = dictionary.block(0, 13, dtype=torch.float64).numpy()
    options = {"L": scale, "beta": 0.7, "prior_matching": prior_matching}
    loops = loss_by_loops(u1.numpy(), u2.numpy(), codes, q.numpy(), **options)
    if num_targets == 2:
        swapped = loss_by_loops(u2.numpy(), u1.numpy(), codes, q.numpy(), **options)
        loops = {name: (loops[name] + swapped[name]) / 2 for name in loops}
    assert terms.as_floats() == pytest.approx(loops, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("prior_matching", PRIORS)
@pytest.mark.parametrize("num_targets", [1, 2])
def test_reference_gradient_is_the_numerical_one(prior_matching, num_targets):
    dictionary = RademacherDictionary(9, 5, seed=2)
    u1, u2 = (u.requires_grad_() for u in unit_rows(3, 5))
    q = random_prior(9)

    def total(u1, u2):
        return falcon_loss(
            (u1, u2),
            dictionary,
            logit_scale=4.0,
            beta=0.7,
            prior_matching=prior_matching,
            prior=q,
            num_targets=num_targets,
            backend="reference",
        ).total

    assert gradcheck(total, (u1, u2), rtol=1e-6, atol=1e-8)


def test_terms_but_total_carry_no_gradient():
    u1, u2 = (u.requires_grad_() for u in unit_rows(3, 5))
    for backend in ("reference", "dense", "chunked"):
        terms = falcon_loss((u1, u2), RademacherDictionary(9, 5), logit_scale=4.0, backend=backend)
        assert [term.requires_grad for term in terms] == [True, False, False, False, False]
        assert all(term.dim() == 0 for term in terms)
