"""The method as a module: any encoder goes in, every option reaches the loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

from falcon_ssl import InputError
from falcon_ssl.config import EncoderConfig, FalconConfig, RunConfig, ViewsConfig, from_mapping
from falcon_ssl.core.theory import logit_scale_from_temperature
from falcon_ssl.methods import Falcon, Parts, build_method
from falcon_ssl.networks import build_encoder, fit_to_images, representation_width

CONFIG = RunConfig(
    encoder=EncoderConfig("digits_cnn"),
    falcon=FalconConfig(dictionary="rademacher", num_codes=64, embed_dim=16),
)


class Maps(nn.Module):
    """An encoder with a map of 2 x 2 places of 4 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, stride=3, padding=1)
        self.norm = nn.BatchNorm2d(4)

    def maps(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        x = self.norm(self.conv(images))
        return x, nn.functional.avg_pool2d(x.tanh(), 2, stride=1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.maps(images)[-1].flatten(1)


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
        ({"beta": 0.25}, "total"),
        ({"prior_matching": "forward"}, "prior_matching"),
        ({"prior_exponent": 1.0}, "prior_matching"),
        ({"epsilon": 1e-4}, "entropy"),
        ({"temperature": 2.0}, "entropy"),
        ({"dictionary_seed": 5}, "total"),
        ({"num_targets": 1}, "total"),
        ({"embedding_norm": "tanh"}, "entropy"),
        ({"marginal": "pooled"}, "prior_matching"),
        ({"hidden_dim": 8}, "total"),
        ({"view_norm": "separate"}, "total"),
        ({"places": True}, "total"),
    ],
)
def test_every_option_reaches_the_loss(change: dict[str, object], differs: str) -> None:
    def terms(config: FalconConfig) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        return Falcon(Parts(Maps(), 16, (1, 8, 8)), config)(views()).terms

    assert terms(CONFIG.falcon)[differs] != terms(replace(CONFIG.falcon, **change))[differs]


def test_embed_is_what_the_loss_sees() -> None:
    method = build_method(CONFIG, image_shape=(1, 8, 8)).eval()
    z_ND, u_NF = method.embed(views()[0])
    assert z_ND.shape == (8, 256)
    assert torch.allclose(u_NF.norm(dim=1), torch.ones(8))
    assert method.logit_scale == logit_scale_from_temperature(16, 0.25)


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


def test_every_place_of_the_last_map_is_embedded() -> None:
    config = replace(CONFIG.falcon, places=True)
    method = Falcon(Parts(Maps(), 16, (1, 8, 8)), config)
    assert method.projector.in_dim == 4  # channels, not what the encoder returns
    drawn = views()
    out = method(drawn)
    z_MSC = method.encoder.maps(torch.cat(drawn))[-1].flatten(2).transpose(1, 2)
    u_VNSF = method.projector(z_MSC.flatten(0, 1)).view(2, 8, 4, 16)
    torch.testing.assert_close(out.loss, method.loss(*u_VNSF).total)
    assert out.u_NF.shape == (8, 16)
    method.eval()
    z_ND, u_NF = method.embed(drawn[0])
    u_NSF = method.projector(method.encoder.maps(drawn[0])[-1].permute(0, 2, 3, 1).flatten(0, 2))
    mean_NF = u_NSF.view(8, 4, 16).mean(dim=1)
    torch.testing.assert_close(u_NF, nn.functional.normalize(mean_NF, dim=1))
    assert z_ND.shape == (8, 16)
    larger = torch.randn(3, 1, 11, 11)  # another number of places
    assert method.embed(larger)[1].shape == (3, 16)


def test_places_need_maps_and_large_views() -> None:
    config = replace(CONFIG.falcon, places=True)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 24))
    with pytest.raises(InputError, match=r"needs an encoder with feature maps.*maps\(images\)"):
        Falcon(Parts(encoder, 24, (1, 8, 8)), config)
    with pytest.raises(InputError, match=r"falcon\.places takes no small crops"):
        replace(CONFIG, falcon=config, views=ViewsConfig(small_views=2, small_size=6))
    with pytest.raises(
        InputError, match=r"kernel_order does nothing without .*dictionary=complete"
    ):
        replace(CONFIG.falcon, kernel_order=5)


