"""A convolutional network for processors: whitened patches that are never trained, then a few wide convolutions.

    stem     h = GELU(W (p - mean))     p: patches of P x P pixels, P / 3 pixels apart; W: [A; -A]
             A = rows v_k / sqrt(e_k + 0.001 mean e) of the K leading eigenvectors of their covariance, V E V^T
    stage 1  GELU(BatchNorm(conv3x3(h)))
    stage s  GELU(BatchNorm(conv3x3(pool2x2(...))))     s = 2, ..., wider from stage to stage
    head     GELU(BatchNorm(conv1x1(...)))              where asked for
    z        mean over the places of the last map

A first layer of eigenvectors in both signs is that of airbench (Jordan, arXiv 2404.00498). What makes the network fast
on a processor: nothing is learned at full resolution (no gradient of weights of three channels, none of the images),
the learned convolutions have hundreds of channels, and nothing is padded.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, gelu, unfold

from falcon_ssl.core.checks import check_at_least
from falcon_ssl.core.errors import InputError
from falcon_ssl.networks.batchnorm import GlobalBatchNorm
from falcon_ssl.networks.convolution import SmallMapConv2d

OVERLAP = 3  # patch size by stride
FLOOR = 0.001  # added to the eigenvalues, as a fraction of their mean
LEARNED_FROM = 200_000  # patches


class WhitenedStem(nn.Module):
    """The first layer, without a parameter; call `fit_images` before it is used.

    Args:
        in_channels: Channels of the images.
        patch_size: P, in pixels; patches are P / 3 pixels apart.
        eigenvectors: K at most; the layer has twice as many channels.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, in_channels: int, *, patch_size: int, eigenvectors: int) -> None:
        super().__init__()
        self.patch_size, self.stride = patch_size, patch_size // OVERLAP
        kept = min(eigenvectors, in_channels * patch_size**2)
        self.width = 2 * kept
        # NaN until they are fitted: features of a stem that nobody fitted must not look like numbers.
        shape = (self.width, in_channels, patch_size, patch_size)
        self.register_buffer("weight", torch.full(shape, torch.nan))
        self.register_buffer("bias", torch.full((self.width,), torch.nan))

    @torch.no_grad()
    def fit_images(self, images: Tensor) -> None:
        """Learn the eigenvectors of patches.

        Args:
            images: [N, C, H, W] as the network receives them, normalized.

        Raises:
            InputError: Images smaller than a patch, or fewer patches than they have pixels.
        """
        generator = torch.Generator().manual_seed(0)
        kept, parts = -(-LEARNED_FROM // len(images)), []
        # All patches of all images may not fit in memory.
        for some in torch.split(images.float(), 256):
            p_NLP = unfold(some, self.patch_size, stride=self.stride).transpose(1, 2)
            drawn = torch.randperm(p_NLP.shape[1], generator=generator)[:kept]
            parts.append(p_NLP[:, drawn].flatten(0, 1))
        p_MP = torch.cat(parts).double()
        check_at_least("number of patches", len(p_MP), p_MP.shape[1], fix="use more images")
        mean_P = p_MP.mean(dim=0)
        eigenvalue_P, v_PP = torch.linalg.eigh(torch.cov(p_MP.T, correction=0))
        scale_P = (eigenvalue_P.clamp(min=0) + FLOOR * eigenvalue_P.mean()).rsqrt()
        a_KP = (v_PP * scale_P).flip(1)[:, : self.width // 2].T
        w_KP = torch.cat([a_KP, -a_KP])
        self.weight.copy_(w_KP.view_as(self.weight))
        self.bias.copy_(-(w_KP @ mean_P))

    def forward(self, images: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, 2 K, H', W']."""
        return gelu(conv2d(images, self.weight, self.bias, stride=self.stride))


class WhitenedCNN(nn.Module):
    """Whitened patches and a few stages: 2, 3 or 4 leave 2 x 2 places of views of 24, 48 or 96 pixels.

    Its stem is fitted to images before training, as `fit_to_images` does for any network.

    Args:
        in_channels: Channels of the images.
        width: Channels of the first stage; the last has four times as many, and D = 4 width.
        stages: How many 3x3 convolutions, >= 2.
        widths: Channels of every stage instead; D is the last.
        patch_size: P of the stem, in pixels, a multiple of 3: with twice of it, images of twice the size cost the same.
        eigenvectors: K of the stem.
        head_width: Channels of a 1x1 convolution after the stages, then D; 0 is none. A hidden layer of the projector
            that is part of the encoder, and so can be read.

    Raises:
        InputError: A size below its least; in `forward`, images so small that no place is left.

    Example:
        >>> encoder = WhitenedCNN(3, width=32)
        >>> encoder.stem.fit_images(torch.randn(64, 3, 32, 32))
        >>> [tuple(maps.shape[1:]) for maps in encoder.maps(torch.randn(8, 3, 24, 24))]
        [(96, 10, 10), (32, 8, 8), (128, 2, 2)]
    """

    def __init__(
        self,
        in_channels: int,
        *,
        width: int | None = None,
        stages: int | None = None,
        widths: Sequence[int] | None = None,
        patch_size: int = 6,
        eigenvectors: int = 48,
        head_width: int = 0,
    ) -> None:
        super().__init__()
        widths = _widths(width, stages, widths)
        check_at_least("encoder.eigenvectors", eigenvectors, 1)
        if patch_size < OVERLAP or patch_size % OVERLAP:
            raise InputError(
                "encoder.patch_size does not fit whitened_cnn",
                received=patch_size,
                expected=f"a multiple of {OVERLAP}: patches are a third of it apart",
            )
        self.stem = WhitenedStem(in_channels, patch_size=patch_size, eigenvectors=eigenvectors)
        self.stages = nn.ModuleList()
        for number, (before, after) in enumerate(pairwise((self.stem.width, *widths))):
            pool = [nn.AvgPool2d(2)] if number else []
            self.stages.append(nn.Sequential(*pool, *_convolution(before, after, 3)))
        check_at_least("encoder.head_width", head_width, 0)
        self.head = nn.Sequential(*(_convolution(widths[-1], head_width, 1) if head_width else ()))

    def maps(self, images: Tensor) -> tuple[Tensor, ...]:
        """The maps of stem, stages and head, [N, C, H, W] each."""
        least = self._least_side()
        if min(images.shape[2:]) < least:
            raise InputError(
                "images are too small for the encoder whitened_cnn",
                received=f"{images.shape[3]} x {images.shape[2]} pixels",
                expected=f">= {least} with {len(self.stages)} stages",
                fix="use larger views, or fewer stages",
            )
        maps = [self.stem(images)]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return (*maps, self.head(maps[-1])) if len(self.head) else tuple(maps)

    def forward(self, images: Tensor) -> Tensor:
        """[N, C, H, W] -> z_ND."""
        return self.pool_map(self.maps(images)[-1])

    def pool_map(self, last_NCHW: Tensor) -> Tensor:
        """z_ND of the last map."""
        return last_NCHW.mean(dim=(2, 3))

    def _least_side(self) -> int:
        """Side of images that leave one place of the last map."""
        side = 3
        for _ in range(len(self.stages) - 1):
            side = 2 * side + 2
        return self.stem.stride * (side - 1) + self.stem.patch_size


def _convolution(before: int, after: int, size: int) -> list[nn.Module]:
    return [SmallMapConv2d(before, after, size), GlobalBatchNorm(after), nn.GELU()]


def _widths(width: int | None, stages: int | None, widths: Sequence[int] | None) -> Sequence[int]:
    """Channels of every stage: those that are given, or a geometric series to four times the first."""
    if widths is None:
        first, count = 128 if width is None else width, 2 if stages is None else stages
        check_at_least("encoder.width", first, 1)
        check_at_least("encoder.stages", count, 2)
        return [round(first * 4 ** (s / (count - 1))) for s in range(count)]
    if width is not None or stages is not None:
        raise InputError(
            "encoder.widths says the width of every stage",
            received="encoder.width or encoder.stages beside it",
            expected="one way to say it",
        )
    check_at_least("number of entries of encoder.widths", len(widths), 2)
    for one in widths:
        check_at_least("encoder.widths", one, 1)
    return widths
