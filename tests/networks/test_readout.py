"""Readouts: what they are, by hand; which encoder has which; mirrored and shifted images."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from falcon_ssl.core.errors import InputError
from falcon_ssl.networks import Readout, build_encoder, representation_width

SMALL = {
    "digits_cnn": ({"width": 8}, (1, 16, 16)),
    "resnet8": ({"width": 8}, (3, 32, 32)),
    "resnet10": ({"width": 8, "stem": "half", "stages": 3}, (3, 32, 32)),
    "resnet50": ({"width": 4, "stem": "cifar"}, (3, 32, 32)),
    "timm:resnet18": ({}, (3, 96, 96)),
}
VIT, IMAGE = "timm:vit_tiny_patch16_224", (3, 32, 32)


def built(name: str) -> nn.Module:
    torch.manual_seed(0)
    options, (channels, side, _) = SMALL.get(name, ({}, IMAGE))
    return build_encoder(name, in_channels=channels, image_size=side, **options).eval()


def images(shape: tuple[int, int, int], num: int = 3) -> Tensor:
    return torch.randn(num, *shape, generator=torch.Generator().manual_seed(1))


class Gray(nn.Module):
    """Maps are the image and its mean over 2x2 pixels; the representation is the sum of the pixels."""

    def maps(self, x: Tensor) -> tuple[Tensor, ...]:
        return x, adaptive_avg_pool2d(x, x.shape[2] // 2)

    def forward(self, x: Tensor) -> Tensor:
        return x.sum(dim=(2, 3))


@pytest.mark.parametrize("name", list(SMALL))
def test_the_representation_is_the_pooled_last_map(name):
    encoder, x = built(name), images(SMALL[name][1])
    with torch.no_grad():
        maps = encoder.maps(x)
        sides = [one.shape[2] for one in maps]
        assert sides == sorted(sides, reverse=True)  # shallow to deep
        assert all(one.shape[2] == one.shape[3] and len(one) == 3 for one in maps)
        last = maps[-1].mean(dim=(2, 3))
        if name == "digits_cnn":
            last = adaptive_avg_pool2d(maps[-1], 2).flatten(1)
        torch.testing.assert_close(encoder(x), last)
        assert torch.equal(Readout()(encoder, x), encoder(x))


@pytest.mark.parametrize("name", ["resnet50", "timm:resnet18"])
def test_maps_are_averaged_over_cells(name):
    encoder, x = built(name), images(SMALL[name][1])
    with torch.no_grad():
        maps = encoder.maps(x)
        for representation, grids in (
            ("pooled2x2", [2]),
            ("pooled3x3", [3]),
            ("last_two", [2, 2]),
            ("last_three", [3, 3, 2]),
            ("last_four", [3, 3, 2, 2]),
        ):
            z_ND = Readout(representation)(encoder, x)
            last = zip(maps[-len(grids) :], grids, strict=True)
            cells = [adaptive_avg_pool2d(m, grid).permute(0, 2, 3, 1) for m, grid in last]
            want = torch.cat([c.flatten(1) for c in cells], dim=1)
            torch.testing.assert_close(z_ND, want, rtol=1e-5, atol=1e-6)
            width = representation_width(encoder, SMALL[name][1], readout=Readout(representation))
            assert width == want.shape[1]


def test_maps_need_not_be_square():
    x = images((1, 6, 9))
    want = adaptive_avg_pool2d(x, 3).flatten(1)
    torch.testing.assert_close(Readout("pooled3x3")(_Last(), x), want)


class _Last(Gray):
    def maps(self, x: Tensor) -> tuple[Tensor, ...]:
        return (x,)


def test_a_mirrored_readout_cannot_tell_an_image_from_its_mirror_image():
    encoder, x = built("resnet10"), images((3, 32, 32))
    with torch.no_grad():
        for crops in (1, 9):
            readout = Readout("last_two", mirror=True, crops=crops)
            torch.testing.assert_close(readout(encoder, x), readout(encoder, x.flip(3)))
        plain = Readout("last_two")  # negative control
        assert (plain(encoder, x) - plain(encoder, x.flip(3))).abs().max() > 1e-3


def test_crops_are_shifted_images():
    x = torch.arange(32.0).expand(1, 1, 32, 32) + 100 * torch.arange(32.0)[:, None]
    nine = list(Readout(crops=9)._views(x))
    assert len(nine) == 9
    assert torch.equal(nine[4], x)
    assert torch.equal(nine[0][:, :, 2:, 2:], x[:, :, :-2, :-2])  # 32 / 16 pixels down and right
    assert torch.equal(nine[0][:, :, 2:, 0], x[:, :, :-2, 2])  # the border is reflected
    assert torch.equal(nine[5][:, :, :, :-2], x[:, :, :, 2:])
    encoder = Gray()
    z_ND = Readout(crops=9)(encoder, x)
    torch.testing.assert_close(z_ND, torch.stack([encoder(view) for view in nine]).mean(dim=0))


def test_scales_average_over_resized_images():
    encoder, x = built("resnet10"), images((3, 32, 32))
    larger = interpolate(x, size=(40, 40), mode="bilinear")
    smaller = interpolate(x, size=(16, 16), mode="bilinear", antialias=True)
    with torch.no_grad():
        for scales, views in {(1.25,): (larger,), (1, 1.25, 0.5): (x, larger, smaller)}.items():
            want = torch.stack([encoder(view) for view in views]).mean(dim=0)
            torch.testing.assert_close(Readout(scales=scales)(encoder, x), want)
        both = Readout("last_two", mirror=True, scales=(1, 1.25))
        torch.testing.assert_close(both(encoder, x), both(encoder, x.flip(3)))
    assert Readout(scales=[1]).is_own  # a record holds lists
    assert str(both) == "last_two, mirrored, scales 1 and 1.25"


def test_tokens_of_a_vision_transformer():
    encoder, x = built(VIT), images(IMAGE)
    with torch.no_grad():
        tokens = encoder.forward_features(x)  # normalized: class token, then four patches
        assert tokens.shape == (3, 5, 192)
        torch.testing.assert_close(Readout("cls")(encoder, x), tokens[:, 0])
        torch.testing.assert_close(Readout("mean")(encoder, x), tokens[:, 1:].mean(dim=1))
        z_ND = Readout("last_n")(encoder, x)
    assert z_ND.shape == (3, 4 * 192)
    torch.testing.assert_close(z_ND[:, -192:], tokens[:, 0])


def test_a_copy_reads_itself():
    for name, readout in ((VIT, Readout("last_n")), ("timm:resnet18", Readout("pooled2x2"))):
        encoder = built(name)
        teacher = copy.deepcopy(encoder)
        with torch.no_grad():
            for parameter in teacher.parameters():
                parameter.mul_(1.5)
            x = images(SMALL.get(name, ({}, IMAGE))[1])
            assert not torch.allclose(readout(encoder, x), readout(teacher, x))


@pytest.mark.parametrize(
    ("name", "representation", "received"),
    [
        (VIT, "last_two", "no maps"),
        (VIT, "pooled2x2", "no maps"),
        ("resnet10", "cls", "no tokens"),
        ("resnet10", "last_n", "no tokens"),
        ("digits_cnn", "last_three", "a map of 2x2 places"),
        ("timm:vit_medium_patch16_gap_256", "cls", "no class token"),
    ],
)
def test_a_readout_that_the_encoder_does_not_have(name, representation, received):
    shape = (1, 4, 4) if name == "digits_cnn" else IMAGE
    with pytest.raises(InputError, match=f"the readout {representation} does not fit .*{received}"):
        representation_width(built(name), shape, readout=Readout(representation))


def test_a_scale_that_the_encoder_does_not_take():
    for encoder, reason in (
        (built(VIT), "patch size"),
        (nn.Flatten(), "4800 numbers an image, 3072"),
    ):
        with pytest.raises(InputError, match=f"1.25 times the size: received .*{reason}"):
            representation_width(encoder, IMAGE, readout=Readout(scales=(1, 1.25)))


def test_a_size_that_the_encoder_does_not_take():
    with pytest.raises(InputError, match=r"images of this size: .*patch size.*image_size"):
        representation_width(built(VIT), (IMAGE[0], 30, 30))


def test_too_few_maps():
    with pytest.raises(InputError, match="received 2 maps, expected at least 3 maps"):
        Readout("last_three")(Gray(), torch.zeros(1, 1, 8, 8))
