"""Augmentations: batched, on the device, one set of parameters per image."""

from falcon_ssl.views.geometry import RandomAffine, warp_affine
from falcon_ssl.views.intensity import RandomIntensity, RandomNoise
from falcon_ssl.views.pipeline import Normalisation, Operation, Views
from falcon_ssl.views.presets import build_views, digits_views

__all__ = [
    "Normalisation",
    "Operation",
    "RandomAffine",
    "RandomIntensity",
    "RandomNoise",
    "Views",
    "build_views",
    "digits_views",
    "warp_affine",
]
