"""A transform of single images, as torchvision has them, inside the library's views."""

from __future__ import annotations

import random
from collections.abc import Callable

import torch
from torch import Tensor

from falcon_ssl.core.errors import InputError
from falcon_ssl.views.draw import Random, uniform


class ImageTransform:
    """Apply a transform to every image; the same images at the same step of a run, also after a resume.

    For every image torch's global generator and Python's are seeded by the step's own, and left as they were.

    Args:
        transform: float32 [C, H, W] in [0, 1] -> float32 [C, H', W'], H' and W' the same for all images; for example a
            ``Compose`` of torchvision. Without normalization, which `Views` applies last.

    Example:
        >>> from falcon_ssl.views import Normalization, Views, two_view
        >>> noisy = ImageTransform(lambda image: (image + 0.1 * torch.randn_like(image)).clamp(0, 1))
        >>> views = Views(two_view([noisy]), normalization=Normalization((0.5,), (0.25,)))
        >>> images = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
        >>> len(views(images, generator=torch.Generator().manual_seed(0)))
        2
    """

    def __init__(self, transform: Callable[[Tensor], Tensor]) -> None:
        self.transform = transform

    def __call__(self, images: Tensor, *, generator: Random) -> Tensor:
        """[N, C, H, W] -> [N, C, H', W']. InputError: the transform returns no images, or several sizes."""
        seeds = uniform(len(images), 0, 2**24, generator=generator).long().tolist()
        state, changed = random.getstate(), []
        try:
            with torch.random.fork_rng(devices=[images.device] if images.is_cuda else []):
                for seed, image in zip(seeds, images, strict=True):
                    torch.manual_seed(seed)
                    random.seed(seed)
                    changed.append(self.transform(image))
        finally:
            random.setstate(state)
        shapes = {getattr(one, "shape", type(one).__name__) for one in changed}
        if len(shapes) > 1 or not isinstance(changed[0], Tensor) or changed[0].dim() != 3:
            raise InputError(
                "a transform does not return images",
                received=", ".join(
                    sorted(str(tuple(s) if isinstance(s, torch.Size) else s) for s in shapes)
                ),
                expected="a tensor [C, H', W'] of one shape for all images",
                fix="end the transform with a crop or resize to one size, and a conversion to tensor",
            )
        return torch.stack(changed)
