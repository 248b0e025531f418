"""Linear probe: how well a linear classifier reads the classes off frozen representations."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from falcon_ssl.evaluation.components import ROWS, Standardization, principal_axes
from falcon_ssl.evaluation.features import Features
from falcon_ssl.evaluation.labels import check_labeled_pair

ALPHAS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)  # from strong to weak: each start is near the next
ROUGH = 1e-3  # tolerance while the penalty is chosen: 3 times faster, top-1 within 0.003
FINE = 1e-4
FINE_HALF = 3e-4  # of products in bfloat16, whose rounding a line search sees below it
LEAST = 10  # rows
HELD_OUT = 0.2  # fraction of train on which the penalty is chosen
FOLDS, SMALL = 5, 1000  # fewer rows choose it by five folds: a fifth of them would be noise
EXACT_WIDTH = 1024  # up to which all axes of the covariance are used, and not only the leading ones
AXES = 256  # of wider features
TOP5_FROM_CLASSES = 11  # top-5 of ten classes would say little
Classifier: TypeAlias = tuple[Tensor, Tensor]  # W [D, K] and b [K] of x -> x W + b


def linear_probe(
    train: Features,
    test: Features,
    *,
    num_classes: int,
    penalty: float | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> dict[str, float]:
    """Accuracy of multinomial logistic regression on standardized representations.

    z is standardized with the mean and standard deviation of train. The strength of the L2 penalty, unless it is given,
    is the one of least cross-entropy on a held-out part of train (``ALPHAS``, strong to weak, until
    it rises), or on five parts in turn where train is small; then the classifier is fitted again on all of train.
    Test is touched once.

    Args:
        train: Labeled features, at least 10.
        test: Labeled features of the same width.
        num_classes: K.
        penalty: Of the mean cross-entropy, see `fit_logistic_regression`; None chooses it.
        seed: Of the split of train.
        device: Where to compute.

    Returns:
        ``top1_linear``, and ``top5_linear`` for more than ten classes; both in [0, 1].

    Raises:
        InputError: If labels are missing or beyond ``num_classes``, the widths differ, or train has
            fewer than 10 rows.
    """
    _, test_label = check_labeled_pair(train, test, num_classes=num_classes, least=LEAST)
    probe = fit_probe(train, num_classes=num_classes, penalty=penalty, seed=seed, device=device)
    x_ND = probe.standardized(test.z, device=device)
    logits_NK = _logits(probe.classifier, x_ND).cpu()
    found = {"top1_linear": _top_k(logits_NK, test_label, k=1)}
    if num_classes >= TOP5_FROM_CLASSES:
        found["top5_linear"] = _top_k(logits_NK, test_label, k=5)
    return found


class Probe(NamedTuple):
    """A fitted linear probe.

    Args:
        standardized: What standardizes z.
        classifier: W and b of standardized z.
    """

    standardized: Standardization
    classifier: Classifier

    def on_z(self) -> Classifier:
        """W and b of z itself, float32."""
        weight_DK, bias_K = (part.float().cpu() for part in self.classifier)
        weight_DK = weight_DK / self.standardized.scale_D[:, None]
        return weight_DK, bias_K - self.standardized.mean_D @ weight_DK


def fit_probe(
    train: Features,
    *,
    num_classes: int,
    penalty: float | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> Probe:
    """Fit the probe of `linear_probe`, whose arguments these are.

    Rows of train with the same ``index`` are one image, which is left out as a whole, and then read by their mean.
    """
    train_label, _ = check_labeled_pair(train, train, num_classes=num_classes)
    standardized = Standardization.of(train.z)
    x_ND, y_N = standardized(train.z, device=device), train_label.to(device)
    fit = partial(fit_logistic_regression, num_classes=num_classes, curvature=Curvature.of(x_ND))
    best, tolerance = None, FINE_HALF if x_ND.dtype == torch.bfloat16 else FINE
    if penalty is None:
        penalty, best = _chosen(x_ND, y_N, _image_of(train).to(x_ND.device), seed=seed, fit=fit)
    return Probe(standardized, fit(x_ND, y_N, alpha=penalty, start=best, tolerance=tolerance))


def _chosen(
    x_ND: Tensor, y_N: Tensor, image_N: Tensor, *, seed: int, fit: Callable[..., Classifier]
) -> tuple[float, Classifier | None]:
    """The penalty of least cross-entropy on images that are left out, and a classifier to start from."""
    folds = [_Fold.of(x_ND, y_N, image_N, part) for part in _left_out(image_N, seed)]
    classifiers: list[Classifier | None] = [None] * len(folds)
    best_alpha, best, least_loss = ALPHAS[0], classifiers[0], math.inf
    for alpha in ALPHAS:
        fitted = [
            fit(fold.x, fold.y, alpha=alpha, start=start, tolerance=ROUGH)
            for fold, start in zip(folds, classifiers, strict=True)
        ]
        loss = math.fsum(fold.loss(one) for fold, one in zip(folds, fitted, strict=True))
        if loss >= least_loss:
            break
        classifiers = list(fitted)
        best_alpha, best, least_loss = alpha, fitted[0], loss
    return best_alpha, best


def _image_of(train: Features) -> Tensor:
    """The number of each row's image, int64 [N]: 0 to M - 1."""
    if train.index is not None:
        image_N: Tensor
        unique_M, image_N = torch.unique(train.index, return_inverse=True)
        if len(unique_M) < len(train):
            return image_N
    return torch.arange(len(train))


