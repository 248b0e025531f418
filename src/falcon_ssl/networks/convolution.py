"""A convolution for maps of a few pixels, which processors multiply faster as one matrix."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

# Of a side of a map; measured on AVX-512 in bfloat16, the step of 4 pixels takes half the time.
FEW_PIXELS = 6


class SmallMapConv2d(nn.Conv2d):
    """`torch.nn.Conv2d` of stride 1 without padding and bias, whose gradient is quick on small maps too.

        y_NHWO = P_NHW(kkC) W_(kkC)O        P: the k x k pixels under each place, beside each other

    The weight gradient of oneDNN's 3x3 convolution on 4 x 4 pixels runs at a quarter of the processor's matrix product
    (bfloat16, Zen 4); this product at three quarters. Larger maps and GPUs take the convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, O, H - k + 1, W - k + 1]."""
        size = self.kernel_size[0]
        height, width = input.shape[2] - size + 1, input.shape[3] - size + 1
        if input.device.type != "cpu" or max(input.shape[2:]) > FEW_PIXELS or height < 1:
            return super().forward(input)
        x_NHWC = input.permute(0, 2, 3, 1)  # no copy with channels last
        p_NHWP = torch.cat(
            [x_NHWC[:, i : i + height, j : j + width] for i in range(size) for j in range(size)],
            dim=3,
        )
        w_OP = self.weight.permute(0, 2, 3, 1).reshape(self.out_channels, -1)
        return linear(p_NHWP, w_OP).permute(0, 3, 1, 2)
