import math

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from falcon_ssl.core.errors import InputError
from falcon_ssl.dictionary.assign import nearest_codes
from falcon_ssl.dictionary.rademacher import RademacherDictionary
from falcon_ssl.evaluation import Features, evaluate_features, picture_arrays
from falcon_ssl.evaluation.gallery import neighbor_gallery
from falcon_ssl.evaluation.pictures import adjacency, representation_map, thumbnails

NUM_CLASSES, NUM_CODES, WIDTH = 4, 32, 16
# Binding: reports and recipes read these names.
KEYS = {
    "top1_linear", "top1_knn", "nmi_codes", "ami_codes", "ari_codes", "chance_nmi_codes", "codes_used",
    "nmi_kmeans_z", "ami_kmeans_z", "ari_kmeans_z", "accuracy_kmeans_z",
    "nmi_kmeans_u", "ami_kmeans_u", "ari_kmeans_u", "accuracy_kmeans_u",
    "effective_rank_z", "effective_rank_u",
}  # fmt: skip


def features(num_rows: int, *, seed: int, distance: float = 8.0) -> Features:
    """Samples around one code per class."""
    generator = torch.Generator().manual_seed(seed)
    dictionary = RademacherDictionary(NUM_CODES, WIDTH, seed=0)
    label = torch.arange(num_rows) % NUM_CLASSES
    noise = torch.randn(num_rows, WIDTH, generator=generator)
    z = distance * dictionary.block(0, NUM_CLASSES)[label] + noise
    u = normalize(z, dim=1)
    return Features(z=z, u=u, code=nearest_codes(u, dictionary), label=label)


def images(indices: torch.Tensor) -> torch.Tensor:
    return indices.view(-1, 1, 1, 1).expand(-1, 1, 8, 8).to(torch.uint8)


def test_every_number_is_there_and_good_features_are_perfect():
    found = evaluate_features(
        features(120, seed=0), features(80, seed=1), num_classes=NUM_CLASSES, num_codes=NUM_CODES
    )
    assert found.keys() >= KEYS
    assert all(type(value) is float and math.isfinite(value) for value in found.values())
    perfect = ("top1_linear", "top1_knn", "ami_codes", "accuracy_kmeans_z", "accuracy_kmeans_u")
    assert [found[key] for key in perfect] == [pytest.approx(1)] * len(perfect)
    assert found["codes_used"] == NUM_CLASSES


def test_options_reach_the_evaluators():
    splits = features(61, seed=0, distance=1.0), features(40, seed=1, distance=1.0)
    options = {"num_classes": NUM_CLASSES, "num_codes": NUM_CODES}
    usual = evaluate_features(*splits, **options)
    assert "aligned_cosine" not in usual
    other = evaluate_features(
        *splits,
        **options,
        dictionary=RademacherDictionary(NUM_CODES, WIDTH, seed=0),
        knn_neighbors=61,
        knn_temperature=1e6,  # one vote for each train image: class 0, of 16, wins
        linear_penalty=1e3,  # nothing but the bias is left: class 0 again
    )
    assert 0.5 < other["aligned_cosine"] < 1
    assert other["top1_knn"] == 0.25 < usual["top1_knn"]
    assert other["top1_linear"] == 0.25 < usual["top1_linear"]


def test_negative_control_noise_is_at_chance():
    found = evaluate_features(
        features(400, seed=0, distance=0.0),
        features(400, seed=1, distance=0.0),
        num_classes=NUM_CLASSES,
        num_codes=NUM_CODES,
    )
    assert found["top1_linear"] < 0.4
    assert found["top1_knn"] < 0.4
    assert abs(found["ami_kmeans_z"]) < 0.1
    assert found["nmi_codes"] == pytest.approx(found["chance_nmi_codes"], abs=0.05)


def test_the_same_seed_gives_the_same_numbers():
    splits = features(60, seed=0, distance=0.5), features(40, seed=1, distance=0.5)
    options = {"num_classes": NUM_CLASSES, "num_codes": NUM_CODES, "seed": 3}
    assert evaluate_features(*splits, **options) == evaluate_features(*splits, **options)


