"""Encoders: the sizes that the paper's table implies, agreement with timm, and clear refusals."""

import pytest
import torch
from torch import nn

from falcon_ssl.core.errors import InputError
from falcon_ssl.networks import build_encoder, encoder_names, representation_width
from falcon_ssl.networks.batchnorm import GlobalBatchNorm, use_global_batch_norm


def multiply_adds(encoder: nn.Module, image_shape: tuple[int, int, int]) -> int:
    """Multiply-adds of all convolutions for one image."""
    total = 0

    def count(module: nn.Conv2d, _inputs: object, output: torch.Tensor) -> None:
        nonlocal total
        total += module.weight.numel() * output.shape[2] * output.shape[3]

    hooks = [
        module.register_forward_hook(count)
        for module in encoder.modules()
        if isinstance(module, nn.Conv2d)
    ]
    representation_width(encoder, image_shape)
    for hook in hooks:
        hook.remove()
    return total


def weigh_branches(encoder: nn.Module) -> nn.Module:
    """Give every norm a weight: residual blocks begin as their shortcuts, which would hide what is in them."""
    for module in encoder.modules():
        if isinstance(module, (nn.BatchNorm2d, GlobalBatchNorm)):
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return encoder


@pytest.mark.parametrize(
    ("width", "parameters", "operations"), [(128, 1.04e6, 268e6), (256, 4.14e6, 1064e6)]
)
def test_resnet8_has_the_size_of_the_paper(width, parameters, operations):
    encoder = build_encoder("resnet8", in_channels=3, width=width)
    assert sum(p.numel() for p in encoder.parameters()) == pytest.approx(parameters, rel=5e-3)
    assert multiply_adds(encoder, (3, 32, 32)) == pytest.approx(operations, rel=1e-3)
    assert representation_width(encoder, (3, 32, 32)) == width


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_resnet_equals_timm_with_the_same_weights(name):
    timm_model = weigh_branches(build_encoder(f"timm:{name}", in_channels=3)).eval()
    ours = build_encoder(name, in_channels=3, stem="imagenet").eval()
    ours.load_state_dict(timm_model.state_dict())
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(ours(images), timm_model(images))


@pytest.mark.parametrize(
    ("name", "options", "shape", "width"),
    [
        ("digits_cnn", {}, (1, 8, 8), 256),
        ("digits_cnn", {"width": 32}, (1, 28, 28), 128),
        ("resnet8", {"width": 16}, (1, 32, 32), 16),
        ("resnet18", {"stem": "cifar", "width": 16}, (3, 32, 32), 128),
        ("resnet10", {"stem": "half", "width": 8}, (3, 32, 32), 64),
        ("resnet18", {"stem": "imagenet", "width": 8}, (1, 64, 64), 64),
        ("resnet10", {"stem": "half", "width": 8, "stages": 3}, (3, 24, 24), 32),
        ("resnet50", {"stem": "cifar", "width": 4}, (3, 32, 32), 128),
    ],
)
def test_width_is_found_and_gradients_reach_every_parameter(name, options, shape, width):
    torch.manual_seed(0)
    encoder = build_encoder(name, in_channels=shape[0], **options)
    assert representation_width(encoder, shape) == width
    assert encoder.training
    weigh_branches(encoder)(torch.randn(4, *shape)).square().sum().backward()
    for label, parameter in encoder.named_parameters():
        assert parameter.grad is not None, label
        assert parameter.grad.abs().sum() > 0, label


@pytest.mark.parametrize("stages", [0, 5])
def test_stages_that_there_are_not(stages):
    with pytest.raises(InputError, match=f"stages={stages}"):
        build_encoder("resnet10", in_channels=3, stages=stages)


@pytest.mark.parametrize("name", ["resnet10", "resnet50"])
def test_residual_blocks_begin_as_their_shortcuts(name):
    encoder = build_encoder(name, in_channels=3, width=4, stem="half")
    block = encoder.layer2[0]
    x = torch.randn(2, block.conv1.in_channels, 8, 8)
    torch.testing.assert_close(block(x), block.downsample(x).relu())


def test_cifar_stem_keeps_the_resolution():
    small = build_encoder("resnet18", in_channels=3, stem="cifar")
    large = build_encoder("resnet18", in_channels=3, stem="imagenet")
    assert small.conv1(torch.zeros(1, 3, 32, 32)).shape[-1] == 32
    # Known figures: 0.56 G multiply-adds for CIFAR's ResNet-18, 1.82 G for ImageNet's at 224.
    assert multiply_adds(small, (3, 32, 32)) == pytest.approx(0.556e9, rel=5e-3)
    assert multiply_adds(large, (3, 224, 224)) == pytest.approx(1.814e9, rel=5e-3)


