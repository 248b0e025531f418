"""Layers that learn from images before training, without a gradient: who has one, and how all are served."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from torch import Tensor, nn


@runtime_checkable
class FitsImages(Protocol):
    """A module with a layer that is fitted to images before training, as `WhitenedStem`."""

    def fit_images(self, images: Tensor, /) -> object:
        """Learn from normalized images [N, C, H, W]."""


def fit_to_images(network: nn.Module, images: Callable[[], Tensor]) -> None:
    """Fit what needs it inside a network, a teacher's copy too.

    Args:
        network: Any; most have nothing to fit, and then nothing is read.
        images: Called once where there is something to fit: normalized images [N, C, H, W].
    """
    layers = [layer for layer in network.modules() if isinstance(layer, FitsImages)]
    if layers:
        seen = images()
        for layer in layers:
            layer.fit_images(seen)


def copy_fitted(network: nn.Module, source: nn.Module) -> None:
    """Give a network of the same kind what the layers of ``source`` were fitted to."""
    names = [name for name, layer in source.named_modules() if isinstance(layer, FitsImages)]
    for name in names:
        network.get_submodule(name).load_state_dict(source.get_submodule(name).state_dict())
