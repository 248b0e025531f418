"""The projector and its batch normalization, in one process."""

import math

import pytest
import torch
from torch import nn

from falcon_ssl import CompleteDictionary, FalconLoss, FalconProjector, InputError
from falcon_ssl.networks.batchnorm import GlobalBatchNorm, use_global_batch_norm


def batch(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_rows_are_unit_and_features_centered():
    projector = FalconProjector(16, 8)
    u_NF = projector(batch(64, 16))
    assert u_NF.shape == (64, 8)
    assert torch.allclose(u_NF.norm(dim=1), torch.ones(64), atol=1e-6)
    assert not projector.linear.weight.isnan().any()
    assert dict(projector.named_parameters()).keys() == {"linear.weight"}
    affine = FalconProjector(16, 8, affine=True)
    assert dict(affine.named_parameters()).keys() == {"linear.weight", "norm.weight", "norm.bias"}


def test_a_hidden_layer_stands_before_the_last_one():
    projector = FalconProjector(16, 8, hidden_dim=24).double()
    z_ND = batch(64, 16).double()
    y_NH = nn.functional.linear(z_ND, projector.hidden[0].weight)
    y_NH = nn.functional.gelu((y_NH - y_NH.mean(0)) / (y_NH.var(0, correction=0) + 1e-5).sqrt())
    y_NF = nn.functional.linear(y_NH, projector.linear.weight)
    y_NF = (y_NF - y_NF.mean(0)) / (y_NF.var(0, correction=0) + 1e-5).sqrt()
    assert torch.allclose(projector(z_ND), nn.functional.normalize(y_NF, dim=1), atol=1e-12)
    assert projector.linear.weight.shape == (8, 24)
    assert {name for name, _ in projector.named_parameters()} == {
        "hidden.0.weight",
        "hidden.1.weight",
        "hidden.1.bias",
        "linear.weight",
    }


@pytest.mark.parametrize("affine", [False, True])
def test_features_share_the_variance_unless_scales_are_learned(affine):
    """Why there are no scales: three used features of eight still use all codes alike, and cost nothing."""
    projector = FalconProjector(8, 8, affine=affine).double()
    with torch.no_grad():
        projector.linear.weight.copy_(torch.eye(8))
        if affine:
            projector.norm.weight[3:] = 0
    signs_ND = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0]).double()] * 8)
    u_NF = projector(signs_ND)
    terms = FalconLoss(CompleteDictionary(8), temperature=0.38)(u_NF, u_NF)
    assert terms.prior_matching.item() == pytest.approx(0, abs=1e-12)
    assert int((u_NF.var(0) > 1e-6).sum()) == (3 if affine else 8)


def test_tanh_rows_stay_within_the_unit_ball():
    projector = FalconProjector(16, 8, embedding_norm="tanh")
    z_ND = 10 * batch(64, 16)
    u_NF = projector(z_ND)
    y_NF = nn.functional.batch_norm(projector.linear(z_ND), None, None, training=True)
    assert torch.allclose(u_NF, y_NF.tanh() / math.sqrt(8), atol=1e-6)
    assert (u_NF.norm(dim=1) <= 1).all()
    assert u_NF.norm(dim=1).std() > 0.01  # the control: not normalized


def test_evaluation_takes_a_single_sample_and_training_does_not():
    projector = FalconProjector(16, 8)
    with pytest.raises(InputError, match=r"cannot train on a single sample.*N >= 2.*eval"):
        projector(batch(1, 16))
    projector(batch(64, 16))
    projector.eval()
    together, alone = projector(batch(5, 16)), projector(batch(5, 16)[:1])
    assert torch.allclose(together[:1], alone, atol=1e-6)


def test_autocast_decides_the_dtype():
    with torch.autocast("cpu", torch.bfloat16):
        assert FalconProjector(16, 8)(batch(4, 16)).dtype == torch.bfloat16
    assert FalconProjector(16, 8).double()(batch(4, 16).double()).dtype == torch.float64


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"in_dim": 0, "embed_dim": 4}, "in_dim is too small"),
        ({"in_dim": 4, "embed_dim": 0}, "embed_dim is too small"),
        ({"in_dim": 4, "embed_dim": 4, "hidden_dim": -1}, "hidden_dim is too small"),
        (
            {"in_dim": 4, "embed_dim": 4, "embedding_norm": "none"},
            "unknown embedding_norm.*one of l2, tanh",
        ),
    ],
)
def test_bad_construction(arguments, message):
    with pytest.raises(InputError, match=message):
        FalconProjector(**arguments)


@pytest.mark.parametrize(
    ("z", "message"),
    [
        (
            torch.zeros(4, 15),
            "representation has the wrong width: received 15 columns, expected 16",
        ),
        (torch.zeros(4, 16, 1), "representation has the wrong number of dimensions"),
        (torch.zeros(4, 16).int(), "representation is not floating point"),
        (torch.zeros(0, 16), "representation is empty"),
    ],
)
def test_bad_representations(z, message):
    with pytest.raises(InputError, match=message):
        FalconProjector(16, 8)(z)


@pytest.mark.parametrize("shape", [(10, 4), (6, 4, 5), (3, 4, 5, 6)])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("momentum", [0.1, None])
def test_global_batch_norm_is_torchs_in_one_process(shape, affine, momentum):
    theirs_class = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d}[len(shape)]
    theirs = theirs_class(4, affine=affine, momentum=momentum)
    ours = GlobalBatchNorm(4, affine=affine, momentum=momentum)
    for seed in range(3):
        x = batch(*shape, seed=seed)
        assert torch.equal(ours(x), theirs(x))
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    for name, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value)
    assert torch.equal(ours.eval()(x), theirs.eval()(x))


def test_what_ranks_compute_is_torchs_too():
    """The formula that runs over ranks, run in one process."""
    ours, theirs = GlobalBatchNorm(4).double(), nn.BatchNorm2d(4).double()
    x1, x2 = (batch(3, 4, 5, 6).double().requires_grad_() for _ in range(2))
    y1, y2 = ours._forward_over_ranks(x1), theirs(x2)
    assert torch.allclose(y1, y2, atol=1e-12)
    weight = batch(3, 4, 5, 6, seed=1).double()
    (y1 * weight).sum().backward()
    (y2 * weight).sum().backward()
    assert torch.allclose(x1.grad, x2.grad, atol=1e-12)
    assert torch.allclose(ours.weight.grad, theirs.weight.grad, atol=1e-12)
    for name, value in theirs.state_dict().items():
        assert torch.allclose(ours.state_dict()[name].double(), value.double(), atol=1e-12)


def test_conversion_keeps_parameters_buffers_and_outputs():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Sequential(nn.ReLU(), nn.BatchNorm2d(4))
    )
    model[1].eval()
    x = batch(5, 3, 8, 8)
    model(x)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    parameters = [id(parameter) for parameter in model.parameters()]
    truth = model.eval()(x)
    converted = use_global_batch_norm(model)
    assert converted is model
    assert sum(isinstance(module, GlobalBatchNorm) for module in model.modules()) == 2
    assert [
        id(parameter) for parameter in model.parameters()
    ] == parameters  # an optimizer goes on with them
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
    assert torch.equal(model(x), truth)
    assert isinstance(use_global_batch_norm(nn.BatchNorm1d(4)), GlobalBatchNorm)


def test_batch_norm_refuses_a_wrong_width():
    with pytest.raises(InputError, match=r"wrong shape: received \(5, 3\), expected \[N, 4, ...\]"):
        GlobalBatchNorm(4)(batch(5, 3))
