"""Features built to be healthy, collapsed in exactly one of four ways, and in between; the benchmark takes 20 seeds."""

import json

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from falcon_ssl.core.errors import InputError
from falcon_ssl.dictionary.rademacher import RademacherDictionary
from falcon_ssl.evaluation import Features, diagnose, load_features
from falcon_ssl.evaluation.rules import RULES, Rule, worst

N, D, C = 600, 128, 256
SEEDS = range(4)
NAMES = ("representation", "dimensional", "cluster", "intracluster")


def noise(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def healthy(seed: int) -> Features:
    """Isotropic embeddings, codes drawn evenly."""
    z = noise(N, D, seed=seed)
    return Features(z=z, u=normalize(z, dim=1), code=torch.arange(N) % C)


def representation(seed: int, *, spread: float) -> Features:
    """One point for all samples, up to ``spread``."""
    z = noise(1, D, seed=1000 + seed) + spread * noise(N, D, seed=seed)
    return Features(z=z, u=normalize(z, dim=1), code=torch.arange(N) % C)


def dimensional(seed: int, *, rank: int) -> Features:
    """Isotropic in ``rank`` of the D directions."""
    basis = torch.linalg.qr(noise(D, rank, seed=1000 + seed)).Q
    z = noise(N, rank, seed=seed) @ basis.T
    return Features(z=z, u=normalize(z, dim=1), code=torch.arange(N) % C)


def cluster(seed: int, *, codes: int) -> Features:
    """Isotropic embeddings, but only a few codes in use."""
    features = healthy(seed)
    return Features(z=features.z, u=features.u, code=torch.arange(N) % codes)


def intracluster(seed: int, *, spread: float) -> Features:
    """Sixty clusters in general position, each a point up to ``spread``."""
    code = torch.arange(N) % 60
    z = noise(60, D, seed=1000 + seed)[code] + spread * noise(N, D, seed=seed)
    return Features(z=z, u=normalize(z, dim=1), code=code)


def verdicts(features: Features) -> dict[str, str]:
    found = diagnose(features, num_codes=C)
    return {name: found[name].verdict for name in NAMES}


HEALTHY = dict.fromkeys(NAMES, "healthy")


@pytest.mark.parametrize("seed", SEEDS)
def test_every_collapse_is_found_and_nothing_else(seed):
    assert verdicts(healthy(seed)) == HEALTHY
    assert verdicts(dimensional(seed, rank=3)) == HEALTHY | {"dimensional": "collapsed"}
    assert verdicts(cluster(seed, codes=1)) == HEALTHY | {"cluster": "collapsed"}
    assert verdicts(intracluster(seed, spread=0.0)) == HEALTHY | {"intracluster": "collapsed"}
    # Equal up to 3 %: still isotropic after centering, so only the first of the four.
    assert verdicts(representation(seed, spread=0.03)) == HEALTHY | {"representation": "collapsed"}


@pytest.mark.parametrize("seed", SEEDS)
def test_in_between_is_a_warning(seed):
    assert verdicts(representation(seed, spread=0.5)) == HEALTHY | {"representation": "warning"}
    assert verdicts(dimensional(seed, rank=7)) == HEALTHY | {"dimensional": "warning"}
    assert verdicts(cluster(seed, codes=4)) == HEALTHY | {"cluster": "warning"}
    assert verdicts(intracluster(seed, spread=0.25)) == HEALTHY | {"intracluster": "warning"}


def test_totally_equal_features_collapse_without_an_error():
    same = Features(z=torch.ones(50, 40), u=torch.ones(50, 16) / 4, code=torch.zeros(50).long())
    assert verdicts(same) == {
        "representation": "collapsed",
        "dimensional": "collapsed",
        "cluster": "collapsed",
        "intracluster": "unknown",
    }
    assert diagnose(same, num_codes=C).verdict == "collapsed"


def test_all_positive_features_after_a_relu_are_no_collapse():
    assert diagnose(Features(z=noise(N, D, seed=0).relu())).verdict == "healthy"
    # A large common offset, as of a network with biases, is still spread out around it.
    assert diagnose(Features(z=noise(N, D, seed=0) + 3.0)).verdict == "healthy"


def test_narrow_features_are_not_accused_of_their_width():
    assert diagnose(Features(z=noise(N, 4, seed=0)))["dimensional"].verdict == "healthy"


def test_intracluster_collapse_is_found_by_kmeans_alone_when_labels_give_its_number():
    features = intracluster(0, spread=0.0)
    only_z = Features(z=features.z, label=features.code)
    assert diagnose(only_z)["intracluster"].verdict == "collapsed"
    assert diagnose(Features(z=features.z), num_clusters=60).verdict == "collapsed"


def test_the_sentence_says_it_in_plain_words():
    assert diagnose(healthy(0), num_codes=C).sentence == "Healthy: no sign of collapse."
    found = diagnose(Features(z=dimensional(0, rank=3).z))
    assert found.sentence == (
        "Collapsed: only a few directions of the space are used (dimensional). "
        "Not measured: cluster collapse."
    )


def test_prototypes_and_dictionaries_assign_the_codes():
    features = Features(z=noise(N, D, seed=0))
    for dictionary in (noise(C, D, seed=1), RademacherDictionary(C, D, seed=0)):
        assert diagnose(features, dictionary=dictionary)["cluster"].verdict == "healthy"
    away = noise(C, D, seed=1)
    away[0] += 100 * features.z.mean(0)
    pulled = Features(z=features.z + 10 * features.z.mean(0))
    assert diagnose(
        pulled, dictionary=away
    ).to_dict()  # assigns by cosine: long prototypes are no magnets
    same = Features(z=torch.ones(N, D) + 1e-3 * noise(N, D, seed=0))
    assert diagnose(same, dictionary=noise(C, D, seed=1))["cluster"].verdict == "collapsed"


def test_the_embedding_is_what_codes_are_assigned_to():
    features = Features(z=noise(N, D, seed=0), u=normalize(noise(N, 16, seed=1), dim=1))
    found = diagnose(features, dictionary=RademacherDictionary(C, 16, seed=0))
    assert found["cluster"].verdict == "healthy"


def test_the_reference_is_shown_and_changes_no_verdict():
    alone = diagnose(healthy(0), num_codes=C)
    beside = diagnose(healthy(0), num_codes=C, reference=dimensional(1, rank=3))
    assert {c.name: c.verdict for c in alone.collapses} == {
        c.name: c.verdict for c in beside.collapses
    }
    by_name = {m.name: m for m in beside["dimensional"].measures}
    rank = by_name["effective_rank_z"]
    assert rank.random < 3.01 < 100 < rank.value < rank.ideal == D
    assert all(m.random is None for c in alone.collapses for m in c.measures)


def test_the_record_has_the_form_that_the_report_reads():
    record = json.loads(json.dumps(diagnose(healthy(0), num_codes=C).to_dict(), allow_nan=False))
    assert record["verdict"] == "healthy"
    assert [c["name"] for c in record["collapses"]] == list(NAMES)
    for collapse in record["collapses"]:
        assert collapse["measures"]
        for measure in collapse["measures"]:
            assert {"name", "value", "random", "ideal", "meaning", "verdict"} == measure.keys()


def test_features_from_a_file_of_somebody_else(tmp_path):
    features = healthy(0)
    features.save(tmp_path / "features.npz")
    assert diagnose(load_features(tmp_path / "features.npz")).verdict == "healthy"
    assert diagnose(str(tmp_path / "features.npz")).verdict == "healthy"


def test_tensors_and_arrays_need_no_features():
    z = noise(200, 16, seed=3)
    expected = diagnose(Features(z=z), reference=Features(z=z.exp()))
    for given in (z.clone().requires_grad_(), z.double().numpy(), z.tolist()):
        assert diagnose(given, reference=z.exp()).to_dict() == expected.to_dict()
    with pytest.raises(InputError, match="NaN"):
        diagnose(z.numpy() * float("nan"))


def test_the_same_seed_gives_the_same_diagnosis():
    assert diagnose(healthy(3), num_codes=C) == diagnose(healthy(3), num_codes=C)


@pytest.mark.parametrize(
    ("features", "options", "message"),
    [
        (Features(z=torch.ones(1, 4)), {}, "number of samples is too small: received 1"),
        (Features(z=torch.eye(9)), {}, "expected >= 10; diagnose more images"),
        (Features(z=torch.eye(12)), {"num_clusters": 13}, "13 clusters for 12 samples"),
        (Features(z=torch.eye(12)), {"num_clusters": 1}, "num_clusters is too small"),
        (Features(z=torch.eye(12)), {"dictionary": torch.eye(5)}, "u has the wrong width"),
        (Features(z=torch.eye(12)), {"dictionary": torch.zeros(2, 12)}, "2 zero rows"),
        (Features(z=torch.eye(12), code=torch.arange(12)), {"num_codes": 3}, "codes do not fit"),
    ],
)
def test_bad_input(features, options, message):
    with pytest.raises(InputError, match=message):
        diagnose(features, **options)


def test_limits_are_first_values_in_both_directions():
    grows = Rule("a", warning=0.5, collapsed=0.9)
    assert [grows.assess(x) for x in (0.49, 0.5, 0.89, 0.9)] == [
        "healthy", "warning", "warning", "collapsed",
    ]  # fmt: skip
    shrinks = Rule("b", warning=8, collapsed=4)
    assert [shrinks.assess(x) for x in (8.1, 8, 4.1, 4)] == [
        "healthy", "warning", "warning", "collapsed",
    ]  # fmt: skip
    assert Rule("c").assess(1e9) == "unknown"
    assert worst([]) == "unknown"
    assert worst(["unknown", "healthy"]) == "healthy"


def test_every_collapse_has_a_rule_that_judges():
    assert all(any(rule.warning is not None for rule in rules) for rules in RULES.values())
