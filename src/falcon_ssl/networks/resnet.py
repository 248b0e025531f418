"""ResNet-10, ResNet-18 and ResNet-50 (He et al. 2016) without the classifier, any width, three stems.

Parameters are named as in torchvision and timm, so weights travel both ways.
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from falcon_ssl.core.checks import check_choice
from falcon_ssl.core.errors import InputError
from falcon_ssl.networks.batchnorm import GlobalBatchNorm
from falcon_ssl.networks.timm import AsTimm

Stem = Literal["cifar", "half", "imagenet"]


class ResNet(nn.Module):
    """Stages of residual blocks, each half the resolution and twice the channels of the last.

    Args:
        in_channels: Channels of the images.
        block: "basic" (two 3x3 convolutions) or "bottleneck" (1x1, 3x3, 1x1 with four times the
            channels). Blocks begin as their shortcuts: the last norm of a branch has weight 0
            (Goyal et al. 2017), which gave kNN .354 and not .327 after one epoch of CIFAR-10.
        depths: Blocks of each stage.
        stages: How many of the stages to build; None for all. Each that is left out halves D.
        stem: "cifar" keeps the resolution (one 3x3 convolution); "half" halves it (the same with
            stride 2: a quarter of the cost, for processors); "imagenet" divides it by four (a 7x7
            convolution of stride 2, then max pooling).
        width: Channels of the first stage; D = 8 width, or 32 width with bottlenecks.

    Attributes:
        as_timm: How timm builds the same network; None for one that it does not have.

    Raises:
        InputError: An unknown block or stem, or a number of stages that there is not.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        block: Literal["basic", "bottleneck"],
        depths: tuple[int, ...],
        stem: Stem,
        width: int = 64,
        stages: int | None = None,
    ) -> None:
        super().__init__()
        check_choice("block", block, ("basic", "bottleneck"))
        check_choice("stem", stem, ("cifar", "half", "imagenet"))
        if stages is not None and not 1 <= stages <= len(depths):
            raise InputError(
                "the encoder does not have so many stages",
                received=f"stages={stages}",
                expected=f"1 to {len(depths)}",
                fix="leave it out for all",
            )
        self.as_timm: AsTimm | None = None
        if stem == "imagenet" and width == 64 and stages in (None, len(depths)):
            name = "resnet18" if block == "basic" else "resnet50"
            self.as_timm = AsTimm(name, {"in_chans": in_channels, "layers": list(depths)})
        make = _Basic if block == "basic" else _Bottleneck
        if stem != "imagenet":
            stride = 2 if stem == "half" else 1
            self.conv1 = nn.Conv2d(in_channels, width, 3, stride=stride, padding=1, bias=False)
            self.maxpool: nn.Module = nn.Identity()
        else:
            self.conv1 = nn.Conv2d(in_channels, width, 7, stride=2, padding=3, bias=False)
            self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.bn1 = GlobalBatchNorm(width)

        def stage(index: int) -> nn.Sequential:
            inner, stride = width * 2**index, 1 if index == 0 else 2
            before = width if index == 0 else inner // 2 * make.expansion
            later = inner * make.expansion
            blocks = [make(before, inner, stride=stride)]
            blocks += [make(later, inner, stride=1) for _ in range(depths[index] - 1)]
            return nn.Sequential(*blocks)

        depths = depths[:stages]
        self.num_stages = len(depths)
        for index in range(self.num_stages):
            self.add_module(f"layer{index + 1}", stage(index))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, _Basic):
                nn.init.zeros_(module.bn2.weight)
            elif isinstance(module, _Bottleneck):
                nn.init.zeros_(module.bn3.weight)

    def maps(self, images: Tensor) -> tuple[Tensor, ...]:
        """[N, C, H, W] -> what every stage returns."""
        x = self.maxpool(F.relu(self.bn1(self.conv1(images)), inplace=True))
        found = []
        for index in range(self.num_stages):
            x = self.get_submodule(f"layer{index + 1}")(x)
            found.append(x)
        return tuple(found)

    def forward(self, images: Tensor) -> Tensor:
        """[N, C, H, W] -> z_ND, the mean of the last map."""
        return self.pool_map(self.maps(images)[-1])

    def pool_map(self, last_NCHW: Tensor) -> Tensor:
        """z_ND of the last map."""
        return last_NCHW.mean(dim=(2, 3))


class _Basic(nn.Module):
    """y = relu(shortcut(x) + bn2(conv2(relu(bn1(conv1(x))))))."""

    expansion = 1

    def __init__(self, in_channels: int, channels: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = GlobalBatchNorm(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = GlobalBatchNorm(channels)
        self.downsample = _shortcut(in_channels, channels, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        return F.relu(y + self.downsample(x), inplace=True)


class _Bottleneck(nn.Module):
    """y = relu(shortcut(x) + bn3(conv3(relu(bn2(conv2(relu(bn1(conv1(x)))))))))."""

    expansion = 4

    def __init__(self, in_channels: int, channels: int, *, stride: int) -> None:
        super().__init__()
        out_channels = channels * self.expansion
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn1 = GlobalBatchNorm(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn2 = GlobalBatchNorm(channels)
        self.conv3 = nn.Conv2d(channels, out_channels, 1, bias=False)
        self.bn3 = GlobalBatchNorm(out_channels)
        self.downsample = _shortcut(in_channels, out_channels, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        y = self.bn3(self.conv3(y))
        return F.relu(y + self.downsample(x), inplace=True)


def _shortcut(in_channels: int, out_channels: int, *, stride: int) -> nn.Module:
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    thinned = in_channels == 8 and stride > 1
    return (_ThinnedShortcut if thinned else nn.Sequential)(
        nn.Conv2d(in_channels, out_channels, 1, stride=1 if thinned else stride, bias=False),
        GlobalBatchNorm(out_channels),
    )


class _ThinnedShortcut(nn.Sequential):
    """A shortcut of stride 2 that takes every second pixel itself.

    Its convolution of stride 1 computes the same. oneDNN (torch 2.13, AVX-512) crashes in the backward pass of a 1x1
    convolution of stride 2 with exactly 8 channels in channels_last from 56 pixels on; elsewhere thinning only costs.
    """

    def forward(self, input: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C', H / 2, W / 2]."""
        y: Tensor = super().forward(input[:, :, ::2, ::2])  # type: ignore[no-untyped-call]
        return y
