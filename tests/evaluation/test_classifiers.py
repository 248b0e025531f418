"""Linear probe and kNN against scikit-learn, and against what they must and must not find."""

import pytest
import torch

from falcon_ssl.core.errors import InputError
from falcon_ssl.data import load_splits
from falcon_ssl.evaluation import Features
from falcon_ssl.evaluation import linear_probe as module
from falcon_ssl.evaluation.knn import knn
from falcon_ssl.evaluation.linear_probe import (
    _Fold,
    _image_of,
    _left_out,
    fit_logistic_regression,
    fit_probe,
    linear_probe,
)


def pixels() -> tuple[Features, Features]:
    """Digits as 64 numbers in [0, 1]."""
    splits = load_splits("digits")
    assert splits.test is not None
    return tuple(
        Features(z=part.images(torch.arange(len(part))).flatten(1) / 255, label=part.labels)
        for part in (splits.train, splits.test)
    )


def blobs(num_rows: int, *, num_classes: int, distance: float, seed: int) -> Features:
    generator = torch.Generator().manual_seed(seed)
    label = torch.arange(num_rows) % num_classes
    z = torch.randn(num_rows, 16, generator=generator)
    z[:, :num_classes] += distance * torch.eye(num_classes)[label]
    return Features(z=z, label=label)


def test_logistic_regression_finds_the_minimum_of_scikit_learn():
    from sklearn.linear_model import LogisticRegression

    train, test = pixels()
    x_ND, label_N, alpha = train.z - train.z.mean(0), train.label, 1e-3
    weight_DK, bias_K = fit_logistic_regression(
        x_ND, label_N, num_classes=10, alpha=alpha, tolerance=1e-5
    )
    theirs = LogisticRegression(C=1 / (alpha * len(x_ND)), max_iter=1000, tol=1e-6)
    theirs.fit(x_ND.numpy(), label_N.numpy())
    # Weights are up to 2.5; a gradient of 1e-5 at curvature alpha leaves each within 1e-5 / alpha.
    torch.testing.assert_close(
        weight_DK.T, torch.from_numpy(theirs.coef_).float(), atol=1e-2, rtol=0
    )
    x_test = test.z - train.z.mean(0)
    agree = torch.from_numpy(theirs.predict(x_test.numpy())) == (
        x_test @ weight_DK + bias_K
    ).argmax(dim=1)
    assert agree.double().mean() >= 0.995


def test_a_good_start_does_not_change_the_minimum():
    train, _ = pixels()
    x_ND = train.z - train.z.mean(0)
    fit = {"num_classes": 10, "alpha": 1e-2, "tolerance": 1e-5}
    cold = fit_logistic_regression(x_ND, train.label, **fit)
    warm = fit_logistic_regression(
        x_ND,
        train.label,
        start=fit_logistic_regression(x_ND, train.label, num_classes=10, alpha=1e-1),
        **fit,
    )
    torch.testing.assert_close(cold[0], warm[0], atol=1e-2, rtol=0)


def test_a_penalty_that_is_given_is_not_chosen(monkeypatch):
    train = blobs(60, num_classes=4, distance=1.0, seed=0)
    monkeypatch.setattr(module, "_chosen", None)  # is not called
    (weak, _), (strong, _) = (
        fit_probe(train, num_classes=4, penalty=penalty).classifier for penalty in (1e-2, 10.0)
    )
    assert strong.norm() < 0.2 * weak.norm()


@pytest.mark.parametrize("num_images", [40, 1500])
def test_rows_of_one_image_are_left_out_together(num_images):
    image = Features(z=torch.randn(num_images, 3), index=torch.randperm(num_images) * 7)
    twice = Features.joined([image, image])
    once_N, twice_N = _image_of(image), _image_of(twice)
    assert torch.equal(once_N.sort().values, torch.arange(num_images))
    label_N = torch.arange(num_images).repeat(2)
    for one, left_out in zip(_left_out(once_N, 0), _left_out(twice_N, 0), strict=True):
        assert torch.equal(one, left_out)
        fold = _Fold.of(twice.z, label_N, twice_N, left_out)
        assert len(fold.x) == 2 * len(fold.x_left_out) * 4 == 2 * num_images * 4 // 5
        assert not set(fold.y.tolist()) & set(fold.y_left_out.tolist())
        assert torch.equal(image.z[fold.y_left_out], fold.x_left_out), "its mean, with its label"


def test_linear_probe_on_raw_digits_is_as_good_as_known():
    # Logistic regression on the pixels of scikit-learn's digits reaches about 0.96.
    assert linear_probe(*pixels(), num_classes=10)["top1_linear"] >= 0.94


