"""What losses over rows of several views have in common: checks, and statistics over the rows of all ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from itertools import repeat
from typing import Protocol

import torch
from torch import Tensor

from falcon_ssl.core.checks import check_at_least, check_matrix, check_same_shape
from falcon_ssl.core.distributed import agreed_global_count, all_reduce_max, all_reduce_sum
from falcon_ssl.core.errors import InputError


class Terms(Protocol):
    """What every loss returns: a NamedTuple of 0-dim tensors of which only ``total`` carries a gradient."""

    @property
    def total(self) -> Tensor:
        """What is minimized."""
        ...

    def _asdict(self) -> dict[str, Tensor]: ...


def check_views(names: Sequence[str], views: Sequence[Tensor]) -> None:
    """Raise InputError unless the views are floating matrices of one shape and one dtype."""
    for name, view in zip(names, views, strict=True):
        check_matrix(name, view)
        check_same_shape(names[0], views[0], name, view)
        if view.dtype != views[0].dtype:
            raise InputError(
                f"{names[0]} and {name} differ in dtype",
                received=f"{views[0].dtype} and {view.dtype}",
                expected="one dtype",
                fix="pass all views through the same head",
            )


def numbered(name: str, views: Sequence[Tensor]) -> list[str]:
    """What the entries of an argument are called in an error: "scores[0]", "scores[1]", ..."""
    return [f"{name}[{v}]" for v in range(len(views))]


def check_targets(num_views: int, num_targets: int | None, *, option: str = "num_targets") -> int:
    """K: how many of V views, the first ones, are targets of all others; None: all.

    Raises:
        InputError: Fewer than two views, or targets outside 1..V.
    """
    if num_views < 2:
        raise InputError(
            "too few views",
            received=num_views,
            expected=">= 2",
            fix="pass two views of each image",
        )
    if num_targets is None:
        return num_views
    if not 1 <= num_targets <= num_views:
        raise InputError(
            f"{option} is out of range",
            received=num_targets,
            expected=f"1 to {num_views}, the number of views",
        )
    return num_targets


def sums_of_others(x_VN: Tensor, num_targets: int, num_places: int = 1) -> Iterator[Tensor]:
    """Per target, the sum over all other views [N, ...], one at a time; of two views, the other one itself.

    Args:
        x_VN: [V, N, ...].
        num_targets: K, the first ones.
        num_places: S. Every S in succession are places of one view, which do not meet each other.
    """
    if num_places > 1:
        x_VN = x_VN.view(-1, num_places, *x_VN.shape[1:]).sum(dim=1)
    total_N = x_VN.sum(dim=0) if len(x_VN) > 2 else None
    for o in range(num_targets // num_places):
        others_N = x_VN[1 - o] if total_N is None else total_N - x_VN[o]
        yield from repeat(others_N, num_places)


def global_count(x: Tensor, fingerprint: Callable[[], str], *, least: int = 1) -> int:
    """N: rows over all ranks, whose loss and options, as ``fingerprint`` puts them in words, must be the same.

    Raises:
        InputError: Ranks that disagree, or fewer than ``least`` rows.
    """
    num_rows = agreed_global_count(len(x), fingerprint, x.device)
    check_at_least("number of rows over all ranks", num_rows, least, fix="use a larger batch")
    return num_rows


def centered(x_NF: Tensor, num_rows: int) -> Tensor:
    """x minus its mean over the rows of all ranks, with gradient."""
    return x_NF - all_reduce_sum(x_NF.sum(dim=0)) / num_rows


def off_diagonal(matrix_FF: Tensor) -> Tensor:
    """The matrix with zeros on its diagonal."""
    return matrix_FF - torch.diag(matrix_FF.diagonal())


def logsumexp_rows(x_NC: Tensor) -> Tensor:
    """log sum_i exp x_ij over the rows of all ranks, [C], with gradient.

    The shift by the largest entry keeps exp finite; it cancels, so it carries no gradient.
    """
    most_C = all_reduce_max(x_NC.detach().amax(dim=0))
    return most_C + all_reduce_sum((x_NC - most_C).exp_().sum(dim=0)).log()


def predict_assignments(
    logits_VNC: Sequence[Tensor], log_p_VNC: Sequence[Tensor], num_rows: int
) -> tuple[Tensor, Tensor]:
    """What it costs to predict the assignment of each assigned view from every other view, and its entropy.

    q = softmax(logits);   cross-entropy = -(1/N) sum_ij q_ij log p'_ij, mean over pairs;   entropy = mean_i H(q_i)

    Args:
        logits_VNC: Of the assigned views, the first of all; they carry no gradient.
        log_p_VNC: The predictions of all views, more than one.
        num_rows: N, over all ranks.

    Returns:
        Both, 0-dim; the cross-entropy with gradient.
    """
    q_VNC = [logits_NC.softmax(dim=1) for logits_NC in logits_VNC]
    total_N = entropy_N = log_p_VNC[0].new_zeros(len(log_p_VNC[0]))
    for q_NC, logits_NC in zip(q_VNC, logits_VNC, strict=True):
        # Not torch.special.entr, which takes several times as long on a CPU.
        entropy_N = entropy_N - logits_NC.log_softmax(dim=1).mul_(q_NC).sum(dim=1)
    # What each view predicts, summed: one product a view. (A difference of sums would lose small q.)
    targets = [[q_NC for w, q_NC in enumerate(q_VNC) if w != v] for v in range(len(q_VNC))]
    if only_predict := len(log_p_VNC) - len(q_VNC):
        targets += [[reduce(torch.add, q_VNC)]] * only_predict
    for log_p_NC, of_others in zip(log_p_VNC, targets, strict=True):
        if of_others:  # the only assigned view predicts nothing
            total_N = total_N - (reduce(torch.add, of_others) * log_p_NC).sum(dim=1)
    total = mean_rows(total_N, num_rows) / (len(q_VNC) * (len(log_p_VNC) - 1))
    return total, mean_rows(entropy_N, num_rows) / len(q_VNC)


def mean_rows(x_N: Tensor, num_rows: int) -> Tensor:
    """Mean over the rows of all ranks, 0-dim, with gradient."""
    return all_reduce_sum(x_N.sum()) / num_rows


def check_norms(views: Sequence[Tensor]) -> None:
    """Raise InputError for rows that are NaN or longer than 1, up to rounding; waits for the device once."""
    with torch.no_grad():
        longest = torch.stack([view.float().norm(dim=-1).max() for view in views]).max().item()
    if not longest <= 1.05:  # NaN fails too
        raise InputError(
            "embeddings are not on the unit sphere",
            received=f"a row of norm {longest:.4g}",
            expected="norms of at most 1",
            fix="normalize them with torch.nn.functional.normalize, or embed with falcon_ssl.FalconProjector",
        )
