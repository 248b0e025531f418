"""Random images and the content of image files."""

import io

import numpy as np
from PIL import Image


def pixels(seed: int = 0, *, size: tuple[int, int] = (12, 12), channels: int = 3) -> np.ndarray:
    """Random uint8 image [H, W, C] or [H, W]."""
    shape = size if channels == 1 else (*size, channels)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def encoded(image: Image.Image | np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    """Content of an image file."""
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()