def test_knn_on_raw_digits_is_as_good_as_known():
    assert knn(*pixels(), num_classes=10)["top1_knn"] >= 0.96


def test_separated_blobs_are_read_perfectly():
    train = blobs(400, num_classes=4, distance=20, seed=0)
    test = blobs(100, num_classes=4, distance=20, seed=1)
    assert linear_probe(train, test, num_classes=4) == {"top1_linear": 1.0}
    assert knn(train, test, num_classes=4) == {"top1_knn": 1.0}


def test_negative_control_noise_reads_as_chance():
    train = blobs(800, num_classes=4, distance=0, seed=0)
    test = blobs(800, num_classes=4, distance=0, seed=1)
    # 800 draws at 1/4: standard deviation 0.015; six of them.
    assert linear_probe(train, test, num_classes=4)["top1_linear"] == pytest.approx(0.25, abs=0.09)
    assert knn(train, test, num_classes=4)["top1_knn"] == pytest.approx(0.25, abs=0.09)


def test_constant_features_read_as_the_largest_class():
    label = torch.tensor([0] * 30 + [1] * 10)
    same = Features(z=torch.full((40, 5), 0.1), label=label)
    assert linear_probe(same, same, num_classes=2)["top1_linear"] == 0.75


def test_the_probe_ignores_scale_and_shift_of_features():
    train = blobs(300, num_classes=4, distance=2, seed=0)
    test = blobs(300, num_classes=4, distance=2, seed=1)
    scale_D = torch.logspace(-3, 3, 16)
    moved = [Features(z=part.z * scale_D + scale_D, label=part.label) for part in (train, test)]
    plain = linear_probe(train, test, num_classes=4)["top1_linear"]
    # The same problem up to float32 rounding: at most a sample or two on the border.
    assert linear_probe(*moved, num_classes=4)["top1_linear"] == pytest.approx(plain, abs=0.01)


def test_top5_appears_above_ten_classes():
    train = blobs(240, num_classes=12, distance=3, seed=0)
    test = blobs(120, num_classes=12, distance=3, seed=1)
    found = linear_probe(train, test, num_classes=12)
    assert set(found) == {"top1_linear", "top5_linear"}
    assert found["top1_linear"] < found["top5_linear"] <= 1


def test_knn_votes_by_hand():
    memory = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.1, 1.0]])
    label = torch.tensor([0, 1, 1])
    memory = Features(z=memory, label=label)
    zero, one = (Features(z=torch.tensor([[1.0, 0.2]]), label=torch.tensor([c])) for c in (0, 1))
    assert knn(memory, zero, num_classes=2, k=1) == {"top1_knn": 1.0}
    # A soft temperature counts heads: two rows of class 1 beat one of class 0.
    assert knn(memory, one, num_classes=2, k=3, temperature=100) == {"top1_knn": 1.0}
    # A sharp one follows the nearest, without overflow of exp(1 / 1e-4).
    assert knn(memory, zero, num_classes=2, k=3, temperature=1e-4) == {"top1_knn": 1.0}


def test_knn_does_not_depend_on_blocks_and_scale():
    train = blobs(200, num_classes=4, distance=1, seed=0)
    test = blobs(50, num_classes=4, distance=1, seed=1)
    scaled = Features(z=7 * test.z, label=test.label)
    whole = knn(train, test, num_classes=4)
    assert 0.3 < whole["top1_knn"] < 1
    assert knn(train, scaled, num_classes=4, block_size=3) == whole


@pytest.mark.parametrize("evaluator", [linear_probe, knn])
def test_bad_input(evaluator):
    good = blobs(40, num_classes=4, distance=1, seed=0)
    with pytest.raises(InputError, match="test features have no labels"):
        evaluator(good, Features(z=good.z), num_classes=4)
    with pytest.raises(InputError, match="a train label is too large: received 3"):
        evaluator(good, good, num_classes=3)
    with pytest.raises(InputError, match="train and test differ in width: received 16 and 2"):
        evaluator(good, Features(z=torch.ones(3, 2), label=torch.zeros(3).long()), num_classes=4)
    with pytest.raises(InputError, match="num_classes is too small"):
        evaluator(good, good, num_classes=1)


def test_the_probe_needs_a_train_split_that_can_be_split():
    tiny = blobs(9, num_classes=3, distance=1, seed=0)
    with pytest.raises(InputError, match="number of train features is too small: received 9"):
        linear_probe(tiny, tiny, num_classes=3)


@pytest.mark.parametrize("option", [{"k": 0}, {"temperature": 0.0}, {"temperature": float("nan")}])
def test_bad_knn_options(option):
    good = blobs(40, num_classes=4, distance=1, seed=0)
    with pytest.raises(InputError, match="is too small"):
        knn(good, good, num_classes=4, **option)
