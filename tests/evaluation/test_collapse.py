import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import normalize

from falcon_ssl.core.errors import InputError
from falcon_ssl.evaluation import Features
from falcon_ssl.evaluation.collapse import (
    cluster_spread,
    collapse,
    decorrelation_measures,
    effective_rank,
    embedding_covariance,
    mean_cosine,
    moments,
    representation_measures,
    spectrum,
)


def gaussian(num_rows: int, width: int, *, seed: int = 0) -> Tensor:
    return torch.randn(num_rows, width, generator=torch.Generator().manual_seed(seed))


def pairwise_cosine(x_ND: Tensor) -> float:
    """The definition, with the N x N matrix that the library avoids."""
    y_ND = normalize(x_ND.double(), dim=1)
    cosine_NN = y_ND @ y_ND.T
    num_rows = len(x_ND)
    return float((cosine_NN.sum() - cosine_NN.trace()) / (num_rows * (num_rows - 1)))


@settings(deadline=None, max_examples=20)
@given(num_rows=st.integers(2, 50), width=st.integers(1, 20), shift=st.floats(-5, 5))
def test_mean_cosine_is_that_of_all_pairs(num_rows, width, shift):
    x = gaussian(num_rows, width, seed=num_rows) + shift
    assert mean_cosine(x) == pytest.approx(pairwise_cosine(x), abs=1e-9)
    centered = x.double() - x.double().mean(0)
    assert mean_cosine(x, center_D=x.double().mean(0)) == pytest.approx(
        pairwise_cosine(centered), abs=1e-9
    )


@settings(deadline=None, max_examples=20)
@given(num_rows=st.integers(2, 50), width=st.integers(1, 20))
def test_the_spectrum_is_that_of_the_centered_matrix(num_rows, width):
    x = gaussian(num_rows, width, seed=width).double()
    singular = torch.linalg.svdvals(x - x.mean(0))
    expected = torch.zeros(width, dtype=torch.float64)
    expected[: len(singular)] = singular / singular.sum()
    # Roots of eigenvalues: an exact zero comes back as about sqrt(1e-16).
    torch.testing.assert_close(spectrum(moments(x)), expected, atol=1e-7, rtol=0)


def test_the_spectrum_does_not_depend_on_scale_rotation_or_shift():
    x = gaussian(100, 8) * torch.arange(1, 9)
    rotation = torch.linalg.qr(gaussian(8, 8, seed=1)).Q
    moved = 3 * x @ rotation + 2
    torch.testing.assert_close(spectrum(moments(x)), spectrum(moments(moved)), atol=1e-6, rtol=0)


def test_effective_rank_of_known_spectra():
    assert effective_rank(torch.tensor([1.0, 0.0, 0.0])) == pytest.approx(1)
    assert effective_rank(torch.full((16,), 1 / 16)) == pytest.approx(16)
    assert effective_rank(torch.tensor([0.5, 0.5, 0.0])) == pytest.approx(2)
    assert effective_rank(torch.zeros(4)) == 0


def test_a_few_live_directions_are_counted():
    x = gaussian(500, 3) @ gaussian(3, 64, seed=1)
    measures = representation_measures(x, name="z")
    assert measures["effective_rank_z"] < 3.01
    assert measures["effective_rank_share_z"] < 3.01 / 64


def test_healthy_features_are_close_to_their_ideals():
    measures = representation_measures(gaussian(20000, 32), name="z")
    # Sampling error of 20000 rows: about 1 / sqrt(20000) = 0.007 on each.
    assert measures["effective_rank_share_z"] > 0.99
    assert measures["mean_cosine_z"] == pytest.approx(0, abs=0.01)
    assert measures["feature_std_z"] == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("value", [0.0, 0.1, 1234.5])
def test_equal_rows_have_no_rank_and_no_spread(value):
    x = torch.full((1000, 7), value)
    x *= 1 + 1e-7 * gaussian(1000, 7)  # rounding noise of float32
    measures = representation_measures(x, name="u")
    assert measures["effective_rank_u"] == 0
    assert measures["mean_cosine_u"] == pytest.approx(1 if value else 0, abs=1e-6)
    assert measures["mean_cosine_centered_u"] == pytest.approx(0, abs=1e-3)
    assert all(math.isfinite(value) for value in measures.values())


