"""Nearest rows and near-duplicates are those of a search that is written out."""

from __future__ import annotations

import numpy as np
import pytest

from falcon_ssl.core.errors import InputError
from falcon_ssl.evaluation import neighbors
from falcon_ssl.evaluation.neighbors import Space, near_duplicates, nearest

RANDOM = np.random.default_rng(0)
ROWS = RANDOM.normal(size=(500, 16)).astype(np.float32) + 3  # far from centered


def test_nearest_rows_come_from_all_groups_in_order() -> None:
    groups, space = (
        np.split(ROWS, [100, 130]),
        Space.whitened(ROWS),
    )  # the middle one is smaller than k
    found = nearest(ROWS[:7] + 0.01, groups, space=space, k=40)
    cosine = space(ROWS[:7] + 0.01) @ space(ROWS).T
    np.testing.assert_allclose(found.cosine, -np.sort(-cosine, axis=1)[:, :40], atol=1e-5)
    assert found.row[:, 0].tolist() == list(range(7))
    assert nearest(ROWS[:2], [ROWS[:5]], space=space, k=9).row.shape == (2, 5)


def test_groups_are_the_copies_that_were_planted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbors, "BLOCK", 64)
    z = ROWS.copy()
    z[[40, 300]] = z[7] + 1e-3  # a triple, over two blocks
    z[450] = z[9] + 1e-3
    groups = near_duplicates(Space.whitened(z)(z), similarity=0.99)
    assert [sorted(group.tolist()) for group in groups] == [[7, 40, 300], [9, 450]]
    assert near_duplicates(Space.whitened(ROWS)(ROWS), similarity=0.99) == []


def test_what_all_rows_share_makes_no_duplicates() -> None:
    """As they are, nearly all rows are alike: a large mean, and one direction of most variance."""
    z = ROWS + 10
    z[:, 0] += 100 * RANDOM.normal(size=len(z)).astype(np.float32)
    centered = z - z.mean(axis=0)
    unit = centered / np.linalg.norm(centered, axis=1, keepdims=True)
    assert np.median(np.sort(unit @ unit.T, axis=1)[:, -2]) > 0.99
    assert near_duplicates(Space.whitened(z)(z), similarity=0.95) == []


def test_equal_rows_are_found_whatever_their_number() -> None:
    z = np.concatenate([ROWS, np.repeat(ROWS[:1], 30, axis=0)])
    groups = near_duplicates(Space.whitened(ROWS)(z), similarity=1 - 1e-5)
    assert len(np.unique(np.concatenate(groups))) == sum(len(group) for group in groups) == 31


def test_chains_are_cut() -> None:
    """On a circle, each row is alike to the next; no group holds two that are far apart."""
    angle = np.linspace(0, np.pi, 40)
    y = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    groups = near_duplicates(y, similarity=0.98)
    assert len(groups) > 4
    assert min((y[group] @ y[group[0]]).min() for group in groups) >= 0.98 - 1e-6
    members = np.concatenate(groups)
    assert len(np.unique(members)) == len(members)


def test_a_similarity_is_a_fraction() -> None:
    with pytest.raises(InputError, match="similarity is out of range"):
        near_duplicates(ROWS, similarity=95)


def test_nearest_images_are_not_drowned_in_whitened_noise() -> None:
    """Four classes of few images: whitening makes as much of the directions of noise as of those of the classes."""
    label = np.arange(80) % 4
    noise = np.random.default_rng(1).normal(size=(80, 64))
    z = (5 * np.eye(64)[label] + noise + 3).astype(np.float32)

    def of_the_class(space: Space) -> float:
        found = nearest(z, [z], space=space, k=7)
        return float((label[found.row[:, 1:]] == label[:, None]).mean())

    assert of_the_class(Space.centered(z)) > 0.95
    assert of_the_class(Space.whitened(z)) < 0.9
