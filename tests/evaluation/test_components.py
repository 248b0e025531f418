"""Principal components without a covariance matrix, and the classifiers that read wide features through them."""

import pytest
import torch

from falcon_ssl.core.errors import InputError
from falcon_ssl.evaluation import Features, components, linear_probe
from falcon_ssl.evaluation.components import Standardization, principal_axes, whitened
from falcon_ssl.evaluation.knn import knn
from falcon_ssl.evaluation.linear_probe import Curvature, fit_logistic_regression


def rows(num: int = 2000, width: int = 60, *, seed: int = 0) -> torch.Tensor:
    """Centered, with variances 1, 1/2, 1/4, ... along random axes."""
    generator = torch.Generator().manual_seed(seed)
    rotation = torch.linalg.qr(
        torch.randn(width, width, generator=torch.Generator().manual_seed(9))
    )[0]
    scale = 2 ** (-torch.arange(width) / 2)
    return (torch.randn(num, width, generator=generator) * scale) @ rotation


def classes(num: int, *, copies: int, seed: int) -> Features:
    """Four classes in two numbers, beside three nuisances that are written down many times."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.arange(num) % 4
    signs = torch.stack([label // 2, label % 2], dim=1) * 2.0 - 1
    informative = signs + 0.3 * torch.randn(num, 2, generator=generator)
    nuisance = torch.randn(num, 3, generator=generator).repeat(1, copies)
    return Features(z=torch.cat([informative, nuisance], dim=1), label=label)


def test_axes_are_the_leading_eigenvectors():
    x = rows()
    axes, variance = principal_axes(x, 5)
    exact, vectors = torch.linalg.eigh(x.T @ x / len(x))
    torch.testing.assert_close(variance, exact.flip(0)[:5], rtol=1e-4, atol=0)
    torch.testing.assert_close(axes.T @ axes, torch.eye(5), rtol=0, atol=1e-5)
    cosine = (axes * vectors.flip(1)[:, :5]).sum(dim=0).abs()
    torch.testing.assert_close(cosine, torch.ones(5), rtol=0, atol=1e-3)
    again, _ = principal_axes(x, 5)
    assert torch.equal(axes, again)
    assert principal_axes(x, 1000)[0].shape == (60, 60)
    assert principal_axes(x[:20], 1000)[0].shape == (60, 19)


def test_whitened_rows_are_white():
    train, test = whitened(3 + rows(), 3 + rows(50, seed=1), 8)
    assert test.shape == (50, 8)
    torch.testing.assert_close(torch.cov(train.T, correction=0), torch.eye(8), rtol=0, atol=1e-3)
    x = rows()  # negative control
    assert (torch.cov(x.T, correction=0) - torch.eye(60)).abs().max() > 0.1


def test_directions_without_variance_stay_at_zero():
    z = torch.randn(100, 1, generator=torch.Generator().manual_seed(0)).expand(-1, 6)
    train, test = whitened(z, z, 4)
    assert train.isfinite().all()
    assert torch.equal(train, test)
    assert train[:, 1:].abs().max() < 1e-3 < train[:, 0].abs().max()


def test_standardization_equals_that_of_torch():
    z = 5 + rows() * torch.logspace(-3, 3, 60)
    z[:, 7] = 0.1
    x = Standardization.of(z)(z)
    want = (z - z.mean(dim=0)) / z.std(dim=0)
    torch.testing.assert_close(x[:, :7], want[:, :7], rtol=1e-4, atol=1e-4)
    assert (x[:, 7] == 0).all()


def test_knn_on_components_sees_what_copies_hide():
    train, test = (classes(num, copies=100, seed=seed) for num, seed in ((800, 0), (400, 1)))
    plain = knn(train, test, num_classes=4)["top1_knn"]
    white = knn(train, test, num_classes=4, components=5)["top1_knn"]
    assert plain < 0.8
    assert white > 0.95
    with pytest.raises(InputError, match="components is too small"):
        knn(train, test, num_classes=4, components=0)


def test_leading_axes_lead_to_the_same_minimum(monkeypatch: pytest.MonkeyPatch):
    train = classes(800, copies=10, seed=0)
    fit = {"num_classes": 4, "alpha": 1e-2, "tolerance": 1e-6}
    exact = fit_logistic_regression(train.z, train.label, **fit)
    monkeypatch.setattr(linear_probe, "EXACT_WIDTH", 4)
    monkeypatch.setattr(linear_probe, "AXES", 3)
    curvature = Curvature.of(train.z)
    assert curvature.axes_DR.shape == (32, 3)
    few = fit_logistic_regression(train.z, train.label, curvature=curvature, **fit)
    for found, want in zip(few, exact, strict=True):
        torch.testing.assert_close(found, want, rtol=0, atol=1e-3)


def test_bfloat16_features_give_nearly_the_same_classifier():
    train = classes(800, copies=10, seed=0)
    half = train.z.bfloat16()
    fit = {"num_classes": 4, "alpha": 1e-2, "tolerance": 1e-6}
    want = fit_logistic_regression(half.float(), train.label, **fit)
    curvature = Curvature.of(half.float())
    found = fit_logistic_regression(half, train.label, curvature=curvature, **fit)
    scores, theirs = (half.float() @ weight + bias for weight, bias in (found, want))
    # Products are rounded to bfloat16, 2^-9 of each.
    assert (scores - theirs).abs().max() < 0.03 * theirs.abs().max()
    assert (scores.argmax(dim=1) == theirs.argmax(dim=1)).double().mean() > 0.995


def test_wide_features_are_read_as_well(monkeypatch: pytest.MonkeyPatch):
    train, test = (classes(num, copies=60, seed=seed) for num, seed in ((800, 0), (400, 1)))
    want = linear_probe.linear_probe(train, test, num_classes=4)["top1_linear"]
    for module, name, value in (
        (components, "WIDE", 10),
        (linear_probe, "EXACT_WIDTH", 10),
        (linear_probe, "AXES", 4),
    ):
        monkeypatch.setattr(module, name, value)
    found = linear_probe.linear_probe(train, test, num_classes=4)["top1_linear"]
    assert found == pytest.approx(want, abs=0.005)
    assert want > 0.95
