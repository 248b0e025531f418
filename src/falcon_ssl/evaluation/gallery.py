"""Some images and those nearest to them: what a person believes who has no labels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from falcon_ssl.evaluation.neighbors import Array, Space, nearest
from falcon_ssl.evaluation.thumbnails import UNKNOWN, Arrays, thumbnails

QUERIES, NEIGHBORS = 10, 6  # 130 pictures for two networks, whatever the number of images
PIXELS = 48


def neighbor_gallery(
    z_ND: Tensor,
    random_z_ND: Tensor | None = None,
    *,
    images: Callable[[Tensor], Tensor],
    label_N: Tensor | None = None,
    seed: int = 0,
) -> Arrays:
    """Images drawn at random, each with its nearest by z, as ``falcon-ssl search`` finds them.

    Args:
        z_ND: Representations [N, D].
        random_z_ND: The same images through an untrained network, for comparison.
        images: Row indices int64 [T] to their images uint8 [T, C, H, W].
        label_N: Classes, int64 [N].
        seed: Of the draw.

    Returns:
        ``neighbors_thumbnails`` uint8 [T, h, w] or [T, h, w, 3], each image once; ``neighbors_label_T`` int64, -1 =
        unknown; ``neighbors_QK`` and ``neighbors_random_QK`` int64: places among them, of the image and then of its
        nearest. Nothing for fewer than three images.
    """
    count = len(z_ND)
    if count < 3:
        return {}
    draw_N = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    query_Q = draw_N[:QUERIES].sort().values.numpy()
    networks = {"neighbors_QK": z_ND}
    if random_z_ND is not None:
        networks["neighbors_random_QK"] = random_z_ND
    rows = {name: _rows(z.numpy(), query_Q) for name, z in networks.items()}
    shown_T = np.unique(np.concatenate([row_QK.ravel() for row_QK in rows.values()]))
    chosen_T = torch.from_numpy(shown_T)
    return {
        "neighbors_thumbnails": thumbnails(images(chosen_T), pixels=PIXELS),
        "neighbors_label_T": np.full(len(shown_T), UNKNOWN)
        if label_N is None
        else label_N[chosen_T].numpy(),
        **{name: np.searchsorted(shown_T, row_QK) for name, row_QK in rows.items()},
    }


def _rows(z_ND: Array, query_Q: Array) -> Array:
    """Rows of the queries, each before those of its nearest [Q, 1 + K]."""
    k = min(NEIGHBORS, len(z_ND) - 1)
    found = nearest(z_ND[query_Q], [z_ND], space=Space.centered(z_ND), k=k + 1)
    others = [row_k[row_k != query][:k] for query, row_k in zip(query_Q, found.row, strict=True)]
    return np.concatenate([query_Q[:, None], np.stack(others)], axis=1)
