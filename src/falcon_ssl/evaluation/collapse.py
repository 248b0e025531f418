"""Measures of collapse that need no labels: how much of the space the features really use.

Everything is a function of the mean and the D x D covariance of the rows, or of clusters of them;
no N x N matrix exists. Sums are accumulated in float64, block by block.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from falcon_ssl.core.checks import check_matrix, check_same_length
from falcon_ssl.core.errors import InputError
from falcon_ssl.evaluation.codes import code_usage
from falcon_ssl.evaluation.features import Features

CONSTANT = 1e-12  # variance over mean square below which rows are equal up to float32 rounding
_BLOCK_ROWS = 8192


@dataclass(frozen=True)
class Moments:
    """Mean and covariance of N rows, in float64.

    Args:
        num_rows: N.
        mean_D: (1/N) sum_i x_i, [D].
        covariance_DD: (1/N) sum_i (x_i - mean)(x_i - mean)^T, [D, D].
    """

    num_rows: int
    mean_D: Tensor
    covariance_DD: Tensor

    @property
    def second_moment_DD(self) -> Tensor:
        """(1/N) sum_i x_i x_i^T, [D, D]."""
        return self.covariance_DD + torch.outer(self.mean_D, self.mean_D)

    @property
    def is_constant(self) -> bool:
        """Whether all rows are equal, up to rounding of float32."""
        variance = float(self.covariance_DD.trace())
        return variance <= CONSTANT * float(self.second_moment_DD.trace())


def moments(x_ND: Tensor) -> Moments:
    """Mean and covariance of the rows of ``x_ND`` [N, D], floating.

    Two passes, so that a mean much larger than the spread costs no digits.

    Raises:
        InputError: If ``x_ND`` is not a floating matrix with at least one row.
    """
    check_matrix("features", x_ND)
    mean_D = x_ND.mean(dim=0, dtype=torch.float64)
    covariance_DD = mean_D.new_zeros(len(mean_D), len(mean_D))
    for block_BD in torch.split(x_ND, _BLOCK_ROWS):
        centered_BD = block_BD.double() - mean_D
        covariance_DD += centered_BD.T @ centered_BD
    return Moments(len(x_ND), mean_D, covariance_DD / len(x_ND))


def spectrum(moments: Moments) -> Tensor:
    """Singular values of the centered rows, descending, divided by their sum.

    The singular values of X are the roots of the eigenvalues of X^T X.

    Returns:
        float64 [D], sum 1; all zero when every row is the same.
    """
    if moments.is_constant:
        return torch.zeros_like(moments.mean_D)
    eigenvalues_D = torch.linalg.eigvalsh(moments.covariance_DD).flip(0).clamp(min=0)
    singular_D = eigenvalues_D.sqrt()
    return torch.div(singular_D, singular_D.sum())


def effective_rank(spectrum_D: Tensor) -> float:
    """Exp of the entropy of the normalized singular values (Roy & Vetterli 2007; RankMe).

        exp( - sum_k s_k log s_k ),   sum_k s_k = 1

    Between 1 (one direction) and D (all directions alike); 0 when every row is the same.

    Example:
        >>> round(effective_rank(torch.full((8,), 1 / 8)), 3)
        8.0
    """
    if not bool((spectrum_D > 0).any()):
        return 0.0
    return math.exp(float(torch.special.entr(spectrum_D).sum()))


def mean_cosine(x_ND: Tensor, *, center_D: Tensor | None = None) -> float:
    """Mean cosine of two different rows.

        mean_{i != k} cos(x_i, x_k) = (||sum_i y_i||^2 - N) / (N (N - 1)),   y_i = x_i / ||x_i||

    Args:
        x_ND: Rows [N, D].
        center_D: Subtracted from each row first, [D]. Rows that are 0 then (to float32 rounding)
            have no direction; they count as orthogonal to all.

    Returns:
        In [-1/(N - 1), 1]; 0 for a single row.
    """
    num_rows, width = x_ND.shape
    if num_rows < 2:
        return 0.0
    sum_D = torch.zeros(width, dtype=torch.float64, device=x_ND.device)
    num_directed = 0
    for block_BD in torch.split(x_ND, _BLOCK_ROWS):
        rows_BD = block_BD.double()
        scale_B = rows_BD.norm(dim=1)
        if center_D is not None:
            rows_BD = rows_BD - center_D
        norm_B = rows_BD.norm(dim=1)
        directed_B = norm_B > math.sqrt(CONSTANT) * scale_B
        sum_D += (rows_BD[directed_B] / norm_B[directed_B, None]).sum(dim=0)
        num_directed += int(directed_B.sum())
    return (float(sum_D.square().sum()) - num_directed) / (num_rows * (num_rows - 1))


def representation_measures(x_ND: Tensor, *, name: str) -> dict[str, float]:
    """Representation and dimensional collapse of z or u.

    Args:
        x_ND: Rows [N, D], floating.
        name: "z" or "u": the suffix of the keys.

    Returns:
        ``mean_cosine`` of the rows as they are (1 = all alike) and ``mean_cosine_centered``;
        ``feature_std`` (mean over features); ``effective_rank`` of the centered rows and
        ``effective_rank_share`` of min(D, N - 1), the most that N rows allow.
    """
    x = moments(x_ND)
    num_rows, width = x_ND.shape
    rank = effective_rank(spectrum(x))
    return {
        f"mean_cosine_{name}": mean_cosine(x_ND),
        f"mean_cosine_centered_{name}": mean_cosine(x_ND, center_D=x.mean_D),
        f"feature_std_{name}": float(x.covariance_DD.diagonal().sqrt().mean()),
        f"effective_rank_{name}": rank,
        f"effective_rank_share_{name}": rank / max(1, min(width, num_rows - 1)),
    }


def embedding_covariance(u_NF: Tensor) -> Tensor:
    """H^T H of the scaled embeddings H = sqrt(F/N) u: the identity at the optimum (Corollary 2).

        H^T H = F * (1/N) sum_i u_i u_i^T

    Not centered; its trace is F for unit rows.

    Args:
        u_NF: Embeddings [N, F], unit rows.

    Returns:
        float64 [F, F].
    """
    return u_NF.shape[1] * moments(u_NF).second_moment_DD


def decorrelation_measures(u_NF: Tensor) -> dict[str, float]:
    """How far H^T H is from the identity.

    Returns:
        ``identity_gap_u`` = ||H^T H - I||_F / sqrt(F), 0 at the optimum and sqrt(F - 1) or more
        when one direction is left; ``offdiagonal_rms_u``, the root mean square of its entries off
        the diagonal.
    """
    covariance_FF = embedding_covariance(u_NF)
    width = u_NF.shape[1]
    gap_FF = covariance_FF - torch.eye(width, dtype=covariance_FF.dtype, device=u_NF.device)
    off_FF = gap_FF - gap_FF.diagonal().diag()
    return {
        "identity_gap_u": float(gap_FF.norm()) / math.sqrt(width),
        "offdiagonal_rms_u": float(off_FF.norm()) / math.sqrt(max(1, width * (width - 1))),
    }


def cluster_spread(x_ND: Tensor, cluster_N: Tensor, *, name: str) -> dict[str, float]:
    """Intracluster collapse: how much the rows of a cluster still differ.

    With S_w the covariance around the mean of the own cluster and S_t around the common mean,
    unbiased (N - clusters and N - 1 degrees of freedom):

        within_variance = tr S_w / tr S_t                        0: every cluster is one point
        within_entropy  = (1/2D) log( det(S_w + r I) / det(S_t + r I) ),   r = 1e-6 tr S_t / D

    The second is the Gaussian entropy inside the clusters minus that of all rows, in nats per
    direction: 0 when clusters are as wide as the whole, log(1e-3) = -6.9 when they are points.

    Args:
        x_ND: Rows [N, D].
        cluster_N: Cluster of every row, int64 [N].
        name: Suffix of the keys.

    Returns:
        The two numbers where they can be known: none when every row has a cluster of its own or all
        rows are equal, no entropy with fewer than 2 D degrees of freedom.

    Raises:
        InputError: If the lengths differ.
    """
    check_same_length("rows", x_ND, "clusters", cluster_N)
    num_rows, width = x_ND.shape
    used, index_N, counts_K = torch.unique(cluster_N, return_inverse=True, return_counts=True)
    x = moments(x_ND)
    if len(used) == num_rows or x.is_constant:
        return {}
    # Sums of squares: within = total - between, between = sum_k n_k (mean_k - mean)(...)^T.
    sums_KD = torch.zeros(len(used), width, dtype=torch.float64, device=x_ND.device)
    for rows_BD, index_B in zip(
        torch.split(x_ND, _BLOCK_ROWS), torch.split(index_N, _BLOCK_ROWS), strict=True
    ):
        sums_KD.index_add_(0, index_B, rows_BD.double() - x.mean_D)
    scaled_KD = sums_KD / counts_K[:, None].double().sqrt()
    total_DD = x.covariance_DD * num_rows
    within_DD = (total_DD - scaled_KD.T @ scaled_KD) / (num_rows - len(used))
    total_DD = total_DD / (num_rows - 1)
    total = float(total_DD.trace())
    ridge = 1e-6 * total / width

    def log_det(covariance_DD: Tensor) -> float:
        return float((torch.linalg.eigvalsh(covariance_DD).clamp(min=0) + ridge).log().sum())

    found = {f"within_variance_{name}": max(0.0, float(within_DD.trace())) / total}
    if num_rows - len(used) >= 2 * width:
        entropy = (log_det(within_DD) - log_det(total_DD)) / (2 * width)
        found[f"within_entropy_{name}"] = entropy
    return found


def collapse(features: Features, *, num_codes: int | None = None) -> dict[str, float]:
    """All label-free measures of one split.

    Args:
        features: z, and u and codes where they exist.
        num_codes: C; needed where codes exist.

    Returns:
        `representation_measures` of z and u, `decorrelation_measures` of u, `code_usage`, and
        `cluster_spread` of z inside the codes, each where its input exists.

    Raises:
        InputError: If codes exist and ``num_codes`` is missing or does not fit them.
    """
    found = representation_measures(features.z, name="z")
    if features.u is not None:
        found |= representation_measures(features.u, name="u")
        found |= decorrelation_measures(features.u)
    if features.code is not None:
        if num_codes is None:
            what, received = "the size of the dictionary is not given", "features with codes"
            raise InputError(what, received=received, expected="num_codes with them")
        found |= code_usage(features.code, num_codes=num_codes)
        found |= cluster_spread(features.z, features.code, name="codes")
    return found
