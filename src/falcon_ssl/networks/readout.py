"""What is read off a frozen encoder: its own representation, or maps and tokens that it has on the way.

    z = mean over views x' of x of read(x'),     x' = the crops of x at every scale, and the mirror image of each

A readout costs no training, and the untrained encoder can have the same: its width belongs beside every number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, interpolate, pad

from falcon_ssl.config.evaluation import EvaluationConfig, Representation, describe_readout
from falcon_ssl.core.errors import InputError

CELLS = {
    "pooled2x2": (2,),
    "pooled3x3": (3,),
    "last_two": (2, 2),
    "last_four": (3, 3, 2, 2),
    "last_three": (3, 3, 2),  # of the deepest, the widest and coarsest, 3 x 3 brought nothing more
}  # cells a side of the last maps
BLOCKS = 4  # of last_n: what DINO's linear evaluation reads (arXiv 2104.14294, section 4.1)
SHIFT = 16  # crops of the image padded by a sixteenth of its side


@dataclass(frozen=True)
class Readout:
    """Reads an encoder: ``readout(encoder, images)`` is z_ND in float32.

    Args:
        representation: As `EvaluationConfig` says. Maps come from ``encoder.maps(images)``, feature maps [N, C, H, W],
            shallow to deep; tokens from ``encoder.tokens(images, n)``, the last n blocks' (patch tokens, others).
        mirror: Average over the image and its mirror image.
        crops: 9 averages over a 3x3 grid of crops, as large as the image, of the image with reflected borders; the
            middle one is the image itself. 1 reads that alone.
        scales: Average over the image resized by these factors, > 0; 1 is the image as it is.
    """

    representation: Representation = "pooled"
    mirror: bool = False
    crops: int = 1
    scales: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        # A record holds a list.
        object.__setattr__(self, "scales", tuple(float(scale) for scale in self.scales))

    @classmethod
    def of(cls, config: EvaluationConfig) -> Readout:
        """The readout of a configuration."""
        return cls(config.representation, config.mirror, config.crops, config.scales)

    @property
    def is_own(self) -> bool:
        """Whether z is nothing but the encoder's own representation."""
        return self == OWN

    def __str__(self) -> str:
        return describe_readout(**asdict(self))

    def __call__(self, encoder: nn.Module, images: Tensor) -> Tensor:
        """z_ND of normalized images [N, C, H, W].

        Raises:
            InputError: The encoder does not have what is to be read.
        """
        z_VND: list[Tensor] = []
        for scale in self.scales:
            resized = _resized(images, scale)
            try:
                read = [self._read(encoder, view).float() for view in self._views(resized)]
            except AssertionError as error:  # how transformers of timm refuse a size
                raise _wrong_scale(scale, str(error)) from error
            if z_VND and read[0].shape != z_VND[0].shape:
                widths = read[0].shape[1], z_VND[0].shape[1]
                raise _wrong_scale(scale, "{} numbers an image, {} before".format(*widths))
            z_VND += read
        return torch.stack(z_VND).mean(dim=0) if len(z_VND) > 1 else z_VND[0]

    def _views(self, images: Tensor) -> Iterator[Tensor]:
        shifts = [self._shifts(side) for side in images.shape[2:]]
        (height, width), (bottom, right) = images.shape[2:], (max(shift) // 2 for shift in shifts)
        padded = pad(images, (right, right, bottom, bottom), mode="reflect") if bottom else images
        for top, left in product(*shifts):
            view = padded[:, :, top : top + height, left : left + width]
            yield from (view, view.flip(3)) if self.mirror else (view,)

    def _shifts(self, side: int) -> tuple[int, ...]:
        shift = max(1, round(side / SHIFT))
        return (0, shift, 2 * shift) if self.crops > 1 else (0,)

    def _read(self, encoder: nn.Module, images: Tensor) -> Tensor:
        if self.representation == "pooled":
            z_ND: Tensor = encoder(images)
            return z_ND
        if self.representation in CELLS:
            grids = CELLS[self.representation]
            maps = self._part("maps", encoder)(images)
            if len(maps) < len(grids):
                raise self._absent(encoder, f"{len(maps)} maps", f"at least {len(grids)} maps")
            last = zip(maps[-len(grids) :], grids, strict=True)
            return torch.cat([self._cells(encoder, one, grid) for one, grid in last], dim=1)
        count = BLOCKS if self.representation == "last_n" else 1
        blocks = self._part("tokens", encoder)(images, count)
        if self.representation == "mean":
            z_NLD: Tensor = blocks[-1][0]
            return z_NLD.mean(dim=1)
        if any(others.shape[1] == 0 for _, others in blocks):
            raise self._absent(encoder, "no class token", "a vision transformer with a class token")
        return torch.cat([others[:, 0] for _, others in blocks], dim=1)

    def _cells(self, encoder: nn.Module, x_NCHW: Tensor, grid: int) -> Tensor:
        """Means over a grid of cells [N, grid^2 C]: one matrix product, in bfloat16 too, which pooling is slow in."""
        num, channels, height, width = x_NCHW.shape
        if min(height, width) < grid:
            have, need = f"a map of {height}x{width} places", f"at least {grid}x{grid} places"
            raise self._absent(encoder, have, need)
        eye = torch.eye(height * width, device=x_NCHW.device).view(-1, 1, height, width)
        cells_GP = adaptive_avg_pool2d(eye, grid).flatten(1).T.contiguous()
        x_NPC = x_NCHW.permute(0, 2, 3, 1).reshape(num, height * width, channels)
        return (cells_GP.to(x_NPC.dtype) @ x_NPC).flatten(1)

    def _part(self, name: str, encoder: nn.Module) -> Callable[..., Any]:
        if not hasattr(encoder, name):
            needs = "feature maps" if name == "maps" else "a vision transformer from timm"
            raise self._absent(encoder, f"no {name}", needs)
        part: Callable[..., Any] = getattr(encoder, name)
        return part

    def _absent(self, encoder: nn.Module, received: str, expected: str) -> InputError:
        return InputError(
            f"the readout {self.representation} does not fit the encoder {type(encoder).__name__}",
            received=received,
            expected=expected,
            fix="choose another evaluation.representation; pooled fits every encoder",
        )


def _wrong_scale(scale: float, reason: str) -> InputError:
    if scale == 1:
        return InputError(
            "the encoder does not take images of this size",
            received=reason.rstrip("."),
            expected="a size that fits it",
            fix="choose another --reading.image_size, --views.size or --views.evaluate_size",
        )
    return InputError(
        f"the encoder does not take images of {scale:g} times the size",
        received=reason.rstrip("."),
        expected="as many numbers an image at all evaluation.scales",
        fix="choose other scales; 1 is the image as it is",
    )


def _resized(images: Tensor, scale: float) -> Tensor:
    if scale == 1:
        return images
    size = [max(1, round(side * scale)) for side in images.shape[2:]]
    # Antialiasing changes nothing of an enlarged image.
    return interpolate(images, size=size, mode="bilinear", antialias=scale < 1)


OWN = Readout()
