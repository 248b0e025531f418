"""Every operation against Pillow or kornia with the same parameters, and one image against many."""

import kornia
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps
from scipy.stats import ks_2samp

from falcon_ssl.config.run import ViewsConfig
from falcon_ssl.core.errors import InputError
from falcon_ssl.views import (
    ColorJitter,
    RandomAffine,
    RandomBlur,
    RandomCrop,
    RandomGrayscale,
    RandomNoise,
    RandomResizedCrop,
    RandomSolarize,
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
    build_views,
    gaussian_blur,
    resize,
    resized_crop,
    solarize,
    to_grayscale,
    warp_affine,
)
from falcon_ssl.views.crop import draw_boxes

PIXEL = 1 / 255  # Pillow computes in whole pixel values: one rounding step and a little


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pixels(count: int = 4, channels: int = 3, side: int = 32) -> torch.Tensor:
    """Random images with smooth structure, in whole pixel values, so that Pillow can hold them."""
    coarse = torch.rand(count, channels, 6, 6, generator=generator())
    fine = torch.nn.functional.interpolate(coarse, size=side, mode="bicubic").clamp(0, 1)
    return (fine * 255).round() / 255


def to_pil(image: torch.Tensor) -> Image.Image:
    return Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy())


def from_pil(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255


@pytest.mark.parametrize("size", [9, 32, 50])
def test_crop_is_pillows_resize_of_a_box(size):
    images = pixels()
    boxes = torch.tensor([[0, 0, 32, 32], [3.3, 5.1, 20.2, 11.7], [10, 2, 4, 6], [0, 31, 7, 1.0]])
    ours = resized_crop(images, boxes, flip=torch.zeros(4, dtype=torch.bool), size=size)
    for image, box, result in zip(images, boxes.tolist(), ours, strict=True):
        top, left, height, width = box
        theirs = to_pil(image).resize(
            (size, size), Image.Resampling.BILINEAR, box=(left, top, left + width, top + height)
        )
        torch.testing.assert_close(result, from_pil(theirs), atol=1.5 * PIXEL, rtol=0)


@pytest.mark.parametrize(("side", "size"), [(32, 31), (32, 32), (32, 64), (80, 80), (80, 96)])
def test_mixing_neighbors_and_matrices_give_the_same_crops(side, size):
    images = pixels(64, side=side)  # wide ones are sampled, narrow ones mixed row by row
    boxes = draw_boxes(
        64, height=side, width=side, scale=(0.1, 0.9), ratio=(0.5, 2.0), generator=generator()
    )
    boxes[0] = torch.tensor([0.0, 0, side - 1, side - 1])
    flip = torch.rand(64, generator=generator()) < 0.5
    fits = boxes[:, 2:].amax(dim=1) <= size  # with one larger box all go through the matrices
    larger = torch.tensor([[0.0, 0, 1000, 1000]])
    by_matrices = resized_crop(
        torch.cat([images, images[:1]]),
        torch.cat([boxes, larger]),
        flip=torch.cat([flip, flip[:1]]),
        size=size,
    )[:-1]
    by_mixing = resized_crop(images[fits], boxes[fits], flip=flip[fits], size=size)
    # Places are known to a few units in the last of side pixels: 80 * 2^-24 = 5e-6 each.
    torch.testing.assert_close(by_mixing, by_matrices[fits], atol=3e-5, rtol=0)


def test_jitter_of_nothing_changes_nothing():
    images = pixels()
    assert torch.equal(ColorJitter()(images.clone(), generator=generator()), images)


def test_jitter_factors_lie_in_their_ranges():
    flat = torch.full((2000, 3, 2, 2), 0.25)
    for amount, low, high in ((0.4, 0.6, 1.4), (1.5, 0.0, 2.5)):
        jitter = ColorJitter(brightness=amount)
        factor = jitter(flat.clone(), generator=generator())[:, 0, 0, 0] / 0.25
        # Of 2000 uniform draws the extremes come within 1 % of the ends (miss: 2e-9).
        assert low <= factor.min() <= low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) <= factor.max() <= high + 1e-6


