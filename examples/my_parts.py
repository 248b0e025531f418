"""Parts of your own, each made by a function or class that can be imported; own_parts.py trains with them."""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.utils.data import Dataset

from falcon_ssl.methods import Method, Parts, StepOutput
from falcon_ssl.views import ImageTransform, Normalization, Views, two_view


def encoder() -> nn.Module:
    """Images [N, 1, 8, 8] to z_ND."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, stride=2, padding=1),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
    )


class Digits(Dataset[tuple[Tensor, int]]):
    """Item i: an image [1, 8, 8] in [0, 1], and a label that only evaluation reads."""

    def __init__(self, rows: slice) -> None:
        found = load_digits()
        self.pixels, self.targets = found.images[rows], found.target[rows]

    def __len__(self) -> int:
        """N."""
        return len(self.pixels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Image and label."""
        return torch.from_numpy(self.pixels[index] / 16)[None].float(), int(self.targets[index])


def data() -> tuple[Digits, Digits]:
    """Training and test images."""
    return Digits(slice(0, 1440)), Digits(slice(1440, None))


def shifted(image: Tensor) -> Tensor:
    """[C, H, W] -> [C, H, W]; any transform of an image goes here, a ``Compose`` of torchvision too."""
    down, right = (int(shift) for shift in torch.randint(-1, 2, (2,)))
    brightness = 0.7 + 0.6 * torch.rand(())
    noise = 0.05 * torch.randn_like(image)
    return (brightness * image.roll((down, right), (1, 2)) + noise).clamp(0, 1)


def views() -> Views:
    """Two views of every image, drawn alike."""
    return Views(two_view([ImageTransform(shifted)]), normalization=Normalization((0.3,), (0.38,)))


class AlignmentUniformity(Method):
    """Views of an image close, images far apart (Wang and Isola, 2020, arXiv 2005.10242); for one process.

    loss = mean_n |u1_n - u2_n|^2 + mean over the views of log mean_{n < m} exp(-2 |u_n - u_m|^2)
    """

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.encoder, self.head = parts.encoder, nn.Linear(parts.in_dim, 64)

    def embed(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Representations z_ND and embeddings u_NF of normalized images [N, C, H, W]."""
        z_ND = self.encoder(images)
        return z_ND, normalize(self.head(z_ND), dim=1)

    def forward(self, views: list[Tensor]) -> StepOutput:
        """Loss of two views."""
        u1_NF, u2_NF = (self.embed(view)[1] for view in views)
        alignment = (u1_NF - u2_NF).square().sum(dim=1).mean()
        near = torch.stack(
            [torch.pdist(u_NF).square().mul(-2).exp().mean() for u_NF in (u1_NF, u2_NF)]
        )
        uniformity = near.log().mean()
        terms = {"alignment": alignment.detach(), "uniformity": uniformity.detach()}
        return StepOutput(alignment + uniformity, terms, u1_NF.detach())
