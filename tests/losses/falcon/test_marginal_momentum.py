"""The running marginal: its arithmetic, its gradient, its checkpoint."""

import pytest
import torch

from falcon_ssl import FalconLoss, RademacherDictionary, falcon_loss
from support.problems import unit_rows, value_and_gradients
from support.tolerances import EXACT, relative_error

C, F = 50, 8
DICTIONARY = RademacherDictionary(C, F, seed=1)


def marginal(*views, scale=6.0):
    codes_CF = DICTIONARY.block(0, C, dtype=torch.float64)
    return torch.cat([(scale / F**0.5 * u @ codes_CF.T).softmax(1) for u in views]).mean(0)


def test_average_of_batches_is_bias_corrected():
    """After batches m1, m2, m3 the prior is matched by their weighted mean, whose weights sum to one."""
    running = torch.zeros(C, dtype=torch.float64)
    batches = [unit_rows(4, F, seed=seed)[0] for seed in range(3)]
    for u in batches:
        terms = falcon_loss(
            (u, u), DICTIONARY, logit_scale=6.0, running_marginal=running, marginal_momentum=0.8
        )
    weights = torch.tensor([0.8**2, 0.8, 1.0], dtype=torch.float64)
    m = (weights[:, None] * torch.stack([marginal(u) for u in batches])).sum(0) / weights.sum()
    assert float(terms.prior_matching) == pytest.approx(float((m * (m * C).log()).sum()), rel=1e-12)
    assert torch.allclose(running, 0.2 * weights.sum() * m, rtol=1e-12)


@pytest.mark.parametrize("prior_matching", ["forward", "reverse", "renyi2"])
@pytest.mark.parametrize("scale", [6.0, 400.0])
def test_gradient_flows_through_the_current_batch_only(prior_matching, scale):
    u1, u2 = unit_rows(4, F)
    history = torch.rand(C, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    history = 0.9 * history / history.sum()
    options = {"logit_scale": scale, "prior_matching": prior_matching, "marginal_momentum": 0.7}
    results = [
        value_and_gradients(
            u1, u2, DICTIONARY, running_marginal=history.clone(), backend=backend, **options
        )
        for backend in ("reference", "dense", "chunked")
    ]
    for terms, gradients in results[1:]:
        assert relative_error(terms.total, results[0][0].total) < EXACT
        assert relative_error(gradients, results[0][1]) < 10 * EXACT
    plain = value_and_gradients(
        u1, u2, DICTIONARY, logit_scale=scale, prior_matching=prior_matching
    )
    assert relative_error(results[0][1], plain[1]) > 1e-6  # the control: history matters


def test_first_batch_stands_alone():
    u1, u2 = unit_rows(4, F)
    first = FalconLoss(DICTIONARY, marginal_momentum=0.9)(u1, u2)
    alone = FalconLoss(DICTIONARY)(u1, u2)
    assert first.total == pytest.approx(float(alone.total), rel=1e-12)


def test_buffer_is_checkpointed_and_evaluation_leaves_it_alone():
    loss = FalconLoss(DICTIONARY, marginal_momentum=0.9)
    u1, u2 = unit_rows(4, F)
    loss(u1, u2)
    state = {name: value.clone() for name, value in loss.state_dict().items()}
    assert list(state) == ["running_marginal"]  # and nothing of the dictionary
    loss.eval()
    u3, u4 = unit_rows(4, F, seed=5)
    alone = FalconLoss(DICTIONARY)(u3, u4)
    assert loss(u3, u4).total == pytest.approx(float(alone.total), rel=1e-12)
    assert torch.equal(loss.running_marginal, state["running_marginal"])
    resumed = FalconLoss(DICTIONARY, marginal_momentum=0.9)
    resumed.load_state_dict(state)
    assert torch.equal(resumed(u3, u4).total, loss.train()(u3, u4).total)


def test_off_by_default():
    loss = FalconLoss(DICTIONARY)
    assert loss.running_marginal is None
    assert not loss.state_dict()
