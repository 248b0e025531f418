"""How fast images become two augmented views: falcon-ssl against the usual pipelines.

    make bench-views          # builds an environment with lightly in it, then runs this file

Every contender makes the same SimCLR-style pair of views (crop-resize, flip, color jitter,
grayscale) of images of 32x32 that are in memory as uint8, with the same number of cores: threads
where the whole batch is one tensor, DataLoader workers where every image is transformed alone.
Rounds are interleaved; the median round counts.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version

import numpy as np
import torch
from PIL import Image, ImageEnhance
from torch.utils.data import DataLoader, Dataset

from falcon_ssl.config import ViewsConfig
from falcon_ssl.data import ResidentLoader, TensorSource
from falcon_ssl.networks.timm import import_beside_torchvision
from falcon_ssl.views import build_views
from record import arguments, machine, write_record

SIDE = 32
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
BRIGHTNESS, CONTRAST, SATURATION, HUE = 0.4, 0.4, 0.2, 0.1

Contender = Callable[[], Iterator[object]]


class PillowPair:
    """The SimCLR pair of views as a careful per-image Pillow pipeline."""

    mean = torch.tensor(MEAN)[:, None, None]
    std = torch.tensor(STD)[:, None, None]

    def __call__(self, image: Image.Image) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw two views."""
        return self.view(image), self.view(image)

    def view(self, image: Image.Image) -> torch.Tensor:
        """Draw one view."""
        image = self.crop(image)
        if random.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if random.random() < 0.8:
            image = self.jitter(image)
        if random.random() < 0.2:
            image = image.convert("L").convert("RGB")
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
        return pixels.float().div_(255).sub_(self.mean).div_(self.std)

    def crop(self, image: Image.Image) -> Image.Image:
        """Cut out a random box and resize it."""
        for _ in range(10):
            area = random.uniform(0.08, 1.0) * SIDE * SIDE
            ratio = np.exp(random.uniform(np.log(3 / 4), np.log(4 / 3)))
            width, height = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
            if 0 < width <= SIDE and 0 < height <= SIDE:
                left, top = random.randint(0, SIDE - width), random.randint(0, SIDE - height)
                box = (left, top, left + width, top + height)
                return image.resize((SIDE, SIDE), Image.Resampling.BILINEAR, box=box)
        return image

    def jitter(self, image: Image.Image) -> Image.Image:
        """Change the colors, in random order."""
        steps = [
            lambda i: ImageEnhance.Brightness(i).enhance(around_one(BRIGHTNESS)),
            lambda i: ImageEnhance.Contrast(i).enhance(around_one(CONTRAST)),
            lambda i: ImageEnhance.Color(i).enhance(around_one(SATURATION)),
            turn_hue,
        ]
        random.shuffle(steps)
        for step in steps:
            image = step(image)
        return image


def around_one(amount: float) -> float:
    """Draw the factor of an enhancer."""
    return random.uniform(1 - amount, 1 + amount)


def turn_hue(image: Image.Image) -> Image.Image:
    """Turn the hue in HSV, as torchvision does for Pillow images."""
    hue, saturation, value = image.convert("HSV").split()
    turned = (np.array(hue, dtype=np.int16) + round(random.uniform(-HUE, HUE) * 255)) % 256
    merged = Image.merge("HSV", (Image.fromarray(turned.astype(np.uint8)), saturation, value))
    return merged.convert("RGB")


class PerImage(Dataset):
    """Images as Pillow pictures, transformed one by one."""

    def __init__(self, images: torch.Tensor, transform: Callable[[Image.Image], object]) -> None:
        self.pictures = images.permute(0, 2, 3, 1).contiguous().numpy()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> object:
        return self.transform(Image.fromarray(self.pictures[index]))


def falcon(images: torch.Tensor, batch_size: int) -> Contender:
    """Ours: resident loader, batched views."""
    views = build_views(ViewsConfig("cifar", symmetric=True))
    source = TensorSource(images, name="benchmark")
    loader = ResidentLoader(source, batch_size=batch_size, seed=0, device="cpu")
    generator = torch.Generator().manual_seed(0)
    return lambda: (views(batch, generator=generator) for _, batch in loader.epoch_batches(epoch=0))