def test_a_large_mean_costs_no_digits():
    x = gaussian(400, 5).double()
    far = moments(x + 1e6)
    torch.testing.assert_close(far.covariance_DD, moments(x).covariance_DD, atol=1e-8, rtol=0)


def test_a_single_sample_has_finite_measures():
    measures = collapse(
        Features(z=torch.ones(1, 4), u=torch.ones(1, 2), code=torch.tensor([0])), num_codes=3
    )
    assert all(math.isfinite(value) for value in measures.values())
    assert measures["effective_rank_z"] == 0


def test_the_orthogonal_frame_has_covariance_identity():
    hadamard = torch.tensor([[1.0, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]) / 2
    u = hadamard.repeat(5, 1)
    torch.testing.assert_close(embedding_covariance(u), torch.eye(4, dtype=torch.float64))
    assert decorrelation_measures(u) == {"identity_gap_u": 0, "offdiagonal_rms_u": 0}


def test_one_direction_is_furthest_from_the_identity():
    width = 16
    u = torch.full((10, width), width**-0.5)
    measures = decorrelation_measures(u)
    # H^T H is all ones: the diagonal is right, every other entry is 1 off.
    assert measures["identity_gap_u"] == pytest.approx(math.sqrt(width - 1), rel=1e-6)
    assert measures["offdiagonal_rms_u"] == pytest.approx(1, rel=1e-6)
    assert embedding_covariance(u).trace() == pytest.approx(width, rel=1e-6)


def test_within_variance_by_definition():
    x, cluster = gaussian(60, 4).double(), torch.arange(60) % 5
    x += 3 * gaussian(5, 4, seed=1)[cluster]
    within = sum(
        float(((x[cluster == k] - x[cluster == k].mean(0)) ** 2).sum()) for k in range(5)
    ) / (60 - 5)
    total = float(((x - x.mean(0)) ** 2).sum()) / 59
    assert cluster_spread(x, cluster, name="a")["within_variance_a"] == pytest.approx(
        within / total
    )


def test_clusters_that_mean_nothing_are_as_wide_as_the_whole():
    measures = cluster_spread(gaussian(4000, 8), torch.arange(4000) % 10, name="a")
    assert measures["within_variance_a"] == pytest.approx(1, abs=0.02)
    assert measures["within_entropy_a"] == pytest.approx(0, abs=0.02)


def test_clusters_of_one_point_each_have_no_width():
    cluster = torch.arange(200) % 10
    measures = cluster_spread(gaussian(10, 12)[cluster], cluster, name="a")
    assert measures["within_variance_a"] == pytest.approx(0, abs=1e-9)
    assert measures["within_entropy_a"] < -4


def test_width_inside_clusters_needs_clusters_with_two_members():
    x = gaussian(10, 3)
    assert cluster_spread(x, torch.arange(10), name="a") == {}
    assert cluster_spread(torch.ones(10, 3), torch.arange(10) % 2, name="a") == {}


def test_entropy_is_not_guessed_from_too_few_samples():
    found = cluster_spread(gaussian(30, 16), torch.arange(30) % 3, name="a")
    assert found.keys() == {"within_variance_a"}


def test_names_of_clusters_do_not_matter():
    x, cluster = gaussian(50, 4), torch.arange(50) % 3
    renamed = torch.tensor([900, 5, 17])[cluster]
    first, second = (cluster_spread(x, names, name="a") for names in (cluster, renamed))
    assert first == pytest.approx(second)


def test_bad_input():
    with pytest.raises(InputError, match="rows and clusters differ in length: received 4 and 3"):
        cluster_spread(gaussian(4, 2), torch.arange(3), name="a")
    with pytest.raises(InputError, match="the size of the dictionary is not given"):
        collapse(Features(z=gaussian(3, 2), code=torch.arange(3)))
    with pytest.raises(InputError, match="codes do not fit the dictionary"):
        collapse(Features(z=gaussian(3, 2), code=torch.arange(3)), num_codes=2)