def test_flip_mirrors_the_crop():
    images = pixels()
    boxes = torch.tensor([[3.3, 5.1, 20.2, 11.7]]).expand(4, 4)
    plain = resized_crop(images, boxes, flip=torch.zeros(4, dtype=torch.bool), size=16)
    flipped = resized_crop(images, boxes, flip=torch.ones(4, dtype=torch.bool), size=16)
    torch.testing.assert_close(flipped, plain.flip(3))
    assert not torch.allclose(flipped, plain, atol=0.1)


def test_resize_is_pillows():
    image = pixels(1, side=40)
    theirs = to_pil(image[0]).resize((24, 24), Image.Resampling.BILINEAR)
    torch.testing.assert_close(
        resize(image, size=24)[0], from_pil(theirs), atol=1.5 * PIXEL, rtol=0
    )


@pytest.mark.parametrize(
    ("ours", "enhancer"),
    [
        (adjust_brightness, ImageEnhance.Brightness),
        (adjust_contrast, ImageEnhance.Contrast),
        (adjust_saturation, ImageEnhance.Color),
    ],
)
def test_color_adjustments_are_pillows(ours, enhancer):
    images = pixels()
    factors = torch.tensor([0.2, 0.8, 1.0, 1.7])
    for image, factor, result in zip(images, factors, ours(images.clone(), factors), strict=True):
        theirs = enhancer(to_pil(image)).enhance(float(factor))
        # Pillow rounds the gray value first: the step is stretched by |1 - factor| <= 0.8.
        torch.testing.assert_close(result, from_pil(theirs), atol=2 * PIXEL, rtol=0)


@settings(deadline=None, max_examples=25)
@given(st.floats(-0.5, 0.5), st.integers(0, 1000))
def test_hue_is_kornias(turn, seed):
    images = torch.rand(2, 3, 8, 8, generator=generator(seed))
    theirs = kornia.enhance.adjust_hue(images, torch.full((2,), turn * 2 * torch.pi))
    ours = adjust_hue(images.clone(), torch.full((2,), turn))
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


def test_hue_of_pure_and_gray_colors():
    red, green, blue, gray = *torch.eye(3).tolist(), [0.4, 0.4, 0.4]
    colors = torch.tensor([red, green, blue, gray])[:, :, None, None]
    third = torch.full((4,), 1 / 3)
    turned = adjust_hue(colors.clone(), third).flatten(1)
    torch.testing.assert_close(turned, torch.tensor([green, blue, red, gray]))
    same = adjust_hue(colors.clone(), torch.zeros(4))
    torch.testing.assert_close(same, colors)


def test_grayscale_is_kornias():
    images = pixels()
    theirs = kornia.color.rgb_to_grayscale(images).expand(-1, 3, -1, -1)
    torch.testing.assert_close(to_grayscale(images.clone()), theirs)


def test_solarize_is_pillows():
    images = pixels()
    for image, result in zip(images, solarize(images), strict=True):
        theirs = ImageOps.solarize(to_pil(image), threshold=128)
        torch.testing.assert_close(result, from_pil(theirs))


def test_blur_is_kornias_away_from_the_border():
    images = pixels()
    sigma = torch.tensor([0.3, 0.8, 1.5, 2.0])
    theirs = kornia.filters.gaussian_blur2d(images, (21, 21), sigma[:, None].expand(4, 2))
    ours = gaussian_blur(images, sigma)
    inside = (..., slice(10, -10), slice(10, -10))
    torch.testing.assert_close(ours[inside], theirs[inside], atol=1e-5, rtol=0)


def test_blur_keeps_flat_images_flat():
    flat = torch.full((2, 1, 12, 12), 0.7)
    torch.testing.assert_close(gaussian_blur(flat.clone(), torch.tensor([0.01, 5.0])), flat)


