import pytest
import torch

from falcon_ssl.core.errors import InputError
from falcon_ssl.evaluation.clustering import (
    cluster_agreement,
    code_agreement,
    hungarian_accuracy,
    kmeans_clusters,
)

LABEL = torch.arange(600) % 6


def test_codes_that_are_the_classes():
    found = code_agreement(LABEL * 7, LABEL)
    assert found["nmi_codes"] == pytest.approx(1)
    assert found["ami_codes"] == pytest.approx(1)
    assert found["ari_codes"] == pytest.approx(1)
    assert found["chance_nmi_codes"] < 0.05


def test_random_codes_have_a_high_nmi_that_the_chance_level_exposes():
    code = torch.randint(0, 16384, (600,), generator=torch.Generator().manual_seed(0))
    found = code_agreement(code, LABEL)
    assert found["nmi_codes"] > 0.4  # looks like knowledge ...
    assert found["chance_nmi_codes"] == pytest.approx(found["nmi_codes"], abs=0.01)  # ... is chance
    assert found["ami_codes"] == pytest.approx(0, abs=0.05)
    assert found["ari_codes"] == pytest.approx(0, abs=0.01)


def test_one_code_for_all_knows_nothing():
    found = code_agreement(torch.zeros_like(LABEL), LABEL)
    assert found["nmi_codes"] == pytest.approx(0, abs=1e-9)
    assert found["ami_codes"] == pytest.approx(0, abs=1e-9)


def test_the_chance_level_is_seeded():
    code = torch.randint(0, 100, (600,), generator=torch.Generator().manual_seed(0))
    first, again, other = (code_agreement(code, LABEL, seed=s) for s in (1, 1, 2))
    assert first == again
    assert first["chance_nmi_codes"] != other["chance_nmi_codes"]


def test_names_of_clusters_do_not_matter():
    renamed = torch.tensor([3, 5, 0, 1, 4, 2])[LABEL]
    found = cluster_agreement(renamed, LABEL, num_classes=6)
    assert found == {key: pytest.approx(1) for key in ("nmi", "ami", "ari", "accuracy")}


def test_accuracy_by_hand():
    # Clusters (0,0,0,1,1,1) against classes (0,0,1,1,1,0): four of six under the best naming.
    cluster, label = torch.tensor([0, 0, 0, 1, 1, 1]), torch.tensor([0, 0, 1, 1, 1, 0])
    assert hungarian_accuracy(cluster, label, num_classes=2) == pytest.approx(4 / 6)
    assert hungarian_accuracy(1 - cluster, label, num_classes=2) == pytest.approx(4 / 6)


def test_kmeans_finds_blobs():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(600, 8, generator=generator) + 30 * torch.eye(8)[LABEL]
    cluster = kmeans_clusters(x, num_clusters=6, seed=0)
    assert hungarian_accuracy(cluster, LABEL, num_classes=6) == 1
    assert torch.equal(cluster, kmeans_clusters(x, num_clusters=6, seed=0))


def test_kmeans_of_collapsed_features_finds_as_many_clusters_as_there_are():
    assert kmeans_clusters(torch.ones(20, 3), num_clusters=4).unique().tolist() == [0]
    two = torch.cat([torch.zeros(10, 3), torch.ones(10, 3)])
    assert len(kmeans_clusters(two, num_clusters=4).unique()) == 2


def test_bad_input():
    with pytest.raises(InputError, match="received 5 clusters for 4 samples"):
        kmeans_clusters(torch.eye(4), num_clusters=5)
    with pytest.raises(InputError, match="num_clusters is too small"):
        kmeans_clusters(torch.eye(4), num_clusters=1)
    with pytest.raises(
        InputError, match="labels and clusters differ in length: received 600 and 3"
    ):
        code_agreement(torch.tensor([0, 1, 2]), LABEL)
