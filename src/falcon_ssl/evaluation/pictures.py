"""The arrays behind the pictures of a report; the report itself needs no torch and no images."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize, pad

from falcon_ssl.core.checks import check_same_length
from falcon_ssl.core.extras import train_extra
from falcon_ssl.evaluation.codes import code_counts
from falcon_ssl.evaluation.collapse import embedding_covariance, moments, spectrum
from falcon_ssl.evaluation.features import Features
from falcon_ssl.evaluation.gallery import neighbor_gallery
from falcon_ssl.evaluation.thumbnails import UNKNOWN, Arrays, thumbnails

ADJACENCY_ROWS = 400
MAP_ROWS = 600


def picture_arrays(
    test: Features,
    random_test: Features | None,
    *,
    images: Callable[[Tensor], Tensor],
    num_codes: int | None = None,
    seed: int = 0,
) -> Arrays:
    """All arrays of ``arrays.npz``, ready for ``numpy.savez_compressed``.

    Args:
        test: Features of the test split.
        random_test: The same images through an untrained network of the same architecture, if it was evaluated.
        images: Row indices int64 [M] to their images uint8 [M, C, H, W]: ``source.images``.
        num_codes: C; needed where ``test.code`` exists.
        seed: Of the subsamples and of the map.

    Returns:
        ``covariance_FF``, ``covariance_random_FF``: H^T H, not centered, float32;
        ``spectrum_z``, ``spectrum_u``, ``spectrum_random_z``, ``spectrum_random_u``: singular
        values of the centered rows, descending, sum 1, float32;
        ``adjacency_MM``, ``adjacency_code_M``, ``adjacency_label_M``: see `adjacency`;
        ``code_counts_C``: test samples per code, int64, in code order;
        ``map_xy_M2``, ``map_label_M``, ``map_thumbnails``: see `representation_map`;
        ``neighbors_QK``, ``neighbors_random_QK``, ``neighbors_thumbnails``, ``neighbors_label_T``: see
        `falcon_ssl.evaluation.gallery.neighbor_gallery`.
        What needs an embedding or codes is left out where there are none.

    Raises:
        InputError: If the two features differ in length, or codes do not fit ``num_codes``.
    """
    networks = {"": test}
    if random_test is not None:
        check_same_length("trained", test.z, "random features", random_test.z)
        networks["_random"] = random_test
    arrays: Arrays = {}
    for suffix, features in networks.items():
        arrays[f"spectrum{suffix}_z"] = _float32(spectrum(moments(features.z)))
        if features.u is not None:
            arrays[f"spectrum{suffix}_u"] = _float32(spectrum(moments(features.u)))
            arrays[f"covariance{suffix}_FF"] = _float32(embedding_covariance(features.u))
    if test.code is not None and num_codes is not None:
        arrays["code_counts_C"] = code_counts(test.code, num_codes=num_codes).numpy()
    if test.u is not None:
        arrays |= adjacency(test.u, code_N=test.code, label_N=test.label, seed=seed)
    random_z = None if random_test is None else random_test.z
    return (
        arrays
        | neighbor_gallery(test.z, random_z, label_N=test.label, images=images, seed=seed)
        | representation_map(test.z, label_N=test.label, images=images, seed=seed)
    )


def adjacency(
    u_NF: Tensor,
    *,
    code_N: Tensor | None = None,
    label_N: Tensor | None = None,
    rows: int = ADJACENCY_ROWS,
    seed: int = 0,
) -> Arrays:
    """Cosines of a subsample of embeddings, sorted so that clusters become blocks.

    The subsample is made of whole codes: the codes of samples drawn at random, each with all its
    samples, until M rows are full. (Samples drawn alone would seldom meet another one of their
    code, and hide the blocks of Corollary 3.) Rows are sorted by code, then by their cosine to the
    mean embedding of the code. Without codes, as with the complete dictionary, where nearly every
    sample has one of its own, classes take their place in the order of rows.

    Args:
        u_NF: Embeddings [N, F], unit rows.
        code_N: Codes, int64 [N]; without them rows are drawn one by one, and sorted by class.
        label_N: Classes, int64 [N].
        rows: M at most.
        seed: Of the draw.

    Returns:
        ``adjacency_MM`` float32; ``adjacency_code_M``, ``adjacency_label_M`` int64, -1 = unknown.
    """
    draw_N = torch.randperm(len(u_NF), generator=torch.Generator().manual_seed(seed))
    group_N = next((x_N for x_N in (code_N, label_N) if x_N is not None), torch.zeros_like(draw_N))
    if code_N is not None:
        # Place of a code = place of its first sample in the draw; a stable sort keeps codes whole.
        _, index_N = torch.unique(code_N, return_inverse=True)
        place_N = draw_N.argsort()  # the inverse permutation
        first_K = place_N.new_full((int(index_N.max()) + 1,), len(u_NF))
        first_K = first_K.scatter_reduce(0, index_N, place_N, reduce="amin")
        draw_N = draw_N[first_K[index_N[draw_N]].argsort(stable=True)]
    chosen_M = draw_N[:rows]
    _, group_M = torch.unique(group_N[chosen_M], return_inverse=True)
    u_MF = u_NF[chosen_M]
    mean_KF = u_MF.new_zeros(int(group_M.max()) + 1, u_MF.shape[1]).index_add_(0, group_M, u_MF)
    similarity_M = (u_MF * normalize(mean_KF, dim=1)[group_M]).sum(dim=1)
    order_M = np.lexsort((-similarity_M.numpy(), group_N[chosen_M].numpy()))
    chosen_M = chosen_M[torch.from_numpy(order_M)]
    u_MF = u_NF[chosen_M]
    return {
        "adjacency_MM": _float32(u_MF @ u_MF.T),
        "adjacency_code_M": _index(code_N, chosen_M),
        "adjacency_label_M": _index(label_N, chosen_M),
    }


def representation_map(
    z_ND: Tensor,
    *,
    images: Callable[[Tensor], Tensor],
    label_N: Tensor | None = None,
    rows: int = MAP_ROWS,
    seed: int = 0,
) -> Arrays:
    """A map of the representations in the plane: t-SNE of their first 50 principal components.

    Neighbors on the map are neighbors in z; distances between far groups mean nothing. Fewer
    than 50 samples, or samples that are all alike, get their two principal components instead.

    Args:
        z_ND: Representations [N, D].
        images: Row indices int64 [M] to their images uint8 [M, C, H, W].
        label_N: Classes, int64 [N].
        rows: M at most, drawn at random.
        seed: Of the draw and of t-SNE.

    Returns:
        ``projection``, how the map was made, in words; ``map_xy_M2`` float32, mean 0;
        ``map_label_M`` int64, -1 = unknown; ``map_thumbnails`` uint8 [M, h, w] for gray and
        [M, h, w, 3] for color, h, w <= 32.
    """
    draw_N = torch.randperm(len(z_ND), generator=torch.Generator().manual_seed(seed))
    chosen_M = draw_N[:rows].sort().values
    z_MD = z_ND[chosen_M].double()
    z_MD = z_MD - z_MD.mean(dim=0)
    left, singular, _ = torch.linalg.svd(z_MD, full_matrices=False)
    components_MP = pad((left * singular)[:, :50], (0, max(0, 50 - len(singular))))
    distinct = not moments(z_ND[chosen_M]).is_constant
    if len(z_MD) >= 50 and distinct:
        with train_extra("the map of the features"):
            from sklearn.manifold import TSNE

        projection = "the t-SNE of the first 50 principal components"
        xy_M2 = TSNE(random_state=seed).fit_transform(components_MP.float().numpy())
    else:
        projection = "the first two principal components"
        xy_M2 = components_MP[:, :2].numpy() * float(distinct)
    return {
        "projection": np.array(projection),
        "map_xy_M2": (xy_M2 - xy_M2.mean(axis=0)).astype(np.float32),
        "map_label_M": _index(label_N, chosen_M),
        "map_thumbnails": thumbnails(images(chosen_M)),
    }


def _float32(value: Tensor) -> NDArray[np.generic]:
    return value.cpu().float().numpy()


def _index(index_N: Tensor | None, chosen_M: Tensor) -> NDArray[np.generic]:
    if index_N is None:
        return np.full(len(chosen_M), UNKNOWN, dtype=np.int64)
    return index_N[chosen_M].numpy()
