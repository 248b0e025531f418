"""The baseline of whitened patches and k-means: what it computes, and that it beats an untrained network on digits."""

from __future__ import annotations

import pytest
import torch

from falcon_ssl import Features, InputError
from falcon_ssl.data import load_splits
from falcon_ssl.evaluation.knn import knn
from falcon_ssl.networks.patch_kmeans import PatchKMeans


@pytest.fixture(scope="module")
def photos() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    blobs = torch.rand(40, 3, 6, 6, generator=generator)
    return torch.nn.functional.interpolate(blobs, size=16, mode="bilinear")


def test_features_are_the_triangle_of_distances_pooled(photos: torch.Tensor) -> None:
    baseline = PatchKMeans(num_centers=7, patch_size=5, stride=3, grid=2).fit(photos)
    z = baseline(photos[:2])
    assert z.shape == (2, baseline.width) == (2, 28)
    by_loops = torch.zeros(2, 7, 4, 4)
    for n in range(2):
        for y in range(4):
            for x in range(4):
                p = photos[n, :, 3 * y : 3 * y + 5, 3 * x : 3 * x + 5].flatten()
                p = (p - p.mean()) / (p.var() + 10 / 255**2).sqrt()
                white = baseline.whitening_PP @ (p - baseline.mean_P)
                d = (white - baseline.centers_KP).norm(dim=1)
                by_loops[n, :, y, x] = (d.mean() - d).clamp(min=0)
    quarters = [
        by_loops[:, :, y : y + 2, x : x + 2].mean(dim=(2, 3)) for y in (0, 2) for x in (0, 2)
    ]
    torch.testing.assert_close(z, torch.stack(quarters, dim=1).flatten(1), rtol=1e-4, atol=1e-5)


def test_whitened_patches_are_white(photos: torch.Tensor) -> None:
    baseline = PatchKMeans(num_centers=4, patch_size=3).fit(photos)
    p = baseline._patches(photos)[0].flatten(0, 1)
    covariance = torch.cov(((p - baseline.mean_P) @ baseline.whitening_PP).T)
    assert torch.linalg.eigvalsh(covariance).max() <= 1.01
    assert torch.linalg.eigvalsh(torch.cov(p.T)).max() > 2  # a control: patches are not white


def test_the_same_seed_gives_the_same_centers(photos: torch.Tensor) -> None:
    first, again, other = (
        PatchKMeans(num_centers=9).fit(photos, seed=seed).centers_KP for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_it_says_when_it_was_not_fitted_or_cannot_be(photos: torch.Tensor) -> None:
    assert PatchKMeans()(photos[:1]).isnan().all()
    with pytest.raises(
        InputError, match="too few patches to learn from: received 121 patches of 1"
    ):
        PatchKMeans(num_centers=400).fit(photos[:1])
    with pytest.raises(InputError, match="stride is too small"):
        PatchKMeans(stride=0)


def test_it_reads_digits() -> None:
    splits = load_splits("digits")
    assert splits.test is not None
    images = [s.images(torch.arange(len(s))).float() / 255 for s in (splits.train, splits.test)]
    baseline = PatchKMeans(1, num_centers=50, patch_size=3).fit(images[0])
    train, test = (
        Features(z=baseline(x), label=s.labels)
        for x, s in zip(images, (splits.train, splits.test), strict=True)
    )
    assert knn(train, test, num_classes=10)["top1_knn"] > 0.95
