"""Operations on color: what Pillow's enhancers do, for a whole batch, one factor per image.

The functions may write to their argument: pass a tensor that nobody else needs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from falcon_ssl.core.constants import constant
from falcon_ssl.core.errors import InputError
from falcon_ssl.core.pixels import LUMA
from falcon_ssl.views.apply import RandomApply
from falcon_ssl.views.compiled import compiled
from falcon_ssl.views.draw import (
    Change,
    Random,
    change_rows,
    chosen_rows,
    permutation,
    uniform_each,
)

_SIXTH = 1 / 6  # of a turn: between neighbors of red, yellow, green, cyan, blue, magenta
_LEAST_CHROMA = 1e-8 / 6  # to divide by: a gray pixel has none, and no hue


def luma(images: Tensor) -> Tensor:
    """Brightness as the eye sees it, 0.299 R + 0.587 G + 0.114 B: [N, 3, H, W] -> [N, 1, H, W]."""
    red, green, blue = _channels(images)
    return (red * LUMA[0]).add_(green, alpha=LUMA[1]).add_(blue, alpha=LUMA[2])


def adjust_brightness(images: Tensor, factor: Tensor) -> Tensor:
    """x <- clamp(f x), for images [N, C, H, W] in [0, 1] and factors [N]."""
    return images.mul_(_per_image(factor)).clamp_(0, 1)


def adjust_contrast(images: Tensor, factor: Tensor) -> Tensor:
    """x <- clamp(m + f (x - m)), m = mean luma of the image; [N, C, H, W] in [0, 1], [N]."""
    mean = images.mean(dim=(2, 3), keepdim=True)
    if images.shape[1] == 3:
        weights = constant(LUMA, images.device, images.dtype)[:, None, None]
        mean = (mean * weights).sum(dim=1, keepdim=True)
    return torch.lerp(mean, images, _per_image(factor), out=images).clamp_(0, 1)


def adjust_saturation(images: Tensor, factor: Tensor) -> Tensor:
    """x <- clamp(l + f (x - l)), l = luma of the pixel; [N, 3, H, W] in [0, 1], [N]."""
    return torch.lerp(luma(images), images, _per_image(factor), out=images).clamp_(0, 1)


def adjust_hue(images: Tensor, turn: Tensor) -> Tensor:
    """Turn the hue of HSV, keeping saturation and value, without branches.

    With M = max, m = min, c = M - m, the distance of the hue from red is, in units of c sixths of
    a turn,

        d = G + B - R + M - 2m

    (R largest: |G - B|. R smallest: 3c - |G - B|. In between: 2c - (R - m)), towards green where
    G > B. With the turned hue h, in sixths in [-3, 3], the result is

        R = M - c clamp(|h| - 1, 0, 1),  G = m + c clamp(|h + 1| - 1, 0, 1),
                                         B = m + c clamp(|h - 1| - 1, 0, 1)

    For images [N, 3, H, W] in [0, 1] and turns [N]: 0.5 exchanges colors for their complements.
    """
    red, green, blue = _channels(images)
    least, most = torch.minimum(red, green), torch.maximum(red, green)
    torch.minimum(least, blue, out=least)
    torch.maximum(most, blue, out=most)
    chroma = (most - least).clamp_(min=_LEAST_CHROMA)
    distance = (green + blue).sub_(red).add_(most).sub_(least, alpha=2).copysign_(green - blue)
    hue = torch.addcdiv(_per_image(turn), distance, chroma, value=_SIXTH)  # in turns
    hue.sub_(hue.round())
    shifts = constant((0.0, _SIXTH, -_SIXTH), images.device, images.dtype)[:, None, None]
    amount = torch.add(hue, shifts, out=images).abs_().sub_(_SIXTH).clamp_(0, _SIXTH)
    signs = constant((-6.0, 6.0, 6.0), images.device, images.dtype)[:, None, None]
    is_red = constant((1, 0, 0), images.device, torch.bool)[:, None, None]
    return torch.where(is_red, most, least).addcmul_(amount.mul_(signs), chroma)


def to_grayscale(images: Tensor) -> Tensor:
    """Replace all channels by luma: [N, 3, H, W] -> [N, 3, H, W]."""
    return images.copy_(luma(images))


_Adjust = Callable[[Tensor, Tensor], Tensor]  # images and a number for each
_ADJUST: tuple[_Adjust, ...] = (
    adjust_brightness,
    adjust_contrast,
    adjust_saturation,
    adjust_hue,
)


@dataclass(frozen=True)
class ColorJitter:
    """Brightness, contrast, saturation and hue, each by a random amount, in random order.

    Factors are uniform in [1 - a, 1 + a] (not below 0), turns of the hue in [-a, a]; an amount of 0
    leaves the operation out. Every image has its own factors; the order is drawn once for a batch.

    Args:
        brightness: Amount a.
        contrast: Amount a.
        saturation: Amount a; needs three channels.
        hue: Amount a, at most 0.5; needs three channels.
        probability: Of touching an image at all.
        adjust: What is done to the pixels, in the order of the amounts.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    probability: float = 1.0
    adjust: tuple[_Adjust, ...] = field(default=_ADJUST, kw_only=True, repr=False, compare=False)

    def compiled(self) -> ColorJitter:
        """The same by torch.compile."""
        return replace(self, adjust=tuple(compiled(adjust) for adjust in self.adjust))

    def __call__(self, images: Tensor, *, generator: Random) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        rows = chosen_rows(len(images), self.probability, generator=generator)
        amounts = (self.brightness, self.contrast, self.saturation, self.hue)
        ranges = (*((max(0.0, 1 - a), 1 + a) for a in amounts[:3]), (-self.hue, self.hue))
        order = [k for k in permutation(len(amounts), generator=generator) if amounts[k]]
        drawn = uniform_each(len(images), [ranges[k] for k in order], generator=generator)
        factors = drawn[:, rows].to(images.device, non_blocking=True)

        def change(chosen: Tensor) -> Tensor:
            for k, factor in zip(order, factors, strict=True):
                chosen = self.adjust[k](chosen, factor)
            return chosen

        return change_rows(images, rows, change)


@dataclass(frozen=True)
class RandomGrayscale(RandomApply):
    """Take the color out of some images; arguments as `RandomApply`."""

    change: Change = field(default=to_grayscale, kw_only=True, repr=False, compare=False)


def _per_image(values: Tensor) -> Tensor:
    return values[:, None, None, None]


def _channels(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    if images.shape[1] != 3:
        raise InputError(
            "color operations need color images",
            received=f"{images.shape[1]} channels",
            expected="3",
            fix="use the preset grayscale for one channel, bands for others",
        )
    return images[:, 0:1], images[:, 1:2], images[:, 2:3]
