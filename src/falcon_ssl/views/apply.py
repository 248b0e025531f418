"""A change of some images of a batch, by chance and without parameters."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from torch import Tensor

from falcon_ssl.views.compiled import compiled
from falcon_ssl.views.draw import Change, Random, change_rows, chosen_rows


@dataclass(frozen=True)
class RandomApply:
    """Change some images.

    Args:
        probability: Of touching an image.
        change: What is done to the pixels.
    """

    probability: float
    change: Change = field(kw_only=True, repr=False, compare=False)

    def compiled(self) -> RandomApply:
        """The same by torch.compile."""
        return replace(self, change=compiled(self.change))

    def __call__(self, images: Tensor, *, generator: Random) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        rows = chosen_rows(len(images), self.probability, generator=generator)
        return change_rows(images, rows, self.change)