def _left_out(image_N: Tensor, seed: int) -> list[Tensor]:
    """Images that are left out to choose the penalty: five parts in turn, or a fifth of many."""
    count = int(image_N.max()) + 1
    order_M = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    if LEAST <= count < SMALL:
        return list(order_M.tensor_split(FOLDS))
    return [order_M[: max(1, round(HELD_OUT * count))]]


class _Fold(NamedTuple):
    """Rows to fit, and images left out to choose the penalty, each read as test is: by the mean of its rows."""

    x: Tensor
    y: Tensor
    x_left_out: Tensor
    y_left_out: Tensor

    @classmethod
    def of(cls, x_ND: Tensor, y_N: Tensor, image_N: Tensor, left_out_M: Tensor) -> _Fold:
        is_left_out_N = torch.isin(image_N, left_out_M.to(image_N.device))
        x_left_out, y_left_out = x_ND[is_left_out_N], y_N[is_left_out_N]
        if len(left_out_M) < len(y_left_out):
            _, row_R = torch.unique(image_N[is_left_out_N], return_inverse=True)
            sum_MD = torch.zeros(len(left_out_M), x_ND.shape[1], device=x_ND.device)
            sum_MD.index_add_(0, row_R, x_left_out.float())
            x_left_out = (sum_MD / row_R.bincount()[:, None]).to(x_ND.dtype)
            y_left_out = y_left_out.new_zeros(len(left_out_M)).index_copy_(0, row_R, y_left_out)
        return cls(x_ND[~is_left_out_N], y_N[~is_left_out_N], x_left_out, y_left_out)

    def loss(self, classifier: Classifier) -> float:
        """Summed cross-entropy of the rows that are left out."""
        logits_NK = _logits(classifier, self.x_left_out)
        return float(cross_entropy(logits_NK, self.y_left_out, reduction="sum"))


class Curvature(NamedTuple):
    """Covariance of the features, as far as it speeds up the fit: exact axes, and the rest as a multiple of I.

    x^T x / N ~ V diag(e) V^T + r (I - V V^T)
    """

    axes_DR: Tensor
    variance_R: Tensor
    rest: float

    @classmethod
    def of(cls, x_ND: Tensor) -> Curvature:
        """All axes of narrow features, the leading ones of wide features."""
        width = x_ND.shape[1]
        if width <= EXACT_WIDTH:
            variance_D, axes_DD = torch.linalg.eigh(x_ND.T @ x_ND / len(x_ND))
            return cls(axes_DD, variance_D.clamp(min=0), 0.0)
        axes_DR, variance_R = principal_axes(x_ND, AXES)
        total = float(x_ND[:ROWS].float().square().mean()) * width
        rest = max(0.0, total - float(variance_R.sum())) / (width - len(variance_R))
        return cls(axes_DR, variance_R, rest)

    def times(self, w_DK: Tensor, *, alpha: float, power: float) -> Tensor:
        """(1/2 x^T x / N + alpha I)^power W."""
        rest = math.pow(self.rest / 2 + alpha, power)
        scale_R = (self.variance_R / 2 + alpha) ** power - rest
        # (w^T V V^T)^T: 4 times faster than V V^T w.
        inside_DK: Tensor = ((w_DK.T @ self.axes_DR * scale_R) @ self.axes_DR.T).T
        return (inside_DK + rest * w_DK).contiguous()


