"""Networks from images [N, C, H, W] to representations z_ND.

Everything that uses an encoder takes any `torch.nn.Module` of that kind; the names here are for
configurations. One that can be read in more than one way has ``maps(images)``, feature maps shallow to deep; see
`Readout`.
"""

from falcon_ssl.networks.digits import DigitsCNN
from falcon_ssl.networks.fitting import copy_fitted, fit_to_images
from falcon_ssl.networks.readout import Readout
from falcon_ssl.networks.registry import build_encoder, encoder_names, representation_width
from falcon_ssl.networks.resnet import ResNet
from falcon_ssl.networks.resnet8 import ResNet8
from falcon_ssl.networks.timm import timm_encoder
from falcon_ssl.networks.whitened import WhitenedCNN

__all__ = [
    "DigitsCNN",
    "Readout",
    "ResNet",
    "ResNet8",
    "WhitenedCNN",
    "build_encoder",
    "copy_fitted",
    "encoder_names",
    "fit_to_images",
    "representation_width",
    "timm_encoder",
]
