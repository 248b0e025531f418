"""LeJEPA: views predict their mean, embeddings follow an isotropic Gaussian (arXiv 2511.08544).

    prediction = (1/VNF) sum_vn |z_vn - mu_n|^2,    mu_n the mean of the large views of sample n
    SIGReg(Z)  = mean over random unit directions a of  EP({<a, z_n>}_n)
    EP         = N int |phi^(t) - exp(-t^2/2)|^2 exp(-t^2/2) dt,   phi^(t) = (1/N) sum_n exp(i t <a, z_n>)
    loss       = (1 - lambda) prediction + lambda mean_v SIGReg(Z_v)

EP is the statistic of Epps and Pulley (1983) for normality. Written from the definitions. The integrand is even: twice
the trapezoidal rule on [0, limit]; at t = 5 the weight has fallen to 4e-6.

The step between points must resolve phi^, which for embeddings of scale s is exp(-s^2 t^2 / 2), 1/s wide: 9 points on
[0, 5], the paper's 17 on [-5, 5], have a step of .625. At s = 3 they pull embeddings back by 1.18 times what the
integral does, at s = 5 by .23 and at s = 6 by .04: only t = 0 is left, where nothing is to be seen. 17 points on
[0, 5] reach to s = 8 (.78), and so do 9 on [0, 3] to s = 6.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from falcon_ssl.core.checks import check_at_least, check_fraction, check_matrix, check_positive
from falcon_ssl.core.distributed import all_reduce_sum
from falcon_ssl.core.numerics import at_least_float32
from falcon_ssl.losses.rows import check_targets, check_views, global_count, numbered

LIMIT, NUM_POINTS = 5.0, 9


class LeJEPATerms(NamedTuple):
    """The loss and what it is made of: 0-dim tensors, equal on every rank; only ``total`` carries a gradient.

    Args:
        total: (1 - regularization) * prediction + regularization * sigreg.
        prediction: Mean square distance of a view to the mean of the large ones.
        sigreg: Distance from the standard Gaussian, over random directions; grows like N for any other distribution,
            sqrt(2 pi) - sqrt(2 pi / 3) = 1.06 is expected of a Gaussian sample.
    """

    total: Tensor
    prediction: Tensor
    sigreg: Tensor


def lejepa_loss(
    views: Sequence[Tensor],
    directions: Tensor,
    *,
    regularization: float = 0.05,
    num_large: int = 2,
    limit: float = LIMIT,
    num_points: int = NUM_POINTS,
) -> LeJEPATerms:
    """LeJEPA loss of two or more views.

    Args:
        views: Embeddings [N, F] of every view, large ones first (this rank's rows).
        directions: [M, F] unit rows, the same on every rank, see `random_directions`; drawn anew at every step. Pass
            them from the CPU: there ranks compare them, while reading them from an accelerator would stop it.
        regularization: lambda, in [0, 1].
        num_large: How many of the first views make the mean that all predict.
        limit: End of the integration.
        num_points: Points of the quadrature on [0, limit], at least 2.

    Returns:
        LeJEPATerms.

    Raises:
        InputError: Views that do not fit each other, fewer than two, directions of another width, an option out of
            range, or ranks that disagree.

    Distributed:
        Characteristic functions run over the rows of all ranks, with gradient; shards may differ in size. N is the
        global batch.

    Memory:
        O(N M) for the projections, and as much again for every point of the quadrature.

    Numerics:
        float32, float64 for float64.

    Example:
        >>> views = torch.randn(2, 256, 8)
        >>> bool(lejepa_loss(views, random_directions(64, 8, seed=0)).sigreg < 2)
        True
    """
    check_views(numbered("views", views), views)
    check_targets(len(views), num_large, option="num_large")
    check_fraction("regularization", regularization, fix="the paper's is 0.05")
    num_rows = global_count(
        views[0],
        lambda: (
            f"lejepa_loss, {len(views)} views, regularization={regularization}, "
            f"limit={limit}, num_points={num_points}, {_fingerprint(directions)}"
        ),
    )
    with torch.autocast(views[0].device.type, enabled=False):
        z_VNF = torch.stack([at_least_float32(view) for view in views])
        directions_MF = directions.to(z_VNF, non_blocking=True)
        mu_NF = z_VNF[:num_large].mean(dim=0)
        prediction = all_reduce_sum((z_VNF - mu_NF).square().sum()) / (
            num_rows * z_VNF[:, 0].numel()
        )
        sigreg = torch.stack(
            [_sigreg(z_NF, directions_MF, num_rows, limit, num_points) for z_NF in z_VNF]
        ).mean()
        total = (1 - regularization) * prediction + regularization * sigreg
    return LeJEPATerms(total, prediction.detach(), sigreg.detach())


def sigreg_loss(
    z: Tensor, directions: Tensor, *, limit: float = LIMIT, num_points: int = NUM_POINTS
) -> Tensor:
    """Sketched isotropic Gaussian regularization: how far rows are from a standard Gaussian, along random directions.

    Args:
        z: [N, F] (this rank's rows).
        directions: [M, F] unit rows, the same on every rank.
        limit: End of the integration.
        num_points: Points of the quadrature on [0, limit], at least 2.

    Returns:
        0-dim, with gradient, equal on every rank.

    Raises:
        InputError: Shapes that do not fit, fewer than two points, a limit that is not positive, or ranks that disagree.

    Example:
        >>> z = torch.randn(512, 8)
        >>> directions = random_directions(64, 8, seed=0)
        >>> bool(sigreg_loss(z, directions) < sigreg_loss(3 * z, directions))
        True
    """
    check_matrix("z", z)
    num_rows = global_count(
        z,
        lambda: f"sigreg_loss, limit={limit}, num_points={num_points}, {_fingerprint(directions)}",
    )
    with torch.autocast(z.device.type, enabled=False):
        z_NF = at_least_float32(z)
        directions_MF = directions.to(z_NF, non_blocking=True)
        return _sigreg(z_NF, directions_MF, num_rows, limit, num_points)


def collapsed_sigreg(limit: float = LIMIT, num_points: int = NUM_POINTS) -> float:
    """The statistic of samples that are all zero, divided by their number: int (1 - exp(-t^2/2))^2 exp(-t^2/2) dt.

    Example:
        >>> round(collapsed_sigreg(), 3)  # sqrt(2 pi) (1 - sqrt(2) + 1 / sqrt(3))
        0.409
    """
    t_P = torch.linspace(0.0, limit, num_points, dtype=torch.float64)
    gauss_P = (-t_P.square() / 2).exp()
    return 2 * float(torch.trapezoid((1 - gauss_P).square() * gauss_P, t_P))


def random_directions(num_directions: int, width: int, *, seed: int) -> Tensor:
    """Directions drawn uniformly from the sphere, a function of the seed alone.

    Args:
        num_directions: M.
        width: F, width of the embedding.
        seed: Any integer >= 0.

    Returns:
        Unit rows [M, F], float32, on the CPU.

    Raises:
        InputError: M < 1, F < 1 or seed < 0.

    Example:
        >>> random_directions(3, 2, seed=0).shape
        torch.Size([3, 2])
    """
    check_at_least("num_directions", num_directions, 1, fix="the paper takes 1024")
    check_at_least("width", width, 1, fix="use the width of the embedding")
    check_at_least("seed", seed, 0)
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(num_directions, width, generator=generator), dim=1)


def _fingerprint(directions: Tensor) -> str:
    if directions.device.type != "cpu":
        return f"directions {tuple(directions.shape)}"
    digest = hashlib.sha256(directions.detach().float().numpy().tobytes()).hexdigest()[:16]
    return f"directions {tuple(directions.shape)} {digest}"


def _sigreg(
    z_NF: Tensor, directions_MF: Tensor, num_rows: int, limit: float, num_points: int
) -> Tensor:
    check_positive("limit", limit, fix="the paper's is 5")
    check_at_least("num_points", num_points, 2, fix="the paper's are 9")
    check_matrix("directions", directions_MF, columns=z_NF.shape[1])
    x_NM = z_NF @ directions_MF.T
    t_P = torch.linspace(0.0, limit, num_points, dtype=z_NF.dtype, device=z_NF.device)
    angle_PNM = t_P[:, None, None] * x_NM
    # Real and imaginary part of phi^ together: one sum over ranks for two.
    phi_2PM = all_reduce_sum(torch.stack([angle_PNM.cos(), angle_PNM.sin()]).sum(dim=2)) / num_rows
    gauss_P = (-t_P.square() / 2).exp()
    gap_PM = (phi_2PM[0] - gauss_P[:, None]).square() + phi_2PM[1].square()
    statistic_M = 2 * num_rows * torch.trapezoid(gap_PM * gauss_P[:, None], t_P, dim=0)
    return statistic_M.mean()