def test_without_labels_the_label_free_measures_remain():
    z = features(30, seed=0).z
    found = evaluate_features(Features(z=z), Features(z=z))
    assert "effective_rank_z" in found
    assert not found.keys() & {"top1_linear", "nmi_kmeans_z", "effective_rank_u"}


def test_totally_collapsed_features_are_evaluated_without_a_warning():
    label = torch.arange(40) % NUM_CLASSES
    same = Features(z=torch.ones(40, 8), u=torch.full((40, 4), 0.5), code=label * 0, label=label)
    found = evaluate_features(same, same, num_classes=NUM_CLASSES, num_codes=NUM_CODES)
    assert all(math.isfinite(value) for value in found.values())
    assert found["top1_linear"] == 0.25
    assert found["effective_rank_z"] == 0
    assert found["codes_used"] == 1


def test_bad_input():
    train, test = features(40, seed=0), features(20, seed=1)
    with pytest.raises(InputError, match="the size of the dictionary is not given"):
        evaluate_features(train, test, num_classes=NUM_CLASSES)
    with pytest.raises(InputError, match="test features have no labels"):
        evaluate_features(train, Features(z=test.z), num_classes=NUM_CLASSES)
    few = Features(z=test.z[:3], label=test.label[:3])
    with pytest.raises(InputError, match="received 4 clusters for 3 samples"):
        evaluate_features(train, few, num_classes=NUM_CLASSES)


def test_picture_arrays_have_the_promised_names_shapes_and_types(tmp_path):
    test = features(150, seed=0)
    arrays = picture_arrays(
        test, features(150, seed=1, distance=0.0), images=images, num_codes=NUM_CODES
    )
    shapes = {name: (value.shape, value.dtype.name) for name, value in arrays.items()}
    shown = len(arrays["neighbors_thumbnails"])
    assert 70 < shown <= 130
    assert shapes == {
        "covariance_FF": ((WIDTH, WIDTH), "float32"),
        "covariance_random_FF": ((WIDTH, WIDTH), "float32"),
        "spectrum_z": ((WIDTH,), "float32"),
        "spectrum_u": ((WIDTH,), "float32"),
        "spectrum_random_z": ((WIDTH,), "float32"),
        "spectrum_random_u": ((WIDTH,), "float32"),
        "adjacency_MM": ((150, 150), "float32"),
        "adjacency_code_M": ((150,), "int64"),
        "adjacency_label_M": ((150,), "int64"),
        "code_counts_C": ((NUM_CODES,), "int64"),
        "map_xy_M2": ((150, 2), "float32"),
        "projection": ((), "str1472"),  # 46 letters of 32 bits
        "map_label_M": ((150,), "int64"),
        "map_thumbnails": ((150, 8, 8), "uint8"),
        "neighbors_QK": ((10, 7), "int64"),
        "neighbors_random_QK": ((10, 7), "int64"),
        "neighbors_thumbnails": ((shown, 8, 8), "uint8"),
        "neighbors_label_T": ((shown,), "int64"),
    }
    np.savez_compressed(tmp_path / "arrays.npz", **arrays)
    with np.load(tmp_path / "arrays.npz", allow_pickle=False) as loaded:
        assert set(loaded) == set(arrays)
    assert arrays["code_counts_C"].sum() == 150
    assert arrays["spectrum_z"].sum() == pytest.approx(1, abs=1e-5)


def test_features_without_embedding_leave_its_pictures_out():
    z = Features(z=features(20, seed=0).z)
    arrays = picture_arrays(z, z, images=images)
    assert set(arrays) == {
        "spectrum_z", "spectrum_random_z", "projection", "map_xy_M2", "map_label_M", "map_thumbnails",
        "neighbors_QK", "neighbors_random_QK", "neighbors_thumbnails", "neighbors_label_T",
    }  # fmt: skip
    assert set(arrays["map_label_M"]) == {-1}