@pytest.mark.parametrize("places", [False, True])
def test_views_that_do_not_fit_each_other(places: bool) -> None:
    method = Falcon(Parts(Maps(), 16, (1, 8, 8)), replace(CONFIG.falcon, places=places))
    first, second = views()
    with pytest.raises(InputError, match="views differ in their number of images: received 8, 6"):
        method([first, second[:6]])
    with pytest.raises(InputError, match="too few views: received 1"):
        method([first])
    if places:  # as small crops would have it
        with pytest.raises(InputError, match=r"views of one size.*received \(8, 8\), \(11, 11\)"):
            method([first, torch.randn(8, 1, 11, 11)])


@pytest.mark.parametrize(("num_targets", "fits"), [(1, True), (4, True), (5, False)])
def test_targets_are_views(num_targets: int, fits: bool) -> None:
    options = {"falcon": {"num_targets": num_targets}, "views": {"count": 3, "small_views": 1}}
    if fits:
        assert from_mapping(options).falcon.num_targets == num_targets
        return
    with pytest.raises(InputError, match=r"num_targets is larger than the number of views.*most 4"):
        from_mapping(options)


@pytest.mark.parametrize("places", [False, True])
@pytest.mark.parametrize("hidden_dim", [0, 12])
def test_batch_statistics_of_each_view(places: bool, hidden_dim: int) -> None:
    """view_norm separate: the projector sees one view after the other, as the plain formula does."""
    config = replace(CONFIG.falcon, places=places, hidden_dim=hidden_dim, view_norm="separate")
    method = Falcon(Parts(Maps(), 16, (1, 8, 8)), config).double()
    drawn = [view.double() for view in views()]
    z_MD = torch.cat(drawn)
    z_MD = method.encoder.maps(z_MD)[-1] if places else method.encoder(z_MD)
    z_MD = z_MD.permute(0, 2, 3, 1).flatten(0, 2) if places else z_MD

    def normalized(y: torch.Tensor) -> torch.Tensor:
        return (y - y.mean(0)) / (y.var(0, correction=0) + 1e-5).sqrt()

    embeddings = []
    for z in z_MD.chunk(2):
        if hidden_dim:
            z = nn.functional.gelu(normalized(z @ method.projector.hidden[0].weight.T))
        u = nn.functional.normalize(normalized(z @ method.projector.linear.weight.T), dim=1)
        embeddings.append(u.view(8, 4, 16) if places else u)
    expected = method.loss(*embeddings)
    out = method(drawn)
    torch.testing.assert_close(out.loss, expected.total, rtol=1e-12, atol=1e-12)
    method.config = replace(config, view_norm="joint")
    assert abs(method(drawn).loss - out.loss) > 1e-6  # the control


def test_features_of_each_view_are_decorrelated_at_the_optimum_of_the_theory() -> None:
    """H^T H = I is a statement about the N rows of one view: only separate statistics center each."""
    config = replace(CONFIG.falcon, view_norm="separate")
    method = Falcon(Parts(Maps(), 16, (1, 8, 8)), config)
    method.projector.norm.register_forward_hook(
        lambda module, args, output: means.append(output.mean(dim=0).abs().max())
    )
    means: list[torch.Tensor] = []
    method([views()[0], views()[1] + 3])
    assert len(means) == 2
    assert max(means) < 1e-5


@pytest.mark.parametrize("name", ["digits_cnn", "whitened_cnn", "resnet8", "resnet18"])
def test_by_places_an_embedding_takes_the_encoder_once(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    width = 8 if name != "resnet8" else 4
    encoder = build_encoder(name, in_channels=1, width=width)
    fit_to_images(encoder, lambda: torch.rand(8, 1, 32, 32))
    parts = Parts(encoder.eval(), representation_width(encoder, (1, 32, 32)), (1, 32, 32))
    method = Falcon(parts, replace(CONFIG.falcon, places=True)).eval()
    images, calls, maps = torch.rand(3, 1, 32, 32), [], encoder.maps
    want = encoder(images)
    monkeypatch.setattr(encoder, "maps", lambda x: (calls.append(len(x)), maps(x))[1])
    z, _ = method.embed(images)
    assert calls == [3]
    assert torch.equal(z, want)


@pytest.mark.parametrize("places", [False, True])
def test_what_a_step_calls_is_compiled(places: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """By places the encoder is not called, but its maps."""
    called: list[str] = []

    def compiled(function: Callable[..., object], **how: object) -> Callable[..., object]:
        return lambda *args, **options: (called.append(str(how["mode"])), function(*args))[1]

    monkeypatch.setattr(torch, "compile", compiled)
    method = Falcon(Parts(Maps(), 16, (1, 8, 8)), replace(CONFIG.falcon, places=places))
    method.compile_encoder("default")
    method(views())
    assert called == ["default"]