def fit_logistic_regression(
    x_ND: Tensor,
    label_N: Tensor,
    *,
    num_classes: int,
    alpha: float,
    curvature: Curvature | None = None,
    start: Classifier | None = None,
    tolerance: float = FINE,
) -> Classifier:
    """Minimize mean cross-entropy + alpha/2 ||W||^2 (the bias is free) by full-batch L-BFGS.

    The Hessian is bounded by 1/2 x^T x / N + alpha I for each class (Boehning, 1992), so we solve
    for T in W = P T with P = (1/2 x^T x / N + alpha I)^(-1/2): the same minimum, reached in far
    fewer steps when features are correlated. scikit-learn's C is 1 / (alpha N).

    Args:
        x_ND: Features [N, D], floating, roughly centered. bfloat16 is multiplied by two bfloat16 parts of the other
            factor: a line search sees steps that are smaller than the rounding of a weight.
        label_N: Classes [N], int64.
        num_classes: K.
        alpha: Strength of the penalty, > 0.
        curvature: Of x or of rows alike; None computes it.
        start: Classifier to start from; zero when None.
        tolerance: Stops when no entry of the preconditioned gradient is larger.

    Returns:
        W [D, K] and b [K] at the minimum.
    """
    curvature = curvature or Curvature.of(x_ND)
    scaled = partial(curvature.times, alpha=alpha)
    dtype = torch.float32 if x_ND.dtype == torch.bfloat16 else x_ND.dtype
    t_DK = torch.zeros(x_ND.shape[1], num_classes, dtype=dtype, device=x_ND.device)
    bias_K = t_DK.new_zeros(num_classes)
    if start is not None:
        t_DK, bias_K = scaled(start[0], power=0.5), start[1].clone()
    t_DK.requires_grad_()
    bias_K.requires_grad_()
    solver = torch.optim.LBFGS(
        [t_DK, bias_K],
        max_iter=200,
        tolerance_grad=tolerance,
        tolerance_change=1e-9,
        history_size=20,
        line_search_fn="strong_wolfe",
    )
    rows_N = torch.arange(len(x_ND), device=x_ND.device)

    @torch.no_grad()
    def closure() -> float:
        #   l = mean_i -log p_i(y_i) + alpha/2 ||W||^2,   dl/dlogits = (p - onehot(y)) / N
        weight_DK = scaled(t_DK, power=-0.5)
        log_p_NK = (_scores(x_ND, weight_DK) + bias_K).log_softmax(dim=1)
        loss = -log_p_NK[rows_N, label_N].mean() + alpha / 2 * weight_DK.square().sum()
        g_NK = log_p_NK.exp_()
        g_NK[rows_N, label_N] -= 1
        g_NK /= len(x_ND)
        slope_DK = _slope(x_ND, g_NK) + alpha * weight_DK
        t_DK.grad, bias_K.grad = scaled(slope_DK, power=-0.5), g_NK.sum(dim=0)
        return float(loss)

    solver.step(closure)  # type: ignore[no-untyped-call]
    return scaled(t_DK, power=-0.5).detach(), bias_K.detach()


def _scores(x_ND: Tensor, w_DK: Tensor) -> Tensor:
    """X W, in float32 where x is bfloat16."""
    if x_ND.dtype != torch.bfloat16:
        return x_ND @ w_DK
    high, low = (x_ND @ _two_parts(w_DK)).float().chunk(2, dim=1)
    return high + low


def _slope(x_ND: Tensor, g_NK: Tensor) -> Tensor:
    """X^T G, as (G^T X)^T, which is 7 times faster."""
    if x_ND.dtype != torch.bfloat16:
        return (g_NK.T @ x_ND).T
    high, low = (_two_parts(g_NK).T @ x_ND).float().chunk(2)
    return (high + low).T


def _two_parts(w: Tensor) -> Tensor:
    """A float32 matrix as two of bfloat16 side by side: what one can hold, and the rest."""
    high = w.to(torch.bfloat16)
    return torch.cat([high, (w - high.float()).to(torch.bfloat16)], dim=1)


def _logits(classifier: Classifier, x_ND: Tensor) -> Tensor:
    weight_DK, bias_K = classifier
    return _scores(x_ND, weight_DK) + bias_K


def _top_k(logits_NK: Tensor, label_N: Tensor, *, k: int) -> float:
    hit_Nk = logits_NK.topk(k, dim=1).indices == label_N[:, None]
    return float(hit_Nk.any(dim=1).double().mean())
