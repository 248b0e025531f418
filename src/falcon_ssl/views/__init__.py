"""Augmentations: batched, on the device, one set of parameters per image."""

from falcon_ssl.views.affine import RandomAffine, warp_affine
from falcon_ssl.views.color import (
    ColorJitter,
    RandomGrayscale,
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
    to_grayscale,
)
from falcon_ssl.views.contact_sheet import captioned_sheet, contact_sheet
from falcon_ssl.views.crop import RandomCrop, RandomResizedCrop, RandomShift, resize, resized_crop
from falcon_ssl.views.draw import BatchSlice
from falcon_ssl.views.filters import (
    RandomBlur,
    RandomNoise,
    RandomSolarize,
    gaussian_blur,
    solarize,
)
from falcon_ssl.views.pipeline import Normalization, Operation, Views
from falcon_ssl.views.presets import build_views, multi_crop, supervised_views, two_view
from falcon_ssl.views.transform import ImageTransform

__all__ = [
    "BatchSlice",
    "ColorJitter",
    "ImageTransform",
    "Normalization",
    "Operation",
    "RandomAffine",
    "RandomBlur",
    "RandomCrop",
    "RandomGrayscale",
    "RandomNoise",
    "RandomResizedCrop",
    "RandomShift",
    "RandomSolarize",
    "Views",
    "adjust_brightness",
    "adjust_contrast",
    "adjust_hue",
    "adjust_saturation",
    "build_views",
    "captioned_sheet",
    "contact_sheet",
    "gaussian_blur",
    "multi_crop",
    "resize",
    "resized_crop",
    "solarize",
    "supervised_views",
    "to_grayscale",
    "two_view",
    "warp_affine",
]
