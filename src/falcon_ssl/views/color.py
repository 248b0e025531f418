"""Operations on colour: what Pillow's enhancers do, for a whole batch, one factor per image.

The functions may write to their argument: pass a tensor that nobody else needs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from falcon_ssl.checks import InputError
from falcon_ssl.views.draw import Random, permutation, uniform
from falcon_ssl.views.rows import change_rows, chosen_rows

_LUMA = (0.299, 0.587, 0.114)
_OWN_HUES = (0.0, 2.0, -2.0)  # of red, green, blue, in sixths of a turn
_GREY = 1e-8  # chroma below which a pixel has no hue


def luma(images: Tensor) -> Tensor:
    """Brightness as the eye sees it, 0.299 R + 0.587 G + 0.114 B: [N, 3, H, W] -> [N, 1, H, W]."""
    red, green, blue = _channels(images)
    return (red * _LUMA[0]).add_(green, alpha=_LUMA[1]).add_(blue, alpha=_LUMA[2])


def adjust_brightness(images: Tensor, factor: Tensor) -> Tensor:
    """x <- clamp(f x), for images [N, C, H, W] in [0, 1] and factors [N]."""
    return images.mul_(_per_image(factor)).clamp_(0, 1)


def adjust_contrast(images: Tensor, factor: Tensor) -> Tensor:
    """x <- clamp(m + f (x - m)), m = mean luma of the image; [N, C, H, W] in [0, 1], [N]."""
    channel_means = images.mean(dim=(2, 3))
    mean = channel_means
    if images.shape[1] == 3:
        mean = (channel_means * channel_means.new_tensor(_LUMA)).sum(dim=1, keepdim=True)
    offset = (1 - factor)[:, None] * mean
    return images.mul_(_per_image(factor)).add_(offset[:, :, None, None]).clamp_(0, 1)


def adjust_saturation(images: Tensor, factor: Tensor) -> Tensor:
    """x <- clamp(l + f (x - l)), l = luma of the pixel; [N, 3, H, W] in [0, 1], [N]."""
    grey = luma(images).mul_(_per_image(1 - factor))
    return images.mul_(_per_image(factor)).add_(grey).clamp_(0, 1)


def adjust_hue(images: Tensor, turn: Tensor) -> Tensor:
    """Turn the hue of HSV, keeping saturation and value.

    With m = min, c = max - m, hues in sixths of a turn (red 0, green 2, blue -2) and the
    hue's distance d from red, found without cases from q = (R - m) / c and w = |G - B| / c:

        h = sign(G - B) d,    d = 2 - q - (1 - w) sign(q - 1/2)

    (R largest: q = 1, d = w. R smallest: q = 0, d = 3 - w. In between: w = 1, d = 2 - q.)
    Channel n of the result, with h' the turned hue in [-3, 3] and h_n the channel's own:

        m + c clamp(||h' - h_n| - 3| - 1, 0, 1)

    Args:
        images: [N, 3, H, W] in [0, 1].
        turn: [N], in turns: 0.5 exchanges colours for their complements.
    """
    red, green, blue = _channels(images)
    least = images.amin(dim=1, keepdim=True)
    chroma = images.amax(dim=1, keepdim=True).sub_(least)
    scale = chroma.clamp(min=_GREY).reciprocal_()
    side = green - blue
    q = (red - least).mul_(scale)
    towards_red = (q - 0.5).sign_()
    one_minus_w = side.abs().mul_(scale).neg_().add_(1)
    d = q.neg_().add_(2).sub_(one_minus_w.mul_(towards_red))
    hue = torch.copysign(d, side).add_(_per_image(6 * turn))
    hue.sub_((hue / 6).round_(), alpha=6)
    own_hue = images.new_tensor(_OWN_HUES)[:, None, None]
    amount = (hue - own_hue).abs_().sub_(3).abs_().sub_(1).clamp_(0, 1)
    return torch.addcmul(least, amount, chroma, out=images)


def to_greyscale(images: Tensor) -> Tensor:
    """Replace all channels by luma: [N, 3, H, W] -> [N, 3, H, W]."""
    return images.copy_(luma(images))


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
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    probability: float = 1.0

    def __call__(self, images: Tensor, *, generator: Random) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        rows = chosen_rows(len(images), self.probability, generator=generator)
        amounts = (self.brightness, self.contrast, self.saturation, self.hue)
        functions = (adjust_brightness, adjust_contrast, adjust_saturation, adjust_hue)
        centres = (1.0, 1.0, 1.0, 0.0)
        changes = []
        for index in permutation(len(amounts), generator=generator):
            amount, centre = amounts[index], centres[index]
            if amount == 0:
                continue
            low = max(0.0, centre - amount) if centre else -amount
            drawn = uniform(len(images), low, centre + amount, generator=generator)[rows]
            changes.append((functions[index], drawn.to(images.device, non_blocking=True)))

        def change(chosen: Tensor) -> Tensor:
            for function, drawn in changes:
                chosen = function(chosen, drawn)
            return chosen

        return change_rows(images, rows, change)


@dataclass(frozen=True)
class RandomGreyscale:
    """Take the colour out of some images.

    Args:
        probability: Of touching an image.
    """

    probability: float

    def __call__(self, images: Tensor, *, generator: Random) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        rows = chosen_rows(len(images), self.probability, generator=generator)
        return change_rows(images, rows, to_greyscale)


def _per_image(values: Tensor) -> Tensor:
    return values[:, None, None, None]


def _channels(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    if images.shape[1] != 3:
        raise InputError(
            "colour operations need colour images",
            received=f"{images.shape[1]} channels",
            expected="3",
            fix="use the views of the preset greyscale",
        )
    red, green, blue = images[:, 0:1], images[:, 1:2], images[:, 2:3]
    return red, green, blue
