"""The baseline that every table holds beside the untrained encoder: features learned without a gradient.

Coates, Ng, Lee: An Analysis of Single-Layer Networks in Unsupervised Feature Learning (AISTATS 2011).

    p    patches of S x S pixels, each minus its mean and divided by sqrt(variance + 10/255^2)
    x    = A (p - mean),  A = V (E + 0.1)^(-1/2) V^T       ZCA whitening, covariance of p = V E V^T
    d_k  = |x - c_k|                                       c: K centers of k-means
    f_k  = max(0, mean_k d_k - d_k)                        "triangle"
    z    = mean of f over each cell of a grid of G x G     [G G K]
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, normalize, unfold

from falcon_ssl.core.checks import check_at_least
from falcon_ssl.core.errors import InputError

CONTRAST = 10 / 255**2  # added to the variance of a patch
WHITENING = 0.1  # added to the eigenvalues
LEARNED_FROM = 200_000  # patches
STEPS = 10  # of k-means


class PatchKMeans(nn.Module):
    """K centers of whitened patches and a pooled triangle activation; call `fit` first.

    Args:
        in_channels: Channels of the images.
        num_centers: K.
        patch_size: S, in pixels.
        stride: Pixels between two patches.
        grid: G; the representation has G * G * K numbers.
        dtype: In which products with the centers are multiplied; bfloat16 halves their time where the hardware has it.

    Raises:
        InputError: A size below 1.
    """

    mean_P: Tensor
    whitening_PP: Tensor
    centers_KP: Tensor

    def __init__(
        self,
        in_channels: int = 3,
        *,
        num_centers: int = 400,
        patch_size: int = 6,
        stride: int = 1,
        grid: int = 2,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        sizes = {
            "num_centers": num_centers,
            "patch_size": patch_size,
            "stride": stride,
            "grid": grid,
        }
        for name, size in sizes.items():
            check_at_least(name, size, 1, fix="raise it")
        self.patch_size, self.stride, self.grid, self.dtype = patch_size, stride, grid, dtype
        num_pixels = in_channels * patch_size**2
        self.register_buffer("mean_P", torch.zeros(num_pixels))
        self.register_buffer("whitening_PP", torch.eye(num_pixels))
        # NaN until they are learned: features of a baseline that was never fitted must not look like numbers.
        self.register_buffer("centers_KP", torch.full((num_centers, num_pixels), torch.nan))

    @property
    def width(self) -> int:
        """Numbers of the representation, G * G * K."""
        return self.grid**2 * len(self.centers_KP)

    @torch.no_grad()
    def fit(self, images: Tensor, *, seed: int = 0) -> PatchKMeans:
        """Learn whitening and centers.

        Args:
            images: [N, C, H, W] floating, in [0, 1].
            seed: Of the patches drawn and of the first centers.

        Raises:
            InputError: Fewer patches than centers.
        """
        generator = torch.Generator().manual_seed(seed)
        p_MP = self._drawn_patches(images, generator)
        if len(p_MP) < len(self.centers_KP):
            raise InputError(
                "too few patches to learn from",
                received=f"{len(p_MP)} patches of {len(images)} images",
                expected=f">= num_centers = {len(self.centers_KP)}",
                fix="use more images, a smaller stride or fewer centers",
            )
        self.mean_P = p_MP.mean(dim=0)
        covariance_PP = torch.cov(p_MP.T)
        eigenvalue_P, v_PP = torch.linalg.eigh(covariance_PP)
        self.whitening_PP = (v_PP * (eigenvalue_P.clamp(min=0) + WHITENING).rsqrt()) @ v_PP.T
        x_MP = (p_MP - self.mean_P) @ self.whitening_PP
        self.centers_KP = self._kmeans(x_MP, generator)
        return self

    def forward(self, images: Tensor) -> Tensor:
        """z [B, G G K] of images [B, C, H, W] in [0, 1]."""
        p_BLP, rows = self._patches(images)
        x_BLP = (p_BLP - self.mean_P) @ self.whitening_PP
        # Means over cells as a product; the entries of a cell sum to 1.
        places = torch.eye(x_BLP.shape[1], device=images.device).view(x_BLP.shape[1], 1, rows, -1)
        cells_GL = adaptive_avg_pool2d(places, self.grid).flatten(1).T.contiguous()
        # On a processor image by image: an [L, K] that stays in the cache makes this 4 times faster.
        size = 1 if images.device.type == "cpu" else len(images)
        z_BGK = [cells_GL @ self._triangle(some_BLP) for some_BLP in torch.split(x_BLP, size)]
        return torch.cat(z_BGK).flatten(1)

    def _triangle(self, x_BLP: Tensor) -> Tensor:
        """f [B, L, K] of whitened patches."""
        c_KP = self.centers_KP
        product_BLK = x_BLP.to(self.dtype) @ c_KP.T.to(self.dtype)
        square_BLK = x_BLP.square().sum(dim=2, keepdim=True) + c_KP.square().sum(dim=1)
        d_BLK = torch.sub(square_BLK, product_BLK, alpha=2).clamp_(min=0).sqrt_()
        return (d_BLK.mean(dim=2, keepdim=True) - d_BLK).relu_()

    def embed(self, images: Tensor) -> tuple[Tensor, None]:
        """Representations, and no embedding: what `falcon_ssl.evaluation.extract` asks for."""
        return self(images), None

    def _patches(self, images: Tensor) -> tuple[Tensor, int]:
        """Normalized patches [B, L, P] and how many of the L lie below each other."""
        p_BPL = unfold(images, self.patch_size, stride=self.stride)
        p_BLP = p_BPL.transpose(1, 2).contiguous()
        mean = p_BLP.mean(dim=2, keepdim=True)
        p_BLP -= mean
        variance = p_BLP.square().sum(dim=2, keepdim=True) / (p_BLP.shape[2] - 1)
        rows = (images.shape[2] - self.patch_size) // self.stride + 1
        return p_BLP.mul_((variance + CONTRAST).rsqrt()), rows

    def _drawn_patches(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """At most `LEARNED_FROM` patches [M, P], as many of every image that is looked at."""
        per_image = len(self._patches(images[:1])[0][0])
        kept = min(per_image, max(1, LEARNED_FROM // len(images)))
        rows_N = torch.randperm(len(images), generator=generator)[: LEARNED_FROM // kept]
        parts = []
        for batch in torch.split(rows_N, 1000):
            p_BLP, _ = self._patches(images[batch])
            places_BL = torch.rand(len(batch), per_image, generator=generator).argsort(dim=1)
            index = places_BL[:, :kept, None].expand(-1, -1, p_BLP.shape[2])
            parts.append(p_BLP.gather(1, index).flatten(0, 1))
        return torch.cat(parts)

    def _kmeans(self, x_MP: Tensor, generator: torch.Generator) -> Tensor:
        """Centers [K, P]; the first are spherical k-means directions, which no patch of low contrast attracts."""
        num_centers = len(self.centers_KP)
        drawn = torch.randperm(len(x_MP), generator=generator)
        c_KP = normalize(x_MP[drawn[:num_centers]], dim=1)
        for step in range(STEPS):
            cosine_M, nearest_M = (x_MP.to(self.dtype) @ c_KP.T.to(self.dtype)).float().max(dim=1)
            last = step == STEPS - 1
            weight_M1 = torch.ones_like(cosine_M)[:, None] if last else cosine_M[:, None]
            sum_KP = torch.zeros_like(c_KP).index_add_(0, nearest_M, x_MP * weight_M1)
            count_K1 = torch.bincount(nearest_M, minlength=num_centers)[:, None]
            mean_KP = sum_KP / count_K1.clamp(min=1)
            # A center without patches starts again from one of them.
            fresh_KP = x_MP[torch.randperm(len(x_MP), generator=generator)[:num_centers]]
            c_KP = torch.where(count_K1 > 0, mean_KP, fresh_KP)
            c_KP = c_KP if last else normalize(c_KP, dim=1)
        return c_KP