def plain_kornia(images: torch.Tensor, batch_size: int) -> Contender:
    """Kornia's own random augmentations on the batch."""
    from kornia import augmentation as kornia

    transform = kornia.AugmentationSequential(
        kornia.RandomResizedCrop((SIDE, SIDE), scale=(0.08, 1.0)),
        kornia.RandomHorizontalFlip(),
        kornia.ColorJitter(BRIGHTNESS, CONTRAST, SATURATION, HUE, p=0.8),
        kornia.RandomGrayscale(p=0.2),
        kornia.Normalize(torch.tensor(MEAN), torch.tensor(STD)),
    )

    def run() -> Iterator[object]:
        for batch in images.split(batch_size):
            pixels = batch.float() / 255
            yield transform(pixels), transform(pixels)

    return run


def per_image(
    images: torch.Tensor, batch_size: int, workers: int, transform: Callable[[Image.Image], object]
) -> Contender:
    """A transform of single images in DataLoader workers that stay alive."""
    loader = DataLoader(
        PerImage(images, transform),
        batch_size=batch_size,
        shuffle=True,
        num_workers=workers,
        persistent_workers=True,
    )
    return lambda: iter(loader)


def lightly_simclr() -> Callable[[Image.Image], object]:
    """Lightly's SimCLR transform with the same strengths, without blur."""
    transforms = import_beside_torchvision("lightly.transforms.simclr_transform")
    return transforms.SimCLRTransform(
        input_size=SIDE,
        cj_prob=0.8,
        cj_strength=1.0,
        cj_bright=BRIGHTNESS,
        cj_contrast=CONTRAST,
        cj_sat=SATURATION,
        cj_hue=HUE,
        random_gray_scale=0.2,
        gaussian_blur=0.0,
        normalize={"mean": list(MEAN), "std": list(STD)},
    )


def seconds(contender: Contender) -> float:
    """Time one pass over the images."""
    started = time.perf_counter()
    for _ in contender():
        pass
    return time.perf_counter() - started


def main() -> None:
    """Run all contenders, print the table, write the record."""
    parser = arguments(__doc__, "speed/views")
    parser.add_argument("--images", type=int, default=8192, help="images in a round")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--threads", type=int, default=2, help="threads, and DataLoader workers")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    coarse = torch.rand(options.images, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    smooth = torch.nn.functional.interpolate(coarse, size=SIDE, mode="bicubic").clamp(0, 1)
    images = (smooth * 255).round().to(torch.uint8)
    size, workers = options.batch_size, options.threads
    contenders = {
        "falcon-ssl": falcon(images, size),
        "kornia, batched": plain_kornia(images, size),
        "Pillow in DataLoader workers": per_image(images, size, workers, PillowPair()),
        "lightly SimCLRTransform": per_image(images, size, workers, lightly_simclr()),
    }
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for contender in contenders.values():
        seconds(contender)  # starts workers, fills caches
    for _ in range(options.rounds):
        for name, contender in contenders.items():
            times[name].append(seconds(contender))

    ours = statistics.median(times["falcon-ssl"])
    rows = {}
    print(f"{'':30s} {'images/s':>10s} {'ms an image':>12s} {'spread':>8s} {'falcon-ssl is':>14s}")
    for name, measured in times.items():
        median = statistics.median(measured)
        spread = (max(measured) - min(measured)) / median
        rows[name] = {
            "images_per_s": round(options.images / median, 1),
            "seconds": [round(value, 4) for value in measured],
            "falcon_ssl_is_faster_by": round(median / ours, 2),
        }
        print(
            f"{name:30s} {options.images / median:10.0f} {1e3 * median / options.images:12.4f} "
            f"{spread:8.0%} {median / ours:13.1f}x"
        )
    record = {
        "what": "two views of every 32x32 image, images per second",
        "images": options.images,
        "batch_size": size,
        "threads": options.threads,
        "versions": {name: version(name) for name in ("kornia", "pillow", "lightly", "numpy")},
        "results": rows,
        "environment": machine(),
    }
    write_record(options.out, record)


if __name__ == "__main__":
    main()
