"""DINO: a student predicts the centered, sharpened assignment of its teacher (Caron et al., 2021, arXiv 2104.14294).

P_t  = softmax((s_t - c) / T_t)        teacher, no gradient; c is a running mean of its scores   (eq. 4)
P_s  = softmax(s_s / T_s)              student
loss = mean over pairs (large view of the teacher, other view of the student) of  H(P_t, P_s)    (eq. 3)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from falcon_ssl.core.checks import check_entries, check_fraction, check_positive
from falcon_ssl.core.distributed import all_reduce_sum
from falcon_ssl.core.numerics import at_least_float32
from falcon_ssl.losses.rows import (
    check_targets,
    check_views,
    global_count,
    numbered,
    predict_assignments,
)


class DINOTerms(NamedTuple):
    """The loss and what it is made of: 0-dim tensors in nats, equal on every rank; only ``total`` carries a gradient.

    Args:
        total: entropy + consistency; log C when teacher or student is uniform, the well-known collapse.
        entropy: mean_i H of the teacher's assignment; 0 without centering, log C without sharpening.
        consistency: mean_i KL(P_t || P_s).
    """

    total: Tensor
    entropy: Tensor
    consistency: Tensor


def dino_loss(
    student: Sequence[Tensor],
    teacher: Sequence[Tensor],
    center: Tensor,
    *,
    student_temperature: float = 0.1,
    teacher_temperature: float = 0.04,
) -> DINOTerms:
    """DINO loss of two or more views.

    Args:
        student: Scores [N, C] of every view, large ones first (this rank's rows).
        teacher: Scores [N, C] of the large views, in the same order; they carry no gradient.
        center: c [C], see `updated_center`.
        student_temperature: T_s.
        teacher_temperature: T_t, smaller than T_s: the teacher is sharper.

    Returns:
        DINOTerms.

    Raises:
        InputError: Views that do not fit each other, fewer than one pair of different views, a center of another
            width, a temperature that is not positive and finite, or ranks that disagree.

    Distributed:
        The mean runs over the rows of all ranks; shards may differ in size.

    Numerics:
        log P_s as a log-softmax, in float32, float64 for float64.

    Example:
        >>> s1, s2 = torch.zeros(2, 8, 100)
        >>> round(float(dino_loss([s1, s2], [s1, s2], torch.zeros(100)).total), 3)  # collapsed: log 100
        4.605
    """
    check_views(
        [*numbered("student", student), *numbered("teacher", teacher)], [*student, *teacher]
    )
    check_targets(len(student), len(teacher), option="number of views of the teacher")
    _check_center(center, student[0].shape[1])
    check_positive("student_temperature", student_temperature, fix="the paper's is 0.1")
    check_positive("teacher_temperature", teacher_temperature, fix="the paper's is 0.04")
    num_rows = global_count(
        student[0],
        lambda: (
            f"dino_loss, {len(student)} and {len(teacher)} views, C={student[0].shape[1]}, "
            f"student_temperature={student_temperature}, teacher_temperature={teacher_temperature}"
        ),
    )
    with torch.autocast(student[0].device.type, enabled=False):
        log_p_VNC = [
            (at_least_float32(s_NC) / student_temperature).log_softmax(dim=1) for s_NC in student
        ]
        logits_VNC = [
            (at_least_float32(t_NC.detach()) - center) / teacher_temperature for t_NC in teacher
        ]
        total, entropy = predict_assignments(logits_VNC, log_p_VNC, num_rows)
    return DINOTerms(total, entropy, total.detach() - entropy)


@torch.no_grad()
def updated_center(center: Tensor, teacher: Sequence[Tensor], *, momentum: float = 0.9) -> Tensor:
    """The running mean of the teacher's scores after a batch: momentum * c + (1 - momentum) * batch mean.

    Args:
        center: c [C] before.
        teacher: Scores [N, C] of the large views (this rank's rows).
        momentum: Momentum of the running mean, in [0, 1).

    Returns:
        c [C], a new tensor.

    Raises:
        InputError: A center of another width, or a momentum outside [0, 1).

    Distributed:
        The mean runs over the rows of all ranks.
    """
    _check_center(center, teacher[0].shape[1])
    check_fraction("momentum", momentum, below_one=True, fix="the paper's is 0.9")
    sums_C = torch.stack([at_least_float32(t_NC).sum(dim=0) for t_NC in teacher]).sum(dim=0)
    # The number of rows rides along: one sum over ranks for two.
    count = sums_C.new_full((1,), sum(map(len, teacher)))
    sums_C1 = all_reduce_sum(torch.cat([sums_C, count]))
    return center.lerp((sums_C1[:-1] / sums_C1[-1]).to(center.dtype), 1 - momentum)


def _check_center(center: Tensor, num_prototypes: int) -> None:
    fix = "start from torch.zeros(num_prototypes)"
    check_entries("the center", center, num_prototypes, each="prototype", fix=fix)
