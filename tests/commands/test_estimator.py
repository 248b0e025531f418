"""FalconEncoder keeps scikit-learn's contract, learns, and stands in a pipeline."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import check_estimator

from falcon_ssl.commands import FalconEncoder
from falcon_ssl.core.errors import InputError

SMALL = FalconEncoder(width=16, embed_dim=8, epochs=2, random_state=0, device="cpu")


@pytest.mark.filterwarnings("ignore")  # checks that need another package say that they are skipped
def test_scikit_learn_has_no_objection() -> None:
    check_estimator(SMALL)


def test_images_in_a_pipeline_are_told_apart_with_few_labels() -> None:
    digits = load_digits()
    images, labels = (digits.images / 16).astype(np.float32), digits.target
    encoder = FalconEncoder(embed_dim=128, epochs=10, random_state=0, device="cpu")
    pipeline = make_pipeline(encoder, KNeighborsClassifier(5)).fit(images[:1400], labels[:1400])
    assert pipeline.score(images[1400:], labels[1400:]) > 0.9
    assert set(encoder.terms_) >= {"total", "invariance", "prior_matching"}
    z = encoder.transform(images[:3])
    assert z.shape == (3, len(encoder.get_feature_names_out()))
    again = clone(encoder).fit(images[:1400])
    assert np.array_equal(again.transform(images[:3]), z), "the same seed, the same encoder"


def test_the_global_generator_stays_as_it_was() -> None:
    state = torch.get_rng_state()
    SMALL.fit(np.random.default_rng(0).normal(size=(20, 4)))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("options", "shape", "words"),
    [
        ({"encoder": "resnet18"}, (20, 4), "encoders by name are for images"),
        ({"corruption": 0}, (20, 4), "corruption is out of range"),
        ({"encoder": "resnet"}, (20, 8, 8), "unknown encoder"),
        ({}, (20, 8, 8, 1, 1), "holds no images"),
        ({"embed_dim": 0}, (20, 4), "embed_dim"),
        ({"batch_size": 1}, (20, 4), "batch_size is too small"),
        ({"epochs": 0}, (20, 4), "epochs is too small"),
        ({"width": 0}, (20, 4), "width is too small"),
        ({"lr": -1e-3}, (20, 8, 8), "lr"),
    ],
)
def test_wrong_use(options: dict[str, object], shape: tuple[int, ...], words: str) -> None:
    with pytest.raises(InputError, match=words):
        clone(SMALL).set_params(**options).fit(np.random.default_rng(0).random(shape))


def test_images_of_another_size_are_refused() -> None:
    images = np.random.default_rng(0).random((20, 8, 8))
    encoder = clone(SMALL).fit(images)
    with pytest.raises(InputError, match="another shape"):
        encoder.transform(images[:, :, :7])


def test_features_keep_what_tells_rows_apart() -> None:
    X, y = load_digits(return_X_y=True)
    encoder = FalconEncoder(embed_dim=128, epochs=10, random_state=0, device="cpu")
    found = make_pipeline(encoder, LogisticRegression(max_iter=500)).fit(X[:1400], y[:1400])
    assert found.score(X[1400:], y[1400:]) > 0.85
