"""Augmentations: batched, on the device, one set of parameters per image."""

from falcon_ssl.views.affine import RandomAffine, warp_affine
from falcon_ssl.views.color import (
    ColorJitter,
    RandomGreyscale,
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
    to_greyscale,
)
from falcon_ssl.views.contact_sheet import contact_sheet
from falcon_ssl.views.crop import RandomResizedCrop, resize, resized_crop
from falcon_ssl.views.draw import Share
from falcon_ssl.views.filters import (
    RandomBlur,
    RandomNoise,
    RandomSolarize,
    gaussian_blur,
    solarize,
)
from falcon_ssl.views.pipeline import Normalisation, Operation, Views
from falcon_ssl.views.presets import build_views, multi_crop, two_view

__all__ = [
    "ColorJitter",
    "Normalisation",
    "Operation",
    "RandomAffine",
    "RandomBlur",
    "RandomGreyscale",
    "RandomNoise",
    "RandomResizedCrop",
    "RandomSolarize",
    "Share",
    "Views",
    "adjust_brightness",
    "adjust_contrast",
    "adjust_hue",
    "adjust_saturation",
    "build_views",
    "contact_sheet",
    "gaussian_blur",
    "multi_crop",
    "resize",
    "resized_crop",
    "solarize",
    "to_greyscale",
    "two_view",
    "warp_affine",
]
