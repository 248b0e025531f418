"""Named augmentation set-ups."""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle, islice
from typing import Literal, NamedTuple

from falcon_ssl.config.run import ViewsConfig
from falcon_ssl.core.checks import check_choice
from falcon_ssl.core.errors import InputError
from falcon_ssl.core.parts import is_part, make_part_of
from falcon_ssl.views.affine import RandomAffine
from falcon_ssl.views.color import ColorJitter, RandomGrayscale
from falcon_ssl.views.crop import RandomCrop, RandomResizedCrop, RandomShift
from falcon_ssl.views.filters import RandomBlur, RandomNoise, RandomSolarize
from falcon_ssl.views.pipeline import Normalization, Operation, Views

View = list[Operation]
Role = Literal["first", "second", "symmetric", "small"]
Scale = tuple[float, float] | None  # fractions of the image's area; None keeps its resolution

CIFAR_STATISTICS = Normalization((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
IMAGENET_STATISTICS = Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
DIGITS_STATISTICS = Normalization((0.3,), (0.38,))
GRAYSCALE_STATISTICS = Normalization((0.5,), (0.25,))

SMALL_SCALE = (0.05, 0.4)  # fraction of the image that a small crop shows (DINO)


def two_view(view1: View, view2: View | None = None) -> list[View]:
    """Two views: symmetric, drawn alike, or asymmetric when a second pipeline is given."""
    return [view1, view1 if view2 is None else view2]


def multi_crop(large: list[View], small: View, *, count: int) -> list[View]:
    """Large views first, then ``count`` small ones, all drawn alike."""
    return [*large, *[small] * count]


def build_views(config: ViewsConfig | str) -> Views:
    """Build the views of a configuration.

    Args:
        config: See `ViewsConfig`; options that are None are the preset's own. The name of a preset
            stands for its defaults: "cifar", "imagenet", "grayscale", "bands" or "digits".

    Raises:
        InputError: An unknown name, an option that the preset does not take, or values that make
            no view.

    Example:
        >>> build_views(ViewsConfig("imagenet", small_views=6)).num_views
        8
    """
    if isinstance(config, str):
        config = ViewsConfig(config)
    if is_part(config.preset):
        return _own_views(config)
    check_choice("views", config.preset, (*_CROPPING, "digits"))
    if config.preset == "digits":
        if options := [name for name in config.changed() if name not in ("preset", "count")]:
            raise InputError(
                f"the views digits do not take the option {options[0]}",
                received=f"{options[0]}={getattr(config, options[0])}",
                expected="no such option: they keep the size of the images",
            )
        return digits_views(config.count)
    cropping = _CROPPING[config.preset]
    size = config.size or cropping.size
    if config.patches and config.scale is not None:
        raise InputError(
            "patches have no scale",
            received=f"views.patches with views.scale={list(config.scale)}",
            expected="one of the two",
        )
    scale = None if config.patches else config.scale or cropping.scale
    # About 3/7 of the large side, as 96 of 224: a multiple of 8, which patches and strides divide.
    small_size = config.small_size or max(8, 8 * round(size * 3 / 7 / 8))
    small = cropping.view(small_size, None if config.patches else SMALL_SCALE, "small")
    roles: tuple[Role, ...] = ("symmetric",) if config.symmetric else ("first", "second")

    normalization = Normalization(
        config.mean or cropping.normalization.mean, config.std or cropping.normalization.std
    )

    def views_of(side: int, earlier: list[Views]) -> Views:
        large = [cropping.view(side, scale, role) for role in islice(cycle(roles), config.count)]
        return Views(
            multi_crop(large, small, count=config.small_views),
            normalization=normalization,
            size=side,
            evaluate_size=config.evaluate_size,
            earlier=earlier,
        )

    start_size = size if config.start_size is None else config.start_size
    if config.start_size is not None and start_size >= size:
        raise InputError(
            "views.start_size does not fit",
            received=f"start_size={start_size}, size={size}",
            expected="1 <= start_size < size",
        )
    return views_of(size, [views_of(side, []) for side in range(start_size, size, 4)])


def _own_views(config: ViewsConfig) -> Views:
    """What a function of the user's returns; `ViewsConfig` has nothing to say about it."""
    if options := [name for name in config.changed() if name != "preset"]:
        raise InputError(
            f"views of your own do not take the option {options[0]}",
            received=f"views.{options[0]}={getattr(config, options[0])}",
            expected="no such option: the function that makes them decides",
        )
    return make_part_of(
        Views,
        "views",
        config.preset,
        returned="views",
        expected="falcon_ssl.views.Views, whose operations may be an ImageTransform of any transform",
    )


def supervised_views(config: ViewsConfig, views: Views, smallest: float | None) -> Views:
    """One view of every image for training with labels, and a flip where mirrored images have one class.

    Args:
        config: Of the pretraining.
        views: Built from it; normalization and the side that images are evaluated at stay.
        smallest: Fraction of the image in the smallest crop, which has the side of the pretraining's large views: where
            that is smaller than the side of evaluation, objects are as large in crops as in whole images (Touvron et
            al., 2019, arXiv 1906.06423). None shifts the whole image, by an eighth of its side at most.
    """
    size, evaluated = views.size or views.evaluate_size, views.evaluate_size
    if size is None or evaluated is None:
        return Views(views.operations[:1], normalization=views.normalization)
    flip = 0.0 if config.preset == "grayscale" else 0.5
    view: Operation
    if smallest is None:
        size, view = evaluated, RandomShift(evaluated, flip=flip)
    else:
        view = RandomResizedCrop(size, scale=(smallest, 1.0), flip=flip)
    return Views([[view]], normalization=views.normalization, size=size, evaluate_size=evaluated)


def digits_views(count: int = 2) -> Views:
    """Views for small handwritten digits: no flips, since a mirrored digit is another sign."""
    view: View = [
        RandomAffine(degrees=15, scale=(0.85, 1.15), shift=0.1),
        ColorJitter(brightness=0.3),
        RandomNoise(0.05),
    ]
    return Views([view] * count, normalization=DIGITS_STATISTICS)


def _crop(size: int, scale: Scale, *, flip: float = 0.5) -> Operation:
    """A crop that is resized, or a patch that is not."""
    if scale is None:
        return RandomCrop(size, flip=flip)
    return RandomResizedCrop(size, scale=scale, flip=flip)


def cifar_view(size: int, scale: Scale, role: Role) -> View:
    """Crop, flip, color jitter, grayscale; the second view is solarized at times; no blur."""
    return [
        _crop(size, scale),
        ColorJitter(brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1, probability=0.8),
        RandomGrayscale(0.2),
        RandomSolarize(0.2 if role == "second" else 0.0),
    ]


def imagenet_view(size: int, scale: Scale, role: Role) -> View:
    """The same with blur (BYOL)."""
    blur = {"first": 1.0, "second": 0.1, "symmetric": 0.5, "small": 0.5}[role]
    *before, solarize = cifar_view(size, scale, role)
    return [*before, RandomBlur(blur), solarize]


def grayscale_view(size: int, scale: Scale, role: Role) -> View:
    """Crop, rotation, brightness and contrast, blur, noise; no flips: letters and bodies have sides."""
    blur = {"first": 0.5, "second": 0.1, "symmetric": 0.3, "small": 0.3}[role]
    return [
        _crop(size, scale, flip=0.0),
        RandomAffine(degrees=10, scale=(1.0, 1.0), shift=0.0),
        ColorJitter(brightness=0.4, contrast=0.4, probability=0.8),
        RandomBlur(blur),
        RandomNoise(0.02),
    ]


def bands_view(size: int, scale: Scale, role: Role) -> View:
    """For any number of channels: crop, flip, brightness and contrast of all channels alike, blur, noise.

    Saturation, hue and grayscale have no meaning without the three colors; solarization none for measured values.
    """
    blur = {"first": 0.5, "second": 0.1, "symmetric": 0.3, "small": 0.3}[role]
    return [
        _crop(size, scale),
        ColorJitter(brightness=0.4, contrast=0.4, probability=0.8),
        RandomBlur(blur),
        RandomNoise(0.02),
    ]


class _Cropping(NamedTuple):
    view: Callable[[int, Scale, Role], View]
    normalization: Normalization
    size: int
    scale: tuple[float, float]


_CROPPING = {
    "cifar": _Cropping(cifar_view, CIFAR_STATISTICS, 32, (0.08, 1.0)),
    "imagenet": _Cropping(imagenet_view, IMAGENET_STATISTICS, 224, (0.08, 1.0)),
    "grayscale": _Cropping(grayscale_view, GRAYSCALE_STATISTICS, 28, (0.2, 1.0)),
    "bands": _Cropping(bands_view, GRAYSCALE_STATISTICS, 64, (0.2, 1.0)),
}
