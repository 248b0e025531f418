"""Weights from elsewhere: everything is found, adapted in the open, or an error."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from falcon_ssl.core.errors import InputError
from falcon_ssl.networks import build_encoder
from falcon_ssl.networks.weights import load_weights


def resnet(seed: int, **options: object) -> nn.Module:
    torch.manual_seed(seed)
    options = {"in_channels": 3, "width": 8, "stem": "cifar"} | options
    return build_encoder("resnet10", **options).eval()  # type: ignore[arg-type]


def vit(seed: int, *, image_size: int, in_channels: int = 3, **options: object) -> nn.Module:
    torch.manual_seed(seed)
    name = str(options.get("name", "vit_tiny_patch16_224"))
    encoder = build_encoder(f"timm:{name}", in_channels=in_channels, image_size=image_size)
    return encoder.eval()


def fill(encoder: nn.Module, tensors: dict[str, Tensor], *partial: str, in_channels: int = 3):
    return load_weights(encoder, tensors, source="file", in_channels=in_channels, partial=partial)


@pytest.mark.parametrize(
    "prefix", ["", "module.", "module.encoder_q.", "state_dict.model.backbone.", "encoder."]
)
def test_names_may_have_something_before_them(prefix: str) -> None:
    theirs, mine = resnet(0), resnet(1)
    tensors = {prefix + name: value for name, value in theirs.state_dict().items()}
    tensors |= {f"{prefix}fc.weight": torch.zeros(10, 64), "epoch": torch.tensor(3)}
    match = fill(mine, tensors)
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(mine(x), theirs(x))
    assert (len(match.matched), match.parameters) == (match.of, match.of_parameters)
    assert match.parameters == sum(p.numel() for p in mine.parameters())
    assert match.unused == (f"{prefix}fc.weight", "epoch")
    assert match.prefix == prefix


def test_of_a_student_and_a_teacher_the_teacher_is_taken() -> None:
    student, teacher, mine = resnet(0), resnet(1), resnet(2)
    tensors = {f"student.backbone.{n}": v for n, v in student.state_dict().items()}
    tensors |= {f"teacher.backbone.{n}": v for n, v in teacher.state_dict().items()}
    assert fill(mine, tensors).prefix == "teacher.backbone."
    assert torch.equal(mine.conv1.weight, teacher.conv1.weight)


def test_what_is_missing_is_an_error_unless_it_is_named() -> None:
    theirs, mine = resnet(0), resnet(1)
    kept = mine.layer4[0].conv1.weight.clone()
    tensors = {n: v for n, v in theirs.state_dict().items() if not n.startswith("layer4")}
    before = {name: value.clone() for name, value in mine.state_dict().items()}
    with pytest.raises(InputError, match=r"missing: layer4.*--init\.partial layer4\."):
        fill(mine, tensors)
    with pytest.raises(InputError, match="missing: layer4"):
        fill(mine, tensors, "layer4.0.conv1")
    some = ("layer4.0.bn1.bias", "layer4.0.bn2.")
    most = {n: v for n, v in theirs.state_dict().items() if not n.startswith(some)}
    with pytest.raises(InputError, match=r"--init\.partial layer4\.0\.bn1\.bias layer4\.0\.bn2\."):
        fill(mine, most)  # and not layer4, which would allow more than is missing
    assert all(torch.equal(before[name], value) for name, value in mine.state_dict().items())
    match = fill(mine, tensors, "layer4")
    assert torch.equal(mine.layer4[0].conv1.weight, kept)
    assert torch.equal(mine.layer3[0].conv1.weight, theirs.layer3[0].conv1.weight)
    assert match.parameters < match.of_parameters
    assert any("left random: layer4.0.conv1.weight" in line for line in match.sentences())
    assert fill(mine, tensors, "layer4.*").random == match.random
    with pytest.raises(InputError, match="names nothing that the weights lack"):
        fill(mine, theirs.state_dict(), "layer4")


def test_two_tensors_of_two_hundred_are_no_success() -> None:
    """A public trainer loaded 2 of 211 tensors and went on."""
    mine = resnet(1)
    tensors = dict(list(resnet(0).state_dict().items())[:2]) | {"blocks.0.norm": torch.ones(3)}
    with pytest.raises(InputError, match="received 2 of"):
        fill(mine, tensors)
    other = build_encoder("digits_cnn", in_channels=3)
    with pytest.raises(InputError, match="received 0 of"):
        fill(mine, other.state_dict())
    half = {name: value[:1] for name, value in resnet(0).state_dict().items() if value.dim()}
    with pytest.raises(InputError, match=r"conv1.weight 1x3x3x3 and not 8x3x3x3"):
        fill(mine, half)


def test_nan_is_refused_and_half_precision_is_not() -> None:
    tensors = {
        n: v.half() if v.is_floating_point() else v for n, v in resnet(0).state_dict().items()
    }
    mine = resnet(1)
    fill(mine, tensors)
    assert mine.conv1.weight.dtype == torch.float32
    tensors["layer2.0.conv1.weight"][0, 0, 0, 0] = torch.nan
    with pytest.raises(InputError, match=r"NaN or infinity in layer2\.0\.conv1\.weight"):
        fill(mine, tensors)


@pytest.mark.parametrize("theirs_have", [1, 3])
@pytest.mark.parametrize("mine_have", [1, 3, 5])
def test_a_gray_image_gives_what_it_gave(theirs_have: int, mine_have: int) -> None:
    """An image with equal channels: the first convolution is adapted so that its output stays."""
    theirs, mine = resnet(0, in_channels=theirs_have), resnet(1, in_channels=mine_have)
    with torch.no_grad():  # channels that are alike, so that five of three can be exact
        theirs.conv1.weight.copy_(theirs.conv1.weight.mean(dim=1, keepdim=True))
    match = fill(mine, theirs.state_dict(), in_channels=mine_have)
    assert bool(match.adapted) is (theirs_have != mine_have)
    gray = torch.randn(2, 1, 16, 16)
    expanded = [gray.expand(-1, count, -1, -1) for count in (theirs_have, mine_have)]
    torch.testing.assert_close(mine(expanded[1]), theirs(expanded[0]))
    if (theirs_have, mine_have) == (3, 1):
        assert match.adapted == ("conv1.weight: 3 -> 1 channels, summed",)


def test_another_first_layer_is_not_adapted() -> None:
    with pytest.raises(InputError, match=r"conv1.weight 8x3x7x7 and not 8x3x3x3"):
        fill(resnet(1), resnet(0, stem="imagenet").state_dict())
    stem = build_encoder("whitened_cnn", in_channels=3, width=8, eigenvectors=8).state_dict()
    mine = build_encoder("whitened_cnn", in_channels=3, width=8, eigenvectors=16)
    with pytest.raises(InputError, match=r"stem.weight 16x3x6x6 and not 32x3x6x6"):
        fill(mine, stem)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "vit_small_patch14_reg4_dinov2"])
def test_positions_are_resized_as_timm_does(name: str) -> None:
    from falcon_ssl.networks.timm import import_beside_torchvision

    patch = 16 if "16" in name else 14
    theirs = vit(0, image_size=4 * patch, name=name)
    mine = vit(1, image_size=6 * patch, in_channels=1, name=name)
    match = fill(mine, theirs.state_dict(), in_channels=1)
    assert "pos_embed: 4 x 4 -> 6 x 6 positions, bicubic" in match.adapted
    assert len(match.adapted) == 2
    timm = import_beside_torchvision("timm")
    filtered = timm.models.vision_transformer.checkpoint_filter_fn(dict(theirs.state_dict()), mine)
    torch.testing.assert_close(mine.pos_embed, filtered["pos_embed"])
    same = vit(2, image_size=4 * patch, name=name)
    assert fill(same, theirs.state_dict()).adapted == ()
    assert torch.equal(same.pos_embed, theirs.pos_embed)