def test_adjacency_is_sorted_into_whole_codes():
    test = features(3000, seed=0)
    arrays = adjacency(test.u, code_N=test.code, label_N=test.label, rows=1600, seed=5)
    code_M, cosine_MM = arrays["adjacency_code_M"], arrays["adjacency_MM"]
    assert (np.diff(code_M) >= 0).all()
    counts = np.bincount(code_M)
    assert sorted(counts[counts > 0]) == [100, 750, 750]  # two whole codes and the start of a third
    same = code_M[:, None] == code_M[None]
    assert cosine_MM[same].mean() > 0.9
    assert cosine_MM[~same].mean() < 0.5


def test_adjacency_without_codes_is_sorted_by_class():
    test = features(300, seed=0)
    arrays = adjacency(test.u, label_N=test.label, rows=200, seed=5)
    assert set(arrays["adjacency_code_M"]) == {-1}
    assert (np.diff(arrays["adjacency_label_M"]) >= 0).all()
    assert len(set(arrays["adjacency_label_M"])) == NUM_CLASSES


def test_the_map_separates_what_z_separates():
    test = features(200, seed=0)
    arrays = representation_map(test.z, label_N=test.label, images=images, rows=100)
    xy, label = arrays["map_xy_M2"], arrays["map_label_M"]
    centers = np.stack([xy[label == k].mean(axis=0) for k in range(NUM_CLASSES)])
    nearest = ((xy[:, None] - centers[None]) ** 2).sum(-1).argmin(axis=1)
    assert (nearest == label).mean() > 0.95
    # Every thumbnail is the image of its own point: its pixels are its index.
    assert (test.label[arrays["map_thumbnails"][:, 0, 0].astype(int)].numpy() == label).all()


@pytest.mark.parametrize("z", [torch.ones(80, 3), torch.ones(1, 1), torch.randn(5, 1)])
def test_the_map_of_few_or_equal_points_is_finite(z):
    assert np.isfinite(representation_map(z, images=images)["map_xy_M2"]).all()


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((2, 1, 8, 8), (2, 8, 8)),
        ((2, 3, 32, 32), (2, 32, 32, 3)),
        ((2, 3, 224, 112), (2, 32, 16, 3)),
        ((2, 2, 64, 64), (2, 32, 32)),
    ],
)
def test_thumbnails_are_small(shape, expected):
    found = thumbnails(torch.full(shape, 77, dtype=torch.uint8))
    assert found.shape == expected
    assert (found == 77).all()


def test_pictures_of_different_splits_are_refused():
    with pytest.raises(InputError, match="trained and random features differ in length"):
        picture_arrays(features(4, seed=0), features(5, seed=0), images=images)


def test_the_gallery_shows_the_nearest_and_not_the_image_itself():
    """Pairs of nearly equal rows: the nearest of each row is its twin; equal rows do not hide it."""
    generator = torch.Generator().manual_seed(0)
    z_ND = torch.randn(60, 24, generator=generator).repeat_interleave(2, dim=0)
    z_ND[1::2] += 0.01 * torch.randn(60, 24, generator=generator)
    z_ND[7] = z_ND[6]
    shown: list[torch.Tensor] = []

    def images_of(chosen_T):
        shown.append(chosen_T)
        return torch.zeros(len(chosen_T), 1, 4, 4, dtype=torch.uint8)

    arrays = neighbor_gallery(z_ND, images=images_of, label_N=torch.arange(120) // 2)
    row_QK = shown[0].numpy()[arrays["neighbors_QK"]]
    assert row_QK.shape == (10, 7)
    assert (row_QK[:, 1] == row_QK[:, 0] ^ 1).all()
    assert all(len(set(row_k)) == 7 for row_k in row_QK.tolist())
    assert (arrays["neighbors_label_T"] == shown[0].numpy() // 2).all()


@pytest.mark.parametrize("count", [2, 3, 5])
def test_a_gallery_of_few_or_equal_images(count):
    def no_images(chosen_T):
        return torch.zeros(len(chosen_T), 3, 4, 4, dtype=torch.uint8)

    arrays = neighbor_gallery(torch.ones(count, 4), images=no_images)
    assert ("neighbors_QK" in arrays) == (count > 2)
    if arrays:
        row_QK = arrays["neighbors_QK"]
        assert row_QK.shape == (count, count)
        assert all(sorted(row_k) == list(range(count)) for row_k in row_QK.tolist())
