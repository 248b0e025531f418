"""Whole pipelines: presets, repeatability, normalization, refusals, the contact sheet."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from falcon_ssl.config import ViewsConfig
from falcon_ssl.core.errors import InputError
from falcon_ssl.views import (
    BatchSlice,
    ColorJitter,
    Normalization,
    RandomResizedCrop,
    RandomShift,
    Views,
    build_views,
    contact_sheet,
    multi_crop,
    supervised_views,
    two_view,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(channels: int = 3, side: int = 32, count: int = 6) -> torch.Tensor:
    return torch.randint(
        0, 256, (count, channels, side, side), dtype=torch.uint8, generator=generator(9)
    )


PRESETS = [("cifar", 3, 32, 32), ("imagenet", 3, 48, 224), ("grayscale", 1, 28, 28)]
PRESETS += [("digits", 1, 8, 8)]


@pytest.mark.parametrize(("preset", "channels", "side", "size"), PRESETS)
def test_presets_give_two_different_repeatable_views(preset, channels, side, size):
    views, batch = build_views(preset), images(channels, side)
    before = batch.clone()
    drawn, again = views(batch, generator=generator()), views(batch, generator=generator())
    assert len(drawn) == views.num_views == 2
    for view, repeated in zip(drawn, again, strict=True):
        assert view.shape == (6, channels, size, size)
        assert view.dtype == torch.float32
        assert torch.equal(view, repeated)
    assert not torch.equal(*drawn)
    assert torch.equal(batch, before)


@pytest.mark.parametrize(("preset", "channels", "side", "size"), PRESETS)
def test_evaluation_is_normalization_and_size_only(preset, channels, side, size):
    views, batch = build_views(preset), images(channels, side)
    evaluated = views.evaluate(batch)
    assert evaluated.shape == (6, channels, size, size)
    if side == size:
        mean = torch.tensor(views.normalization.mean)[:, None, None]
        std = torch.tensor(views.normalization.std)[:, None, None]
        torch.testing.assert_close(evaluated, (batch / 255 - mean) / std)


def test_resuming_the_generator_continues_bit_for_bit():
    views, batch, random = build_views("cifar"), images(), generator()
    views(batch, generator=random)
    state = random.get_state()
    expected = views(batch, generator=random)
    restored = generator(123)
    restored.set_state(state)
    for view, other in zip(expected, views(batch, generator=restored), strict=True):
        assert torch.equal(view, other)


def test_symmetric_views_are_drawn_alike():
    views = build_views(ViewsConfig("imagenet", size=32, symmetric=True))
    assert views.operations[0] == views.operations[1]
    asymmetric = build_views(ViewsConfig("imagenet", size=32))
    assert asymmetric.operations[0] != asymmetric.operations[1]


def test_multi_crop_has_large_views_first():
    views = build_views(ViewsConfig("imagenet", size=64, scale=(0.4, 1.0), small_views=3))
    shapes = [view.shape[-1] for view in views(images(side=48), generator=generator())]
    assert shapes == [64, 64, 24, 24, 24]
    assert views.operations[2][0] == RandomResizedCrop(24, scale=(0.05, 0.4))
    chosen = build_views(ViewsConfig("cifar", small_views=1, small_size=16))
    assert chosen(images(), generator=generator())[2].shape[-1] == 16


def test_views_can_be_composed_by_hand():
    large, small = [RandomResizedCrop(16)], [RandomResizedCrop(8), ColorJitter(brightness=0.2)]
    views = Views(
        multi_crop(two_view(large), small, count=2), normalization=Normalization((0.5,), (0.5,))
    )
    shapes = [view.shape[-1] for view in views(images(), generator=generator())]
    assert shapes == [16, 16, 8, 8]


def test_mean_brightness_of_a_flat_image_survives():
    flat = torch.full((512, 3, 32, 32), 128, dtype=torch.uint8)
    view = build_views("cifar")(flat, generator=generator())[0]
    pixels = view * torch.tensor([0.2470, 0.2435, 0.2616])[:, None, None]
    pixels += torch.tensor([0.4914, 0.4822, 0.4465])[:, None, None]
    # Brightness alone moves it: factors uniform in 0.6..1.4 for 80 %: standard error 0.5 * .21 / 22.
    assert pixels.mean() == pytest.approx(128 / 255, abs=0.02)


def test_unknown_preset_lists_the_known_ones():
    with pytest.raises(InputError, match="cifar, imagenet, grayscale, bands, digits"):
        build_views("cifar11")


@pytest.mark.parametrize(
    "options",
    [
        {"size": 16},
        {"scale": (0.2, 1)},
        {"symmetric": True},
        {"small_views": 2},
        {"evaluate_size": 16},
    ],
)
def test_digits_take_no_crops(options):
    with pytest.raises(InputError, match="do not take the option"):
        build_views(ViewsConfig("digits", **options))


def test_images_are_judged_at_a_size_of_their_own():
    views = build_views(ViewsConfig("cifar", size=24, evaluate_size=32))
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    view1, _ = views(images, generator=torch.Generator().manual_seed(0))
    assert view1.shape == (2, 3, 24, 24)
    assert torch.equal(views.evaluate(images), build_views("cifar").evaluate(images))
    assert build_views(ViewsConfig("cifar", size=24)).evaluate(images).shape == (2, 3, 24, 24)
    with pytest.raises(InputError, match="evaluate_size"):
        build_views(ViewsConfig("cifar", evaluate_size=0))


@pytest.mark.parametrize("options", [{"small_views": -1}, {"small_size": 12}])
def test_small_views_must_make_sense(options):
    with pytest.raises(InputError, match=r"views\.small_(views is too small|size does nothing)"):
        build_views(ViewsConfig("cifar", **options))


@pytest.mark.parametrize(
    "batch",
    [
        torch.rand(2, 3, 32, 32),
        torch.full((2, 3, 32, 32), float("nan")),
        torch.zeros(3, 32, 32, dtype=torch.uint8),
        torch.zeros(0, 3, 32, 32, dtype=torch.uint8),
    ],
)
def test_only_batches_of_bytes_are_taken(batch):
    for call in (lambda v: v(batch, generator=generator()), lambda v: v.evaluate(batch)):
        with pytest.raises(InputError, match="do not fit the views"):
            call(build_views("cifar"))


def test_gray_images_in_color_views_are_refused():
    with pytest.raises(InputError, match="grayscale"):
        build_views("cifar").evaluate(images(channels=1))
    with pytest.raises(InputError, match="grayscale"):
        build_views("cifar")(images(channels=1), generator=generator())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_device_and_cpu_draw_the_same_views():
    views, batch = build_views(ViewsConfig("imagenet", size=32)), images()
    for there, here in zip(
        views(batch.cuda(), generator=generator()),
        views(batch, generator=generator()),
        strict=True,
    ):
        torch.testing.assert_close(there.cpu(), here, atol=1e-3, rtol=0)


@pytest.mark.parametrize(("height", "width"), [(10, 40), (40, 10), (300, 100), (1, 200)])
def test_contact_sheet_keeps_proportions(height, width):
    black = torch.zeros(1, 3, height, width, dtype=torch.uint8)
    sheet = np.asarray(contact_sheet(black, build_views(ViewsConfig("cifar", size=8)), cell=64))
    first = sheet[20:84, 4:68]  # below the caption, beside the margin
    rows, columns = np.nonzero((first == 0).all(-1))
    shown = (np.ptp(rows) + 1, np.ptp(columns) + 1)
    longest = max(height, width)
    assert shown == (max(1, round(64 * height / longest)), max(1, round(64 * width / longest)))
    assert abs(rows.min() - (63 - rows.max())) <= 1, "in the middle of its cell"
    assert abs(columns.min() - (63 - columns.max())) <= 1


def test_contact_sheet_shows_images_beside_views():
    sheet = contact_sheet(
        images(count=3), build_views(ViewsConfig("cifar", small_views=1)), cell=64
    )
    assert sheet.mode == "RGB"
    assert sheet.size == (4 * 68 + 4, 3 * 68 + 4 + 16)
    gray = contact_sheet(images(channels=1, side=8, count=2), build_views("digits"))
    assert len({gray.getpixel((x, 40)) for x in range(4, 100)}) > 4


@pytest.mark.parametrize("preset", ["digits", "grayscale", "cifar", "imagenet", "bands"])
def test_an_image_gets_the_same_views_on_any_number_of_ranks(preset):
    channels = {"digits": 1, "grayscale": 1, "bands": 5}.get(preset, 3)
    views, batch = build_views(preset), images(count=10, channels=channels, side=32)
    whole = views(batch, generator=generator())
    for cuts in ([0, 5, 10], [0, 3, 4, 10]):
        parts = [
            views(batch[a:b], generator=BatchSlice(generator(), first=a, total=10))
            for a, b in pairwise(cuts)
        ]
        for view, shared in zip(whole, zip(*parts, strict=True), strict=True):
            # Bit for bit, but where the largest box of a share decides how its crops are computed.
            atol = 1e-5 if preset == "grayscale" else 0
            torch.testing.assert_close(view, torch.cat(shared), atol=atol, rtol=0)
    apart = views(batch[5:], generator=generator())
    assert not torch.allclose(whole[0][5:], apart[0], atol=1e-2), "each rank drawing its own"


def test_views_grow_over_the_training():
    views, batch = (
        build_views(ViewsConfig("cifar", size=24, start_size=14, evaluate_size=32)),
        images(),
    )
    assert views.evaluate(batch).shape[2:] == (32, 32)
    sizes = [
        [view.shape[3] for view in views.at(progress)(batch, generator=generator())]
        for progress in (0.0, 0.24, 0.25, 0.5, 0.74, 0.75, 1.0)
    ]
    assert sizes == [[side] * 2 for side in (14, 14, 18, 22, 22, 24, 24)]
    assert build_views("cifar").at(0.0).size == 32  # no growth unless asked for


@pytest.mark.parametrize("start_size", [0, 24, 32])
def test_views_that_cannot_grow_are_refused(start_size):
    with pytest.raises(InputError, match="start_size"):
        build_views(ViewsConfig("cifar", size=24, start_size=start_size))


def test_bands_of_sixteen_bits_are_viewed_as_those_of_eight():
    batch = images(channels=5, side=24)
    deep = (batch.int() * 257).to(torch.uint16)
    views = build_views(ViewsConfig("bands", size=16, mean=(0.1,) * 5, std=(0.5,) * 5))
    for eight, sixteen in zip(
        views(batch, generator=generator()), views(deep, generator=generator()), strict=True
    ):
        torch.testing.assert_close(eight, sixteen)
        assert eight.shape == (len(batch), 5, 16, 16)
    torch.testing.assert_close(views.evaluate(batch), views.evaluate(deep))
    assert contact_sheet(deep, views).mode == "RGB"


def test_statistics_of_another_number_of_channels_are_refused():
    with pytest.raises(InputError, match="made for other images"):
        build_views(ViewsConfig("bands", size=16, mean=(0.1, 0.2))).evaluate(images(channels=5))


@pytest.mark.parametrize(("evaluate_size", "seen"), [(32, 32), (None, 24)])
def test_views_for_labels(evaluate_size, seen):
    """Shifts have the side of the evaluation, crops that of the pretraining."""
    config = ViewsConfig("cifar", size=24, evaluate_size=evaluate_size)
    batch = images(channels=3, side=32)
    for smallest, side in ((None, seen), (0.35, 24)):
        views = supervised_views(config, build_views(config), smallest)
        assert [view.shape[2:] for view in views(batch, generator=generator())] == [(side, side)]
        assert views.evaluate(batch).shape[2:] == (seen, seen)


def test_a_shift_magnifies_nothing():
    """Every column of the result is one of the image, beside the same neighbors, up to the border."""
    ramp = torch.arange(32.0).expand(64, 1, 32, 32)
    shifted = RandomShift(32, flip=0.0)(ramp, generator=generator())
    by = shifted[:, 0, 16, 16] - 16
    assert set(by.tolist()) == set(range(-4, 5))
    torch.testing.assert_close(shifted[:, 0, :, 8:24], ramp[:, 0, :, 8:24] + by[:, None, None])
    assert RandomShift(16)(ramp, generator=generator()).shape[2:] == (16, 16)


@pytest.mark.parametrize(
    ("mean", "std"),
    [((0.5,), (0.0,)), ((0.5,), (-1.0,)), ((float("nan"),), (1.0,)), ((0.5,), (float("inf"),))],
)
def test_numbers_that_cannot_normalize_are_refused(mean, std):
    with pytest.raises(InputError, match="cannot be normalized"):
        Normalization(mean, std)


@pytest.mark.parametrize(("mean", "std"), [((0.5,) * 3, (0.2,)), ((0.5,), (0.2,) * 3)])
def test_one_number_or_one_a_channel(mean, std):
    normalization = Normalization(mean, std)
    assert torch.allclose(normalization(torch.full((1, 3, 2, 2), 0.7)), torch.ones(1))
    with pytest.raises(InputError, match="received 4 channels, expected 3"):
        normalization(torch.zeros(1, 4, 2, 2))
