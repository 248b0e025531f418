"""Random resized crops with flips."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from falcon_ssl.core.checks import check_at_least
from falcon_ssl.core.constants import pixel_centers
from falcon_ssl.core.errors import InputError
from falcon_ssl.views.draw import Random, uniform
from falcon_ssl.views.separable import apply_separable, resize_matrix

_TRIES = 10
_FEW_COLUMNS = 64  # up to here a CPU multiplies by a matrix faster than it gathers neighbors


def draw_boxes(
    count: int,
    *,
    height: int,
    width: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    generator: Random,
) -> Tensor:
    """Draw N = ``count`` boxes of random area, shape and place inside an image.

    The fraction of the area is uniform in ``scale``, width / height log-uniform in ``ratio``, the
    place uniform. Boxes that do not fit are drawn again, up to ten times, then cut to fit: the
    usual distribution (Szegedy et al. 2015), here with boxes that need not be aligned to pixels.

    Returns:
        float32 [N, 4] on the CPU: top, left, height, width, in pixels.
    """
    area = uniform(count, *scale, generator=generator, tries=_TRIES) * (height * width)
    log_low, log_high = math.log(ratio[0]), math.log(ratio[1])
    aspect = uniform(count, log_low, log_high, generator=generator, tries=_TRIES).exp_()
    box_width, box_height = (area * aspect).sqrt_(), (area / aspect).sqrt_()
    fits = (box_width <= width) & (box_height <= height)
    first = fits.long().argmax(dim=1, keepdim=True)  # 0 when none fits
    box_width = box_width.gather(1, first).flatten().clamp_(max=width)
    box_height = box_height.gather(1, first).flatten().clamp_(max=height)
    top = uniform(count, 0, 1, generator=generator) * (height - box_height)
    left = uniform(count, 0, 1, generator=generator) * (width - box_width)
    return torch.stack([top, left, box_height, box_width], dim=1)


def resized_crop(images: Tensor, boxes: Tensor, *, flip: Tensor, size: int) -> Tensor:
    """Cut a box out of every image, mirror it or not, and resize it to a square, antialiased.

    Where no box is larger than the result there is nothing to antialias, and mixing neighbors
    gives the same numbers as the matrices do, faster.

    Args:
        images: [N, C, H, W], floating point.
        boxes: [N, 4] on the CPU: top, left, height, width, in pixels.
        flip: bool [N] on the CPU, mirror left and right.
        size: Side of the result.

    Returns:
        [N, C, size, size].
    """
    top, left, height, width = boxes.unbind(dim=1)
    start = torch.where(flip, left + width, left)
    length = torch.where(flip, -width, width)
    starts, lengths = torch.stack([top, start]), torch.stack([height, length])
    device, sides = images.device, images.shape[2:]
    if boxes[:, 2:].max() <= size:
        if device.type == "cpu" and sides[1] <= _FEW_COLUMNS:
            down, right = torch.addcmul(
                starts[:, :, None], lengths[:, :, None], pixel_centers(size, device) / size
            )
            return _mix_columns(_mix_rows(images, down), right)
        return _mix_neighbors(images, starts, lengths, size=size)
    starts, lengths = torch.stack([starts, lengths]).to(device, non_blocking=True)
    if sides[0] == sides[1]:  # the matrices of rows and columns together
        matrices = resize_matrix(starts.flatten(), lengths.flatten(), inputs=sides[0], outputs=size)
        rows, columns = matrices.chunk(2)
    else:
        rows, columns = (
            resize_matrix(start, length, inputs=inputs, outputs=size)
            for start, length, inputs in zip(starts, lengths, sides, strict=True)
        )
    return apply_separable(images, rows, columns)


def _mix_neighbors(images: Tensor, starts: Tensor, lengths: Tensor, *, size: int) -> Tensor:
    """Bilinear interpolation at the centers of the pixels of every box; outside, the pixel at the edge.

    ``starts`` and ``lengths`` [2, N] on the CPU are those of the rows and of the columns, in pixels; negative for a
    flip.
    """
    # grid_sample counts from -1 to 1 along a side.
    unit = 2 / torch.tensor(images.shape[2:])[:, None]
    line = torch.stack([starts * unit - 1, lengths * unit / size])
    start, step = line.to(images.device, non_blocking=True)[..., None]
    down, right = torch.addcmul(start, step, pixel_centers(size, images.device))
    shape = (-1, size, size)
    grid = torch.stack([right[:, None, :].expand(shape), down[:, :, None].expand(shape)], dim=3)
    return F.grid_sample(images, grid.to(images.dtype), padding_mode="border", align_corners=False)


def _mix_rows(images: Tensor, down: Tensor) -> Tensor:
    """Rows at the heights ``down`` [N, h], by mixing the two rows next to each: [N, C, h, W]."""
    count, channels, height, width = images.shape
    place = (down - 0.5).clamp_(0, height - 1)
    above = place.long()
    below = (above + 1).clamp_(max=height - 1)
    amount = place.sub_(above)[:, None, :, None]
    planes = torch.arange(0, count * channels * height, height).view(count, channels, 1)
    rows, shape = images.reshape(-1, width), (count, channels, -1, width)
    mixed = rows.index_select(0, (planes + above[:, None]).flatten()).view(shape)
    other = rows.index_select(0, (planes + below[:, None]).flatten()).view(shape)
    return torch.lerp(mixed, other, amount, out=mixed)


def _mix_columns(images: Tensor, right: Tensor) -> Tensor:
    """Columns at the places ``right`` [N, w], as a product with mostly empty matrices."""
    count, channels, height, width = images.shape
    place = (right - 0.5).clamp_(0, width - 1)[:, None, :]
    weights = (place - torch.arange(width)[:, None]).abs_().neg_().add_(1).clamp_(min=0)
    return torch.bmm(images.view(count, -1, width), weights).view(count, channels, height, -1)


def resize(images: Tensor, *, size: int) -> Tensor:
    """Resize whole images to squares, antialiased: [N, C, H, W] -> [N, C, size, size]."""
    height, width = images.shape[2:]
    rows, columns = (
        resize_matrix(images.new_zeros(1), images.new_full((1,), side), inputs=side, outputs=size)
        for side in (height, width)
    )
    for_all = (len(images), -1, -1)
    return apply_separable(images, rows.expand(for_all), columns.expand(for_all))


@dataclass(frozen=True)
class RandomResizedCrop:
    """A random box of every image, resized to a square, mirrored with some probability.

    Args:
        size: Side of the result, in pixels.
        scale: Smallest and largest fraction of the image's area.
        ratio: Smallest and largest width / height.
        flip: Probability of mirroring left and right.

    Raises:
        InputError: A size below 1, or fractions out of order or outside (0, 1].
    """

    size: int
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5

    def __post_init__(self) -> None:
        check_at_least("size of the views", self.size, 1, fix="try 32 or 224")
        low, high = self.scale
        if not 0 < low <= high <= 1:
            raise InputError(
                "views.scale is out of range",
                received=list(self.scale),
                expected="0 < low <= high <= 1",
                fix="try [0.08,1.0]",
            )

    def __call__(self, images: Tensor, *, generator: Random) -> Tensor:
        """[N, C, H, W] -> [N, C, size, size]."""
        boxes = draw_boxes(
            len(images),
            height=images.shape[2],
            width=images.shape[3],
            scale=self.scale,
            ratio=self.ratio,
            generator=generator,
        )
        flip = uniform(len(images), 0, 1, generator=generator) < self.flip
        return resized_crop(images, boxes, flip=flip, size=self.size)


@dataclass(frozen=True)
class RandomCrop:
    """A random square of every image at the image's own resolution, mirrored with some probability.

    Args:
        size: Side of the result, in pixels; in `__call__`, at most that of the images.
        flip: Probability of mirroring left and right.

    Raises:
        InputError: A size below 1, or images that are smaller.
    """

    size: int
    flip: float = 0.5

    def __post_init__(self) -> None:
        check_at_least("size of the views", self.size, 1, fix="try 16 or 96")

    def __call__(self, images: Tensor, *, generator: Random) -> Tensor:
        """[N, C, H, W] -> [N, C, size, size]."""
        count, sides = len(images), images.shape[2:]
        if min(sides) < self.size:
            raise InputError(
                "patches are larger than the images",
                received=f"patches of {self.size} pixels, images of {sides[1]} x {sides[0]}",
                expected="views.size and views.small_size up to the side of the images",
            )
        # Whole pixels: nothing is interpolated. A draw of exactly 1 would be one place too far.
        starts = [
            (uniform(count, 0, 1, generator=generator) * (side - self.size + 1))
            .floor_()
            .clamp_(max=side - self.size)
            for side in sides
        ]
        side_N = torch.full((count,), float(self.size))
        flip = uniform(count, 0, 1, generator=generator) < self.flip
        boxes = torch.stack([*starts, side_N, side_N], dim=1)
        return resized_crop(images, boxes, flip=flip, size=self.size)


@dataclass(frozen=True)
class RandomShift:
    """The whole image at one size, shifted by whole pixels, reflected at its borders, mirrored with some probability.

    Objects stay as large as they are, which crops that are resized magnify.

    Args:
        size: Side of the result, in pixels.
        shift: Largest shift either way, as a fraction of that, below 1.
        flip: Probability of mirroring left and right.
    """

    size: int
    shift: float = 1 / 8
    flip: float = 0.5

    def __call__(self, images: Tensor, *, generator: Random) -> Tensor:
        """[N, C, H, W] -> [N, C, size, size]."""
        if images.shape[2:] != (self.size, self.size):
            images = resize(images, size=self.size)
        by = round(self.shift * self.size)
        padded = F.pad(images, (by, by, by, by), mode="reflect")
        return RandomCrop(self.size, flip=self.flip)(padded, generator=generator)
