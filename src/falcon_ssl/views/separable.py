"""Linear maps of images that treat rows and columns apart: cropping, flipping, resizing, blurring.

    y_NChw = R_NhH x_NCHW K_NwW^T

A pair of small matrices for every image makes all of them two batched matrix products, which both
CPUs and GPUs do at full speed, with any mixture of parameters in one batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from falcon_ssl.core.constants import pixel_centers


def apply_separable(x_NCHW: Tensor, R_NhH: Tensor, K_NwW: Tensor) -> Tensor:
    """Apply R to the rows and K to the columns of every image: y = R x K^T.

    R_NhH and K_NwW are the weights of the input rows and columns in every output row and column.
    """
    N, C, H, W = x_NCHW.shape
    columns = torch.bmm(x_NCHW.reshape(N, C * H, W), K_NwW.transpose(1, 2))
    return torch.matmul(R_NhH[:, None], columns.view(N, C, H, -1))


def resize_matrix(start: Tensor, length: Tensor, *, inputs: int, outputs: int) -> Tensor:
    """Weights that resize the interval [start, start + length) of an axis to ``outputs`` pixels.

    Output pixel i samples at center c_i = start + (i + 1/2) s with s = length / outputs, through a
    triangle of half width max(s, 1): bilinear interpolation when enlarging, antialiased when
    reducing; the weights of pixels inside the image are scaled to sum to 1. Pillow's
    ``resize(..., BILINEAR, box=...)`` computes the same. A negative length runs backwards: a flip.

    Args:
        start: [N], where the interval begins, in pixels; its end for a flip.
        length: [N], in pixels, not 0.
        inputs: Pixels of the axis before.
        outputs: Pixels of the axis after.

    Returns:
        [N, outputs, inputs].
    """
    step = (length / outputs)[:, None]
    center = torch.addcmul(start[:, None], pixel_centers(outputs, start.device), step)
    half_width = step.abs().clamp_(min=1)[:, :, None]
    pixel = pixel_centers(inputs, start.device)
    distance = (pixel - center[:, :, None]).abs_().div_(half_width)
    weights = distance.neg_().add_(1).clamp_(min=0)
    return weights.div_(weights.sum(dim=2, keepdim=True))


def gaussian_matrix(sigma: Tensor, *, size: int) -> Tensor:
    """Weights that blur an axis: w_ij ~ exp(-(i - j)^2 / 2 sigma^2), rows scaled to sum to 1.

    sigma [N] > 0, in pixels -> [N, size, size].
    """
    pixel = pixel_centers(size, sigma.device)
    squared = (pixel[:, None] - pixel).square_()
    weights = (squared * (-0.5 / sigma.square())[:, None, None]).exp_()
    return weights.div_(weights.sum(dim=2, keepdim=True))
