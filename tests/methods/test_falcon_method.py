"""The method as a module: any encoder goes in, every option reaches the loss."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from falcon_ssl import logit_scale
from falcon_ssl.config import EncoderConfig, FalconConfig, RunConfig
from falcon_ssl.methods import Falcon, Parts, build_method

CONFIG = RunConfig(
    encoder=EncoderConfig("digits_cnn"), falcon=FalconConfig(num_codes=64, embed_dim=16)
)


def views(num: int = 8) -> list[torch.Tensor]:
    return list(torch.randn(2, num, 1, 8, 8, generator=torch.Generator().manual_seed(0)))


def test_any_module_is_an_encoder_and_gradients_reach_it() -> None:
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 24))
    method = Falcon(Parts(encoder, 24, (1, 8, 8)), CONFIG.falcon)
    out = method(views())
    out.loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in method.parameters())
    assert not out.u_NF.requires_grad
    assert out.u_NF.shape == (8, 16)


def test_the_dictionary_is_neither_trained_nor_stored() -> None:
    method = build_method(CONFIG, image_shape=(1, 8, 8))
    assert sum(p.numel() for p in method.parameters()) < 200_000
    assert {name.split(".")[0] for name in method.state_dict()} == {"encoder", "projector"}


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        ({"beta": 0.5}, "total"),
        ({"prior_matching": "forward"}, "prior_matching"),
        ({"prior_exponent": 1.0}, "prior_matching"),
        ({"epsilon": 1e-4}, "entropy"),
        ({"temperature": 2.0}, "entropy"),
        ({"dictionary_seed": 5}, "total"),
        ({"num_targets": 1}, "total"),
        ({"embedding_norm": "tanh"}, "entropy"),
    ],
)
def test_every_option_reaches_the_loss(change: dict[str, object], differs: str) -> None:
    def terms(config: FalconConfig) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        return build_method(replace(CONFIG, falcon=config), image_shape=(1, 8, 8))(views()).terms

    assert terms(CONFIG.falcon)[differs] != terms(replace(CONFIG.falcon, **change))[differs]


def test_embed_is_what_the_loss_sees() -> None:
    method = build_method(CONFIG, image_shape=(1, 8, 8)).eval()
    z_ND, u_NF = method.embed(views()[0])
    assert z_ND.shape == (8, 256)
    assert torch.allclose(u_NF.norm(dim=1), torch.ones(8))
    assert method.logit_scale == logit_scale(64, 1e-8)


@pytest.mark.parametrize(("large", "small", "num_targets"), [(2, 2, 2), (4, 0, 4), (3, 1, 3)])
def test_large_views_are_targets_of_all_views(large: int, small: int, num_targets: int) -> None:
    method = build_method(CONFIG, image_shape=(1, 8, 8))
    drawn = [torch.randn(6, 1, 8, 8) for _ in range(large)]
    drawn += [torch.randn(6, 1, 8, 8)[..., 1:7, 1:7] for _ in range(small)]
    method.encoder = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(16, 256))
    out = method(drawn)
    u_VNF = [method.embed(view)[1] for view in drawn]
    assert out.u_NF.shape == (6, 16)
    # Batch statistics of the projector are those of all views together.
    joint = method.projector(torch.cat([method.encoder(view) for view in drawn])).chunk(len(drawn))
    expected = method.loss(*joint, num_targets=num_targets).total
    torch.testing.assert_close(out.loss, expected)
    assert not torch.allclose(out.loss, method.loss(*u_VNF, num_targets=1).total)
