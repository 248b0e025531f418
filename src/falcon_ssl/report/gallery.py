"""The nearest neighbors of some images: pictures that can be judged without labels."""

from __future__ import annotations

import numpy as np
from markupsafe import Markup

from falcon_ssl.records.run import Array, Run
from falcon_ssl.report.document import Figure
from falcon_ssl.report.images import tile_style, tiles
from falcon_ssl.report.plots import class_names, split_name

FEW_PIXELS = 16  # of a side, up to which pixels are shown as such


def neighbors_figure(run: Run) -> Figure | None:
    """Images and their nearest by z, beside those by the encoder before training when they were recorded."""
    if not {"neighbors_QK", "neighbors_thumbnails"} <= run.arrays.keys():
        return None
    thumbnails = run.arrays["neighbors_thumbnails"]
    labels = run.arrays.get("neighbors_label_T", np.full(len(thumbnails), -1))
    is_labeled = bool(labels.min() >= 0)
    names = class_names(run, labels) if is_labeled else [""] * len(thumbnails)
    pictures = tiles("near", thumbnails, names)
    networks = {"neighbors_QK": "this run", "neighbors_random_QK": run.started_from}
    parts, counts = [], []
    for key, network in networks.items():
        if key not in run.arrays:
            continue
        row_QK = run.arrays[key]
        alike = (labels[row_QK[:, 1:]] == labels[row_QK[:, :1]]) & is_labeled
        parts.append(
            Markup('<div class="neighbors"><span>{}</span>{}</div>').format(
                network, _rows(row_QK, alike, pictures)
            )
        )
        counts.append(f"{alike.sum()} of {alike.size} by {network}")
    height, width = thumbnails.shape[1:3]
    drawn = "pixelated" if max(height, width) <= FEW_PIXELS else "auto"
    style = tile_style(
        "near", thumbnails, extra=f"aspect-ratio:{width / height:.3f};image-rendering:{drawn}"
    )
    framed = (
        f" Framed: of the class of the image, which training never saw ({', '.join(counts)})."
        if is_labeled
        else ""
    )
    return Figure(
        "Images and their nearest neighbors",
        Markup('{}<div class="pair">{}</div>').format(style, Markup("").join(parts)),
        f"{len(run.arrays['neighbors_QK'])} images of the {split_name(run)}, drawn at random, each before"
        " those nearest to it by the cosine of centered representations z, as falcon-ssl search finds them."
        " A network that has learned brings what is in the images together, and not their colors and"
        f" backgrounds alone.{framed}",
        span="wide",
    )


def _rows(row_QK: Array, alike_QK: Array, pictures: list[Markup]) -> Markup:
    body = Markup("")
    for row_k, alike_k in zip(row_QK.tolist(), alike_QK.tolist(), strict=True):
        query, *others = row_k
        shown = (
            Markup('<i class="alike">{}</i>' if same else "<i>{}</i>").format(pictures[other])
            for other, same in zip(others, alike_k, strict=True)
        )
        body += Markup('<div class="row"><i class="query">{}</i>{}</div>').format(
            pictures[query], Markup("").join(shown)
        )
    return body
