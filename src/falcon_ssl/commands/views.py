"""Draw what the network sees."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from falcon_ssl.commands.files import PICTURES, new_file, write_picture
from falcon_ssl.commands.loading import open_data
from falcon_ssl.commands.resolve import resolve
from falcon_ssl.config.run import RunConfig
from falcon_ssl.core.checks import check_at_least
from falcon_ssl.core.consent import trusting_code
from falcon_ssl.data import read_images
from falcon_ssl.views import build_views, contact_sheet


def views_sheet(
    config: RunConfig,
    *,
    out: str | Path,
    num_images: int = 8,
    overwrite: bool = False,
    trust_code: bool = False,
) -> Path:
    """Draw what the network sees: images beside their augmented views.

    Args:
        config: The whole configuration.
        out: The picture: .png, .jpg or .webp.
        num_images: Its rows.
        overwrite: Replace the picture, if there is one.
        trust_code: Whether code that files name may be run, see `falcon_ssl.trusting_code`.

    Raises:
        InputError: Data that cannot be read, fewer than one image, or a file that may not be written.
    """
    check_at_least("num_images", num_images, 1, fix="draw at least one")
    out = new_file(out, suffixes=PICTURES, overwrite=overwrite)
    # A few images are shown: the others need not be decoded.
    with trusting_code(trust_code):
        source = open_data(replace(config, reading=replace(config.reading, in_memory=False))).train
        config = resolve(config, source)
        views = build_views(config.views)
    order = torch.randperm(len(source), generator=torch.Generator().manual_seed(config.seed))
    found: list[Tensor] = []
    for indices in torch.split(order, num_images):  # more than once where some cannot be read
        found += read_images(source, indices)[1]
        if len(found) >= num_images:
            break
    images = torch.stack(found[:num_images])
    sheet = contact_sheet(images, views, seed=config.seed)
    write_picture(out, sheet)
    return out
