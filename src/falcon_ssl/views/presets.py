"""Named augmentation set-ups."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from falcon_ssl.core.checks import check_at_least, check_choice
from falcon_ssl.core.errors import InputError
from falcon_ssl.views.affine import RandomAffine
from falcon_ssl.views.color import ColorJitter, RandomGreyscale
from falcon_ssl.views.crop import RandomResizedCrop
from falcon_ssl.views.filters import RandomBlur, RandomNoise, RandomSolarize
from falcon_ssl.views.pipeline import Normalisation, Operation, Views

View = list[Operation]
Role = Literal["first", "second", "symmetric", "small"]

CIFAR_STATISTICS = Normalisation((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
IMAGENET_STATISTICS = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
DIGITS_STATISTICS = Normalisation((0.3,), (0.38,))
GREYSCALE_STATISTICS = Normalisation((0.5,), (0.25,))

SMALL_SCALE = (0.05, 0.4)  # share of the image that a small crop shows (DINO)


def two_view(view1: View, view2: View | None = None) -> list[View]:
    """Two views: symmetric, drawn alike, or asymmetric when a second pipeline is given."""
    return [view1, view1 if view2 is None else view2]


def multi_crop(large: list[View], small: View, *, count: int) -> list[View]:
    """Large views first, then ``count`` small ones, all drawn alike."""
    return [*large, *[small] * count]


def build_views(
    preset: str,
    *,
    size: int | None = None,
    start_size: int | None = None,
    scale: tuple[float, float] | None = None,
    symmetric: bool = False,
    small_views: int = 0,
    small_size: int | None = None,
    evaluate_size: int | None = None,
) -> Views:
    """Build the views of a preset; None leaves an option at the preset's own value.

    Args:
        preset: "cifar", "imagenet", "greyscale" or "digits".
        size: Side of the large views. The preset digits keeps the size of the images.
        start_size: Side of the large views when training begins: see `Views.at`. They grow to
            ``size`` by 4 pixels at a time, each size for an equal share of the training.
        scale: Smallest and largest share of the image that a large crop shows.
        symmetric: Draw both large views alike, instead of solarising (and, for imagenet, blurring)
            one more than the other.
        small_views: Number k of small crops after the two large ones.
        small_size: Side of the small crops; about 3/7 of ``size``, a multiple of 8 that patches
            and strides divide, when not given.
        evaluate_size: Side at which images are judged and embedded; that of the large views when
            not given. Crops magnify: views of 3/4 of the images' side, judged at the full side,
            show objects at one size and cost half (Touvron et al. 2019).

    Raises:
        InputError: An unknown name, an option that the preset does not take, or values that make
            no view.

    Example:
        >>> build_views("imagenet", small_views=6).num_views
        8
    """
    check_choice("views", preset, ("cifar", "imagenet", "greyscale", "digits"))
    if preset == "digits":
        _refuse(
            preset,
            {
                "size": size,
                "start_size": start_size,
                "scale": scale,
                "symmetric": symmetric,
                "small_views": small_views,
                "small_size": small_size,
                "evaluate_size": evaluate_size,
            },
        )
        return digits_views()
    if small_views < 0 or (small_views == 0 and small_size is not None):
        raise InputError(
            "the small views do not fit together",
            received=f"small_views={small_views}, small_size={small_size}",
            expected="small_views >= 0, and small_size only when there are some",
            fix="correct them",
        )
    if evaluate_size is not None:
        check_at_least("views.evaluate_size", evaluate_size, 1, fix="leave it out")
    cropping = _CROPPING[preset]
    size = size or cropping.size
    small_size = small_size or max(8, 8 * round(size * 3 / 7 / 8))
    scale = scale or cropping.scale
    small = cropping.view(small_size, SMALL_SCALE, "small")
    roles: tuple[Role, Role] = ("symmetric", "symmetric") if symmetric else ("first", "second")

    def views_of(side: int, earlier: list[Views]) -> Views:
        large = two_view(*(cropping.view(side, scale, role) for role in roles))
        return Views(
            multi_crop(large, small, count=small_views),
            normalisation=cropping.normalisation,
            size=side,
            evaluate_size=evaluate_size,
            earlier=earlier,
        )

    return views_of(size, [views_of(side, []) for side in _growing(start_size, size)])


def _growing(start_size: int | None, size: int) -> list[int]:
    """Sides of the views before they have their full size."""
    if start_size is None:
        return []
    if not 1 <= start_size < size:
        raise InputError(
            "views.start_size does not fit",
            received=f"start_size={start_size}, size={size}",
            expected="1 <= start_size < size",
            fix="leave it out, or lower it",
        )
    return list(range(start_size, size, 4))


def digits_views() -> Views:
    """Two views for small handwritten digits: no flips, since a mirrored digit is another sign."""
    view: View = [
        RandomAffine(degrees=15, scale=(0.85, 1.15), shift=0.1),
        ColorJitter(brightness=0.3),
        RandomNoise(0.05),
    ]
    return Views(two_view(view), normalisation=DIGITS_STATISTICS)


def cifar_view(size: int, scale: tuple[float, float], role: Role) -> View:
    """Crop, flip, colour jitter, greyscale; the second view is solarised at times; no blur."""
    return [
        RandomResizedCrop(size, scale=scale),
        ColorJitter(brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1, probability=0.8),
        RandomGreyscale(0.2),
        RandomSolarize(0.2 if role == "second" else 0.0),
    ]


def imagenet_view(size: int, scale: tuple[float, float], role: Role) -> View:
    """Crop, flip, colour jitter, greyscale, blur; the second view is solarised at times (BYOL)."""
    blur = {"first": 1.0, "second": 0.1, "symmetric": 0.5, "small": 0.5}[role]
    return [
        RandomResizedCrop(size, scale=scale),
        ColorJitter(brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1, probability=0.8),
        RandomGreyscale(0.2),
        RandomBlur(blur),
        RandomSolarize(0.2 if role == "second" else 0.0),
    ]


def greyscale_view(size: int, scale: tuple[float, float], role: Role) -> View:
    """Crop, rotation, brightness and contrast, blur, noise; no flips: letters and bodies have sides."""
    blur = {"first": 0.5, "second": 0.1, "symmetric": 0.3, "small": 0.3}[role]
    return [
        RandomResizedCrop(size, scale=scale, flip=0.0),
        RandomAffine(degrees=10, scale=(1.0, 1.0), shift=0.0),
        ColorJitter(brightness=0.4, contrast=0.4, probability=0.8),
        RandomBlur(blur),
        RandomNoise(0.02),
    ]


@dataclass(frozen=True)
class _Cropping:
    view: Callable[[int, tuple[float, float], Role], View]
    normalisation: Normalisation
    size: int
    scale: tuple[float, float]


_CROPPING = {
    "cifar": _Cropping(cifar_view, CIFAR_STATISTICS, 32, (0.08, 1.0)),
    "imagenet": _Cropping(imagenet_view, IMAGENET_STATISTICS, 224, (0.08, 1.0)),
    "greyscale": _Cropping(greyscale_view, GREYSCALE_STATISTICS, 28, (0.2, 1.0)),
}


def _refuse(preset: str, options: Mapping[str, object]) -> None:
    for option, value in options.items():
        if value:
            raise InputError(
                f"the views {preset} do not take the option {option}",
                received=f"{option}={value}",
                expected="no such option: they keep the size of the images",
                fix="leave it out",
            )
