"""ResNet-8, the encoder of the paper's Table 1: eight 3x3 convolutions, no normalization layers."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

_SLOPE = 0.2


class ResNet8(nn.Module):
    """Four pre-activation residual blocks of constant width, then the mean over positions.

        x -> block 1 -> pool -> block 2 -> pool -> block 3 -> block 4 -> LeakyReLU -> mean = z_ND

    Inferred from the discriminator that the paper's code descends from: LeakyReLU 0.2, 2x2 average
    pooling, Xavier initialization, of gain sqrt(2) in the 3x3 convolutions and 1 in the shortcut: maps
    begin with a standard deviation of about 1, where gain 1 gives .4. Width 128 has 1.04 M parameters
    and needs 268 M multiply-adds for an image of 32x32; width 256 has 4.14 M and needs 1064 M.

    Args:
        in_channels: Channels of the images.
        width: Channels of every block; D = width.
    """

    def __init__(self, in_channels: int, *, width: int = 256) -> None:
        super().__init__()
        self.block1 = _Block(in_channels, width)
        self.block2 = _Block(width, width)
        self.block3 = _Block(width, width)
        self.block4 = _Block(width, width)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                gain = 1.0 if module.kernel_size == (1, 1) else math.sqrt(2)
                nn.init.xavier_uniform_(module.weight, gain)
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def maps(self, images: Tensor) -> tuple[Tensor, ...]:
        """[N, C, H, W] -> what every block hands on."""
        first = F.avg_pool2d(self.block1(images), 2)
        second = F.avg_pool2d(self.block2(first), 2)
        third = self.block3(second)
        return first, second, third, F.leaky_relu(self.block4(third), _SLOPE)

    def forward(self, images: Tensor) -> Tensor:
        """[N, C, H, W] -> z_ND, the mean of the last map."""
        return self.pool_map(self.maps(images)[-1])

    def pool_map(self, last_NCHW: Tensor) -> Tensor:
        """z_ND of the last map."""
        return last_NCHW.mean(dim=(2, 3))


class _Block(nn.Module):
    """y = shortcut(x) + conv2(a(conv1(a(x)))), a = LeakyReLU.

    A block that changes the number of channels is the first one: it sees pixels, not features, so
    nothing is rectified before its first convolution, and its shortcut is a 1x1 convolution.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.shortcut = (
            nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else None
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.shortcut is None:
            y, skip = self.conv1(F.leaky_relu(x, _SLOPE)), x
        else:
            y, skip = self.conv1(x), self.shortcut(x)
        out: Tensor = self.conv2(F.leaky_relu(y, _SLOPE)) + skip
        return out
