"""A small convolutional net for small grayscale images."""

from __future__ import annotations

from torch import Tensor, nn

from falcon_ssl.core.checks import check_at_least
from falcon_ssl.networks.batchnorm import GlobalBatchNorm


class DigitsCNN(nn.Module):
    """Three 3x3 convolutions with BatchNorm and ReLU; z_ND is the last map at 2x2 positions.

    Args:
        in_channels: Channels of the images.
        width: Channels of the last map, the first has half as many; D = 4 width.

    Raises:
        InputError: ``width`` < 2.
    """

    def __init__(self, in_channels: int, *, width: int = 64) -> None:
        super().__init__()
        check_at_least("encoder.width", width, 2, fix="the first map of digits_cnn has half of it")
        self.body = nn.Sequential(
            *_convolution(in_channels, width // 2, stride=1),
            *_convolution(width // 2, width, stride=2),
            *_convolution(width, width, stride=2),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
        )

    def maps(self, images: Tensor) -> tuple[Tensor, ...]:
        """[N, C, H, W] -> the map after every convolution."""
        first = self.body[:3](images)
        second = self.body[3:6](first)
        return first, second, self.body[6:9](second)

    def forward(self, images: Tensor) -> Tensor:
        """[N, C, H, W] -> z_ND, the last map at 2x2 positions."""
        return self.pool_map(self.maps(images)[-1])

    def pool_map(self, last_NCHW: Tensor) -> Tensor:
        """z_ND of the last map."""
        z_ND: Tensor = self.body[9:](last_NCHW)
        return z_ND


def _convolution(in_channels: int, out_channels: int, *, stride: int) -> list[nn.Module]:
    return [
        nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False),
        GlobalBatchNorm(out_channels),
        nn.ReLU(inplace=True),
    ]
