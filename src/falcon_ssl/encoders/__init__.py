"""Networks from images [N, C, H, W] to representations z_ND."""

from collections.abc import Callable

import torch
from torch import nn

from falcon_ssl.checks import check_choice
from falcon_ssl.encoders.digits import DigitsCNN

__all__ = ["DigitsCNN", "build_encoder", "representation_width"]

_ENCODERS: dict[str, Callable[[int], nn.Module]] = {"digits_cnn": DigitsCNN}


def build_encoder(name: str, *, in_channels: int) -> nn.Module:
    """Build an encoder by name.

    Args:
        name: "digits_cnn".
        in_channels: Channels of the images.

    Returns:
        A module mapping [N, C, H, W] to z_ND.

    Raises:
        InputError: An unknown name.
    """
    check_choice("encoder", name, tuple(_ENCODERS))
    return _ENCODERS[name](in_channels)


def representation_width(encoder: nn.Module, image_shape: tuple[int, int, int]) -> int:
    """Find D by a dry run on a blank image.

    Args:
        encoder: Maps [N, C, H, W] to z_ND.
        image_shape: (channels, height, width).
    """
    was_training = encoder.training
    parameter = next(encoder.parameters())
    encoder.eval()
    with torch.no_grad():
        z_ND = encoder(torch.zeros(1, *image_shape, device=parameter.device, dtype=parameter.dtype))
    encoder.train(was_training)
    return int(z_ND.shape[1])
