"""A trained encoder as a module of its own: frozen, with its preprocessing and what is read off it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor, nn

from falcon_ssl.config.encoder import EncoderConfig
from falcon_ssl.config.run import ReadingConfig
from falcon_ssl.core.errors import InputError, one_line
from falcon_ssl.core.pixels import DTYPES
from falcon_ssl.data.decode import pixels_of
from falcon_ssl.data.encoded import decoder
from falcon_ssl.networks import Readout, build_encoder
from falcon_ssl.views import Normalization, Views

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

Image: TypeAlias = "str | Path | PILImage | Tensor"


@dataclass(frozen=True)
class Preprocessing:
    """From an image file to what the encoder is given; every export holds these values.

    Args:
        image_shape: (channels, height, width); an image of another size is resized, bicubic and antialiased, until it
            covers that, and cut around its center.
        size: Side of the square that this is then resized to, bilinear and antialiased; None leaves it.
        mean: Of the pixels in [0, 1]; one a channel, or one for all.
        std: Likewise.
        keep_16bit: Whether image files are read with 16 bits.
        value_range: Pixel values of files that stand for 0 and 1; None is the range of their type.
    """

    image_shape: tuple[int, int, int]
    size: int | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    keep_16bit: bool = False
    value_range: tuple[float, float] | None = None

    @classmethod
    def of(cls, image_shape: Sequence[int], views: Views, reading: ReadingConfig) -> Preprocessing:
        """That of a run, from the shape of its images, its views, and how it read them."""
        channels, height, width = image_shape
        size = views.evaluate_size
        return cls(
            image_shape=(channels, height, width),
            size=None if size == height == width else size,
            mean=views.normalization.mean,
            std=views.normalization.std,
            keep_16bit=reading.keep_16bit,
            value_range=reading.value_range,
        )

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Preprocessing:
        """The inverse of ``asdict``, after JSON."""
        channels, height, width = values["image_shape"]
        mean, std = tuple(values["mean"]), tuple(values["std"])
        found = values.get("value_range")
        return cls(
            (channels, height, width),
            values["size"],
            mean,
            std,
            keep_16bit=values.get("keep_16bit", False),
            value_range=None if found is None else (found[0], found[1]),
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of what the encoder is given."""
        channels, height, width = self.image_shape
        return (channels, self.size or height, self.size or width)

    def __call__(self, images: Image | Sequence[Image]) -> Tensor:
        """Read images.

        Args:
            images: One or several of: a path, a Pillow image, a tensor [C, H, W], uint8 or uint16, of ``image_shape``;
                or a batch of such, [N, C, H, W].

        Returns:
            float32 [N, C, H', W'], normalized.

        Raises:
            InputError: A file that cannot be read, or a tensor of another type or shape.
        """
        if isinstance(images, Tensor):
            rows: list[Image] = [images] if images.dim() == 3 else list(images)
        else:
            rows = list(images) if isinstance(images, (list, tuple)) else [images]  # type: ignore[list-item]
        if not rows:
            raise InputError("no images", received="an empty list", expected="at least 1")
        pixels_NCHW = torch.stack([self._pixels(row) for row in rows])
        normalization = Normalization(mean=self.mean, std=self.std)
        return Views((), normalization=normalization, size=self.size).evaluate(pixels_NCHW)

    def _pixels(self, image: Image) -> Tensor:
        """Stored pixels [C, H, W] of ``image_shape``."""
        if isinstance(image, Tensor):
            if image.dtype not in DTYPES or tuple(image.shape) != self.image_shape:
                raise InputError(
                    "a tensor is not an image as the encoder was trained on",
                    received=f"{image.dtype} of shape {tuple(image.shape)}",
                    expected=f"uint8 or uint16 of shape {self.image_shape}",
                    fix="pass paths or Pillow images, which are brought to that size",
                )
            return image
        from PIL import ImageOps

        try:
            if isinstance(image, (str, Path)):
                reading = ReadingConfig(keep_16bit=self.keep_16bit, value_range=self.value_range)
                return decoder(self.image_shape, reading)(Path(image).read_bytes())
            return pixels_of(ImageOps.exif_transpose(image), self.image_shape)
        except Exception as error:  # a broken file can make Pillow raise anything
            raise InputError(
                "cannot read an image",
                received=f"{image if isinstance(image, (str, Path)) else type(image).__name__}: "
                + one_line(error, named=True),
                expected="the path of an image file, a Pillow image, or a uint8 tensor",
            ) from error


class ReadEncoder(nn.Module):
    """An encoder and what is read off it, as one frozen network: normalized images [N, C, H, W] -> z_ND."""

    def __init__(self, encoder: nn.Module, readout: Readout) -> None:
        super().__init__()
        self.encoder, self.readout = encoder, readout
        self.requires_grad_(False).eval()

    def forward(self, pixel_values: Tensor) -> Tensor:
        """[N, C, H, W] -> z_ND."""
        return self.readout(self.encoder, pixel_values)


class FrozenEncoder(nn.Module):
    """A trained encoder: ``encoder(encoder.preprocess("cat.jpg"))`` is what a classifier reads of an image, z_ND.

    It has no gradient and stays in evaluation mode inside a network that trains.

    Args:
        network: Normalized images [N, C, H, W] to z_ND, in evaluation mode and without gradient.
        preprocess: From images to what ``network`` takes.

    Attributes:
        preprocess: A function of paths, Pillow images or tensors, see `Preprocessing`.
    """

    def __init__(self, network: nn.Module, preprocess: Preprocessing) -> None:
        super().__init__()
        self.network, self.preprocess = network, preprocess
        self.training = False

    def forward(self, images: Tensor) -> Tensor:
        """[N, C, H, W], as `preprocess` returns them -> z_ND. InputError: another type, or number of channels."""
        channels = self.preprocess.shape[0]
        if images.dim() != 4 or images.shape[1] != channels or not images.is_floating_point():
            raise InputError(
                "no images as the encoder takes them",
                received=f"{images.dtype} of shape {tuple(images.shape)}",
                expected=f"floating point [N, {channels}, H, W], normalized",
                fix="pass what encoder.preprocess returns",
            )
        weights = (*self.network.parameters(), *self.network.buffers())
        like = next((one for one in weights if one.is_floating_point()), None)
        if like is not None:
            images = images.to(like)  # its device, and .half() of a user
        with torch.no_grad():
            z_ND: Tensor = self.network(images)
        return z_ND

    def train(self, mode: bool = True) -> FrozenEncoder:
        """Nothing: it stays in evaluation mode."""
        self.training = False
        return self


def described(encoder: EncoderConfig, preprocess: Preprocessing) -> dict[str, Any]:
    """What says which network weights are of and what it is given, beside the weights in a file or folder."""
    options = {name: value for name, value in asdict(encoder).items() if value is not None}
    return {"encoder": options, "preprocessing": asdict(preprocess)}


def rebuilt(about: Mapping[str, Any], fill: Callable[[nn.Module], object]) -> ReadEncoder:
    """The network that an export describes; ``fill`` loads the weights of its encoder."""
    channels, height, _ = Preprocessing.from_mapping(about["preprocessing"]).shape
    encoder = build_encoder(in_channels=channels, image_size=height, **about["encoder"])
    fill(encoder)
    return ReadEncoder(encoder, Readout(**about["readout"]))