def test_affine_turns_clockwise_and_shifts_right_and_down():
    image = torch.zeros(1, 1, 9, 9)
    image[0, 0, 4, 8] = 1  # right of the center
    turned = warp_affine(
        image, angle=torch.tensor([90.0]), scale=torch.ones(1), shift=torch.zeros(1, 2)
    )
    assert turned[0, 0].argmax() == 8 * 9 + 4  # below the center
    moved = warp_affine(
        image, angle=torch.zeros(1), scale=torch.ones(1), shift=torch.tensor([[-2.0, 3.0]])
    )
    assert moved[0, 0].argmax() == 7 * 9 + 6
    reduced = warp_affine(
        image, angle=torch.zeros(1), scale=torch.tensor([0.5]), shift=torch.zeros(1, 2)
    )
    assert reduced[0, 0].argmax() == 4 * 9 + 6


@pytest.mark.parametrize(("height", "width"), [(8, 8), (28, 28), (40, 24), (2, 7)])
def test_affine_is_kornias(height, width):
    angle, scale = torch.tensor([0.0, 15, -180, 77]), torch.tensor([1.0, 0.85, 1.15, 2])
    shift = torch.tensor([[0.0, 0], [2, -1.5], [-0.3, 0.8], [5, 5]])
    images = torch.rand(4, 3, height, width, generator=generator())
    center = torch.tensor([(width - 1) / 2, (height - 1) / 2]).expand(4, 2)
    matrix = kornia.geometry.get_affine_matrix2d(
        shift.double(), center.double(), scale[:, None].expand(4, 2).double(), angle.double()
    )
    theirs = kornia.geometry.warp_affine(images.double(), matrix[:, :2], (height, width))
    ours = warp_affine(images, angle=angle, scale=scale, shift=shift)
    torch.testing.assert_close(ours.double(), theirs, atol=1e-5, rtol=0)


OPERATIONS = [
    RandomResizedCrop(32),
    RandomResizedCrop(20),
    RandomAffine(degrees=20, scale=(0.8, 1.2), shift=0.1),
    ColorJitter(brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1, probability=0.5),
    RandomGrayscale(0.5),
    RandomBlur(0.5),
    RandomSolarize(0.5),
    RandomNoise(0.1),
]


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: type(operation).__name__)
def test_results_stay_in_range_and_repeat_with_the_generator(operation):
    images = pixels(16)
    first = operation(images.clone(), generator=generator(1))
    again = operation(images.clone(), generator=generator(1))
    other = operation(images.clone(), generator=generator(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.min() >= -1e-6
    assert first.max() <= 1 + 1e-6


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: type(operation).__name__)
def test_no_global_randomness_is_used(operation):
    state = torch.get_rng_state()
    operation(pixels(), generator=generator())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    "operation",
    [RandomGrayscale(0.3), RandomSolarize(0.3), ColorJitter(hue=0.2, probability=0.3)],
    ids=lambda operation: type(operation).__name__,
)
def test_probability_is_the_share_of_images_touched(operation):
    images = pixels(1).expand(2000, -1, -1, -1)[:, :, ::4, ::4]
    touched = (operation(images.clone(), generator=generator()) != images).flatten(1).any(1)
    # Standard error of 2000 draws at 0.3 is 0.0102: four of them.
    assert touched.float().mean() == pytest.approx(0.3, abs=0.041)


def test_every_image_has_its_own_parameters():
    images = pixels(1).expand(8, -1, -1, -1).clone()
    for operation in (
        RandomResizedCrop(32),
        ColorJitter(brightness=0.4),
        RandomBlur(1.0, (0.01, 0.1)),
    ):
        results = operation(images.clone(), generator=generator())
        for row in range(1, 8):
            assert not torch.equal(results[0], results[row])


