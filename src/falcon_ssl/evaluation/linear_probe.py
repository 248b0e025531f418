"""Linear probe: how well a linear classifier reads the classes off frozen representations."""

from __future__ import annotations

import math
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from falcon_ssl.evaluation.features import Features
from falcon_ssl.evaluation.labels import check_labeled_pair

ALPHAS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)  # from strong to weak: each start is near the next
ROUGH = 1e-3  # tolerance while the penalty is chosen: 3 times faster, top-1 within 0.003
HELD_OUT = 0.2  # fraction of train on which the penalty is chosen
TOP5_FROM_CLASSES = 11  # top-5 of ten classes would say little
Classifier: TypeAlias = tuple[Tensor, Tensor]  # W [D, K] and b [K] of x -> x W + b


def linear_probe(
    train: Features,
    test: Features,
    *,
    num_classes: int,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> dict[str, float]:
    """Accuracy of multinomial logistic regression on standardized representations.

    z is standardized with the mean and standard deviation of train. The strength of the L2 penalty
    is the one of least cross-entropy on a held-out part of train (``ALPHAS``, strong to weak, until
    it rises); then the classifier is fitted again on all of train. Test is touched once.

    Args:
        train: Labeled features, at least 10.
        test: Labeled features of the same width.
        num_classes: K.
        seed: Of the split of train.
        device: Where to compute.

    Returns:
        ``top1_linear``, and ``top5_linear`` for more than ten classes; both in [0, 1].

    Raises:
        InputError: If labels are missing or beyond ``num_classes``, the widths differ, or train has
            fewer than 10 rows.
    """
    train_label, test_label = check_labeled_pair(train, test, num_classes=num_classes, least=10)
    mean_D, std_D = train.z.mean(dim=0), train.z.std(dim=0)
    # A feature that is constant up to float32 rounding becomes 0, rather than amplified noise.
    scale_D = torch.where(std_D > 1e-6 * mean_D.abs(), std_D, torch.inf)
    x_ND = ((train.z - mean_D) / scale_D).to(device)
    y_N = train_label.to(device)

    order_N = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed)).to(device)
    chosen, fitted = order_N.tensor_split([max(1, round(HELD_OUT * len(train)))])
    x_fitted, y_fitted, x_chosen, y_chosen = x_ND[fitted], y_N[fitted], x_ND[chosen], y_N[chosen]
    fit = partial(fit_logistic_regression, num_classes=num_classes)
    best_alpha, best, classifier, least_loss = ALPHAS[0], None, None, math.inf
    for alpha in ALPHAS:
        classifier = fit(x_fitted, y_fitted, alpha=alpha, start=classifier, tolerance=ROUGH)
        loss = float(cross_entropy(_logits(classifier, x_chosen), y_chosen))
        if loss >= least_loss:
            break
        best_alpha, best, least_loss = alpha, classifier, loss
    classifier = fit(x_ND, y_N, alpha=best_alpha, start=best)

    logits_NK = _logits(classifier, ((test.z - mean_D) / scale_D).to(device)).cpu()
    found = {"top1_linear": _top_k(logits_NK, test_label, k=1)}
    if num_classes >= TOP5_FROM_CLASSES:
        found["top5_linear"] = _top_k(logits_NK, test_label, k=5)
    return found


def fit_logistic_regression(
    x_ND: Tensor,
    label_N: Tensor,
    *,
    num_classes: int,
    alpha: float,
    start: Classifier | None = None,
    tolerance: float = 1e-4,
) -> Classifier:
    """Minimise mean cross-entropy + alpha/2 ||W||^2 (the bias is free) by full-batch L-BFGS.

    The Hessian is bounded by 1/2 x^T x / N + alpha I for each class (Boehning, 1992), so we solve
    for T in W = P T with P = (1/2 x^T x / N + alpha I)^(-1/2): the same minimum, reached in far
    fewer steps when features are correlated. scikit-learn's C is 1 / (alpha N).

    Args:
        x_ND: Features [N, D], float32 or float64, roughly centered.
        label_N: Classes [N], int64.
        num_classes: K.
        alpha: Strength of the penalty, > 0.
        start: Classifier to start from; zero when None.
        tolerance: Stops when no entry of the preconditioned gradient is larger.

    Returns:
        W [D, K] and b [K] at the minimum.
    """
    eigenvalue_D, eigenvector_DD = torch.linalg.eigh(x_ND.T @ x_ND / (2 * len(x_ND)))
    bound_D = eigenvalue_D.clamp(min=0) + alpha
    root_DD = (eigenvector_DD * bound_D.rsqrt()) @ eigenvector_DD.T
    if start is None:
        t_DK = x_ND.new_zeros(x_ND.shape[1], num_classes)
        bias_K = x_ND.new_zeros(num_classes)
    else:
        t_DK = (eigenvector_DD * bound_D.sqrt()) @ (eigenvector_DD.T @ start[0])
        bias_K = start[1].clone()
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

    def closure() -> float:
        solver.zero_grad()
        weight_DK = root_DD @ t_DK
        loss = cross_entropy(torch.addmm(bias_K, x_ND, weight_DK), label_N)
        loss = loss + alpha / 2 * weight_DK.square().sum()
        loss.backward()
        return float(loss.detach())

    solver.step(closure)  # type: ignore[no-untyped-call]
    return (root_DD @ t_DK).detach(), bias_K.detach()


def _logits(classifier: Classifier, x_ND: Tensor) -> Tensor:
    weight_DK, bias_K = classifier
    return x_ND @ weight_DK + bias_K


def _top_k(logits_NK: Tensor, label_N: Tensor, *, k: int) -> float:
    hit_Nk = logits_NK.topk(k, dim=1).indices == label_N[:, None]
    return float(hit_Nk.any(dim=1).double().mean())
