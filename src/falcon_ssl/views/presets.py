"""Named augmentation set-ups."""

from __future__ import annotations

from falcon_ssl.checks import check_choice
from falcon_ssl.views.geometry import RandomAffine
from falcon_ssl.views.intensity import RandomIntensity, RandomNoise
from falcon_ssl.views.pipeline import Normalisation, Operation, Views


def digits_views() -> Views:
    """Two views for small handwritten digits: no flips, since a mirrored digit is another sign."""
    view: list[Operation] = [
        RandomAffine(degrees=15, scale=(0.85, 1.15), shift=0.1),
        RandomIntensity(0.7, 1.3),
        RandomNoise(0.05),
    ]
    return Views([view, view], normalisation=Normalisation((0.3,), (0.38,)))


_PRESETS = {"digits": digits_views}


def build_views(preset: str) -> Views:
    """Build the views of a preset.

    Args:
        preset: "digits".

    Raises:
        InputError: An unknown name.
    """
    check_choice("views", preset, tuple(_PRESETS))
    return _PRESETS[preset]()