def test_boxes_have_the_usual_distribution():
    # Reference: the rejection loop of Szegedy et al. as everybody writes it, one box at a time.
    scale, ratio, side, count = (0.08, 1.0), (3 / 4, 4 / 3), 32, 4000
    random = np.random.default_rng(0)
    reference = []
    while len(reference) < count:
        area = random.uniform(*scale) * side * side
        aspect = np.exp(random.uniform(*np.log(ratio)))
        width, height = np.sqrt(area * aspect), np.sqrt(area / aspect)
        if width <= side and height <= side:
            top, left = random.uniform(0, side - height), random.uniform(0, side - width)
            reference.append((top, left, height, width))
    ours = draw_boxes(
        count, height=side, width=side, scale=scale, ratio=ratio, generator=generator()
    ).numpy()
    for column in range(4):
        # The seeds are fixed; a wrong distribution of 4000 draws has p far below 1e-6.
        assert ks_2samp(ours[:, column], np.array(reference)[:, column]).pvalue > 0.01
    assert (ours >= 0).all()
    assert (ours[:, 0] + ours[:, 2] <= side + 1e-4).all()
    assert (ours[:, 1] + ours[:, 3] <= side + 1e-4).all()


def test_boxes_that_cannot_fit_are_cut():
    boxes = draw_boxes(
        50, height=10, width=40, scale=(1.0, 1.0), ratio=(0.1, 0.2), generator=generator()
    )
    assert (boxes[:, 2] == 10).all()
    assert (boxes[:, 0] == 0).all()


@pytest.mark.parametrize(
    "operation", [ColorJitter(hue=0.1), ColorJitter(saturation=0.1), RandomGrayscale(1.0)]
)
def test_color_operations_refuse_gray_images(operation):
    with pytest.raises(InputError, match=r"need color images.*received 1 channels.*grayscale"):
        operation(pixels(channels=1), generator=generator())


def test_brightness_and_contrast_take_gray_images():
    jitter = ColorJitter(brightness=0.4, contrast=0.4)
    assert jitter(pixels(channels=1), generator=generator()).shape == (4, 1, 32, 32)


@pytest.mark.parametrize("size", [5, 12])
def test_patches_are_pixels_of_the_image(size: int) -> None:
    images = torch.arange(64 * 3 * 12 * 15, dtype=torch.float32).view(64, 3, 12, 15)
    patches = RandomCrop(size)(images, generator=torch.Generator().manual_seed(0))
    assert patches.shape == (64, 3, size, size)
    places, mirrored = set(), 0
    for image, patch in zip(images, patches, strict=True):
        flipped = bool(patch[0, 0, 0] > patch[0, 0, -1])
        mirrored += flipped
        one = patch.flip(2) if flipped else patch
        row, column = divmod(int(one[0, 0, 0] - image[0, 0, 0]), 15)
        places.add((row, column))
        torch.testing.assert_close(one, image[:, row : row + size, column : column + size])
    rows, columns = zip(*places, strict=True)
    assert (set(rows), set(columns)) == (set(range(13 - size)), set(range(16 - size)))
    assert 16 < mirrored < 48


def test_patches_larger_than_the_image() -> None:
    with pytest.raises(InputError, match=r"patches are larger.*16 pixels, images of 15 x 12"):
        RandomCrop(16)(torch.zeros(2, 3, 12, 15), generator=torch.Generator())


def test_views_of_patches_keep_the_resolution_and_have_no_scale() -> None:
    views = build_views(
        ViewsConfig("cifar", size=16, patches=True, count=3, small_views=2, small_size=8)
    )
    drawn = views(torch.zeros(2, 3, 32, 32, dtype=torch.uint8), generator=torch.Generator())
    assert [view.shape[2] for view in drawn] == [16, 16, 16, 8, 8]
    assert all(isinstance(operations[0], RandomCrop) for operations in views.operations)
    with pytest.raises(InputError, match="patches have no scale"):
        build_views(ViewsConfig("cifar", patches=True, scale=(0.2, 1.0)))
