"""DINO against algorithm 1 of the paper, written out in float64 loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from falcon_ssl.losses import dino_loss, updated_center
from support.compared import WIDTH, views
from support.tolerances import EXACT, relative_error


def softmax(row: np.ndarray) -> list[float]:
    weights = [math.exp(x) for x in row]
    return [w / sum(weights) for w in weights]


def by_loops(
    student: list[np.ndarray], teacher: list[np.ndarray], center: np.ndarray, ts: float, tt: float
) -> tuple[float, float, float]:
    total, entropy, pairs = 0.0, 0.0, 0
    for v, t in enumerate(teacher):
        for n in range(len(t)):
            q = softmax((t[n] - center) / tt)
            entropy -= sum(x * math.log(x) for x in q) / len(t) / len(teacher)
        for w, s in enumerate(student):
            if w == v:
                continue
            pairs += 1
            for n in range(len(t)):
                q, p = softmax((t[n] - center) / tt), softmax(s[n] / ts)
                total -= sum(a * math.log(b) for a, b in zip(q, p, strict=True)) / len(t)
    return total / pairs, entropy, total / pairs - entropy


@pytest.mark.parametrize("num_views", [2, 5])
def test_the_algorithm_of_the_paper(num_views: int) -> None:
    student, teacher = views(num_views), views(2, seed=1)
    center = torch.randn(WIDTH, generator=torch.Generator().manual_seed(2)).double()
    expected = by_loops(
        [s.numpy() for s in student], [t.numpy() for t in teacher], center.numpy(), 0.4, 0.2
    )
    terms = dino_loss(student, teacher, center, student_temperature=0.4, teacher_temperature=0.2)
    assert relative_error(torch.stack(terms), torch.tensor(expected, dtype=torch.float64)) < EXACT


def test_the_center_is_a_running_mean() -> None:
    teacher = views(2)
    center = torch.randn(WIDTH, generator=torch.Generator().manual_seed(2)).double()
    mean = sum(t[n] for t in teacher for n in range(len(t))) / sum(len(t) for t in teacher)
    expected = 0.9 * center + 0.1 * mean
    assert relative_error(updated_center(center, teacher, momentum=0.9), expected) < EXACT


def test_centering_removes_what_all_samples_share() -> None:
    student, teacher = views(2), views(2, seed=1)
    shift = torch.linspace(-3, 3, WIDTH).double()
    zero = torch.zeros(WIDTH).double()
    plain = dino_loss(student, teacher, zero).total
    assert (
        relative_error(dino_loss(student, [t + shift for t in teacher], shift).total, plain) < 1e-10
    )
    assert (
        relative_error(dino_loss(student, [t + shift for t in teacher], zero).total, plain) > 0.01
    )


def test_the_teacher_gets_no_gradient() -> None:
    teacher = [t.requires_grad_() for t in views(2)]
    student = [s.requires_grad_() for s in views(2)]
    dino_loss(student, teacher, torch.zeros(WIDTH).double()).total.backward()
    assert all(t.grad is None for t in teacher)
    assert all(s.grad is not None for s in student)