def test_timm_vit_takes_size_and_patch_and_smaller_crops():
    encoder = build_encoder(
        "timm:vit_tiny_patch16_224", in_channels=1, image_size=32, patch_size=8, drop_path=0.1
    )
    assert representation_width(encoder, (1, 32, 32)) == 192
    assert representation_width(encoder, (1, 16, 16)) == 192


def test_timm_convolutional_nets_need_no_image_size():
    encoder = build_encoder("timm:resnet18", in_channels=1, image_size=32)
    assert representation_width(encoder, (1, 32, 32)) == 512


def test_a_module_that_keeps_positions_is_refused():
    with pytest.raises(InputError, match="does not return representations"):
        representation_width(nn.Conv2d(3, 8, 3), (3, 8, 8))


def test_a_module_without_parameters_has_a_width():
    assert representation_width(nn.Flatten(), (3, 8, 8)) == 192


def test_unknown_encoder_lists_the_known_ones():
    with pytest.raises(InputError, match="unknown encoder") as error:
        build_encoder("resnet19", in_channels=3)
    for name in encoder_names():
        assert name in str(error.value)


def test_unknown_timm_model_names_similar_ones():
    with pytest.raises(InputError, match=r"unknown timm model.*vit_"):
        build_encoder("timm:vit_gigantic", in_channels=3)


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("resnet8", {"stem": "cifar"}),
        ("digits_cnn", {"patch_size": 4}),
        ("timm:resnet18", {"width": 8}),
    ],
)
def test_options_are_never_ignored(name, option):
    with pytest.raises(InputError, match="does not take the option"):
        build_encoder(name, in_channels=3, **option)


def test_timm_model_that_lacks_an_option_says_so():
    with pytest.raises(InputError, match=r"does not take an option.*patch_size"):
        build_encoder("timm:resnet18", in_channels=3, patch_size=8)


def test_missing_timm_names_the_install_command(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(InputError, match=r'pip install "falcon-ssl\[timm\]"'):
        build_encoder("timm:resnet18", in_channels=3)


@pytest.mark.parametrize("name", ["efficientnet_b0", "regnety_002", "resnet10t"])
def test_global_norms_keep_what_a_timm_model_computes(name):
    """Many of timm's norms activate too; without that the network would be another one on several ranks."""
    encoder = weigh_branches(build_encoder(f"timm:{name}", in_channels=3)).eval()
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = encoder(images)
        names = list(encoder.state_dict())
        after = use_global_batch_norm(encoder)(images)
    torch.testing.assert_close(after, before)
    assert list(encoder.state_dict()) == names
    assert not any(isinstance(module, nn.BatchNorm2d) for module in encoder.modules())


def test_a_norm_that_hides_other_modules_is_refused():
    class Scaled(nn.BatchNorm2d):
        def __init__(self) -> None:
            super().__init__(4)
            self.gate = nn.Conv2d(4, 4, 1)

    with pytest.raises(InputError, match="Scaled with gate"):
        use_global_batch_norm(nn.Sequential(Scaled()))


def test_a_shortcut_of_eight_channels_is_thinned_and_equal():
    """A crash of oneDNN (see _ThinnedShortcut); a crash would end the test process."""
    thinned = build_encoder("resnet18", in_channels=3, width=8, stem="cifar")
    thinned = weigh_branches(thinned).to(memory_format=torch.channels_last)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    images = images.contiguous(memory_format=torch.channels_last)
    thinned(images).sum().backward()
    shortcut = thinned.layer2[0].downsample
    x = torch.randn(2, 8, 9, 9, generator=torch.Generator().manual_seed(1))
    strided = nn.functional.conv2d(x, shortcut[0].weight, stride=2)
    torch.testing.assert_close(shortcut.eval()(x), shortcut[1](strided))


def test_a_network_without_channels_is_refused():
    with pytest.raises(InputError, match=r"encoder\.width is too small: received 1, expected >= 2"):
        build_encoder("digits_cnn", in_channels=1, width=1)
    assert build_encoder("digits_cnn", in_channels=1, width=2)(torch.zeros(2, 1, 8, 8)).shape == (
        2,
        8,
    )
