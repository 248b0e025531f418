"""The encoder whitened_cnn: what its stem learns from images, and how it travels through a run."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import unfold

from falcon_ssl import commands
from falcon_ssl.commands.loading import load_run, prepare
from falcon_ssl.config import from_mapping
from falcon_ssl.core.errors import InputError
from falcon_ssl.networks import WhitenedCNN, build_encoder, copy_fitted, fit_to_images
from falcon_ssl.networks.whitened import WhitenedStem

DIGITS = {
    "data": "digits",
    "epochs": 1,
    "encoder": {"name": "whitened_cnn", "width": 8},
    "views": {"preset": "grayscale", "size": 28, "scale": [0.5, 1.0]},
    "monitor": {"every_epochs": 0},
}


def images(count: int = 64, channels: int = 3, side: int = 32) -> Tensor:
    """Smooth noise, so that neighboring pixels are correlated."""
    noise = torch.randn(
        count, channels, side, side, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    return nn.functional.avg_pool2d(noise, 5, stride=1, padding=2).float()


@pytest.fixture
def stem() -> WhitenedStem:
    stem = WhitenedStem(3, patch_size=6, eigenvectors=48)
    stem.fit_images(images())
    return stem


def test_leading_responses_are_white(stem):
    p_MP = unfold(images(), 6, stride=2).transpose(1, 2).flatten(0, 1)
    kept = stem.width // 2
    a_KP = stem.weight[:kept].flatten(1)
    x_MK = p_MP @ a_KP.T + stem.bias[:kept]
    variance = torch.cov(x_MK.T.double())
    # e / (e + floor) <= 1, and 1 for eigenvalues far above the floor.
    assert (variance.diagonal()[:5] - 1).abs().max() < 0.01
    assert (variance - torch.diag(variance.diagonal())).abs().max() < 1e-3
    assert x_MK.mean(dim=0).abs().max() < 1e-3


def test_both_signs(stem):
    kept = stem.width // 2
    torch.testing.assert_close(stem.weight[:kept], -stem.weight[kept:])
    torch.testing.assert_close(stem.bias[:kept], -stem.bias[kept:])


def test_a_stem_that_was_not_fitted_gives_no_numbers():
    assert WhitenedCNN(3, width=8)(images(2)).isnan().all()


def test_fewer_pixels_than_eigenvectors():
    stem = WhitenedStem(1, patch_size=6, eigenvectors=48)
    assert stem.width == 2 * 6**2
    stem.fit_images(images(channels=1))
    assert stem(images(2, channels=1)).isfinite().all()


@pytest.mark.parametrize(
    ("side", "stages", "patch_size"), [(24, 2, 6), (48, 3, 6), (96, 4, 6), (48, 2, 12), (96, 3, 12)]
)
def test_two_by_two_places_and_four_times_the_width(side, stages, patch_size):
    encoder = build_encoder(
        "whitened_cnn", in_channels=3, width=16, stages=stages, patch_size=patch_size
    )
    maps = encoder.maps(torch.zeros(2, 3, side, side))
    assert len(maps) == stages + 1
    assert maps[1].shape[1] == 16
    assert maps[-1].shape[1:] == (64, 2, 2)


def test_widths_of_every_stage_and_eigenvectors():
    encoder = build_encoder("whitened_cnn", in_channels=3, widths=[24, 40], eigenvectors=10)
    assert [one.shape[1] for one in encoder.maps(torch.zeros(1, 3, 24, 24))] == [20, 24, 40]
    with pytest.raises(InputError, match="one way to say it"):
        build_encoder("whitened_cnn", in_channels=3, widths=[24, 40], width=8)
    with pytest.raises(InputError, match="number of entries"):
        build_encoder("whitened_cnn", in_channels=3, widths=[24])


def test_a_head_is_one_more_map_of_the_same_places():
    encoder = build_encoder("whitened_cnn", in_channels=3, widths=[24, 40], head_width=16)
    maps = encoder.maps(torch.zeros(1, 3, 24, 24))
    assert [tuple(one.shape[1:]) for one in maps[-2:]] == [(40, 2, 2), (16, 2, 2)]
    assert encoder(torch.zeros(3, 3, 24, 24)).shape == (3, 16)


def test_the_least_side_is_the_least():
    encoder = WhitenedCNN(3, width=8)
    assert encoder(torch.zeros(2, 3, 20, 20)).shape == (2, 32)
    with pytest.raises(InputError, match=r"too small.*19 x 20.*>= 20"):
        encoder(torch.zeros(2, 3, 20, 19))


def test_teachers_are_fitted_too_and_images_are_read_once():
    encoder = WhitenedCNN(3, width=8)
    both, calls = nn.ModuleList([encoder, copy.deepcopy(encoder)]), []
    fit_to_images(both, lambda: calls.append(1) or images())
    assert len(calls) == 1
    torch.testing.assert_close(both[0].stem.weight, both[1].stem.weight)
    fit_to_images(nn.Linear(2, 2), lambda: calls.append(1) or images())
    assert len(calls) == 1, "nothing is read for a network without such a layer"


def test_the_fitted_layer_alone_is_copied():
    trained, fresh = WhitenedCNN(3, width=8), WhitenedCNN(3, width=8)
    trained.stem.fit_images(images())
    before = fresh.stages[0][0].weight.clone()
    copy_fitted(fresh, trained)
    assert torch.equal(fresh.stem.weight, trained.stem.weight)
    assert torch.equal(fresh.stages[0][0].weight, before)


def test_too_few_patches():
    with pytest.raises(InputError, match="number of patches"):
        WhitenedStem(3, patch_size=6, eigenvectors=48).fit_images(images(1, side=12))


def test_a_patch_size_that_has_no_third():
    with pytest.raises(InputError, match=r"patch_size does not fit.*multiple of 3"):
        WhitenedCNN(3, patch_size=8)


@pytest.mark.parametrize("method", ["falcon", "dino"])
def test_a_run_fits_its_stem_once_and_keeps_it(tmp_path: Path, method):
    config = from_mapping(DIGITS | {"method": method})
    begun = prepare(config)
    assert begun.method.evaluated_encoder.stem.weight.isfinite().all()
    run = commands.pretrain(config, out=tmp_path / "run")
    kept = load_run(run).method.evaluated_encoder.stem
    assert torch.equal(kept.weight, begun.method.evaluated_encoder.stem.weight)
    found = commands.evaluate(run)
    assert found["random_encoder"]["top1_linear"] > 0.5
