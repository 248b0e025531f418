"""The bounds drawn into a report, against sums written out."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from falcon_ssl.evaluation import certify
from falcon_ssl.losses import power_law_prior
from falcon_ssl.records.run import Run
from falcon_ssl.report import read_run
from falcon_ssl.report.document import Table
from falcon_ssl.report.optimum import theory_section
from falcon_ssl.report.plots import effective_rank, off_diagonal_rms
from falcon_ssl.report.theory import (
    block_contrast,
    collapse_threshold,
    gap_curves,
    optimum_of,
)


def test_gaps_add_up_to_the_loss(make_run: Any, tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path / "run"))
    gaps = gap_curves(run)
    terms = optimum_of(run)
    assert terms is not None
    entropy, consistency, prior = (curve.y for curve in gaps.values())
    bound = terms.beta * terms.least_entropy  # D_min = 0 for reverse matching
    loss = bound + terms.beta * (entropy + consistency) + prior
    np.testing.assert_allclose(loss, run.curves["total"].y, rtol=1e-12)


def run_with(make_run: Any, tmp_path: Path, *changes: tuple[str, str]) -> Run:
    folder = make_run(tmp_path / "run")
    config = folder / "config.yaml"
    text = config.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    config.write_text(text)
    return read_run(folder)


@pytest.mark.parametrize("prior_matching", ["forward", "reverse", "renyi2"])
@pytest.mark.parametrize("exponent", [0.0, 1.0])
def test_report_and_certificate_agree(
    make_run: Any, tmp_path: Path, prior_matching: Any, exponent: float
) -> None:
    """The report once had no threshold for forward matching, and none for a prior that is not uniform."""
    run = run_with(
        make_run,
        tmp_path,
        ("prior_matching: reverse", f"prior_matching: {prior_matching}"),
        ("prior_exponent: 0.0", f"prior_exponent: {exponent}"),
    )
    best = optimum_of(run)
    assert best is not None
    certificate = certify(
        {name: float(curve.y[-1]) for name, curve in run.curves.items()},
        num_codes=1024,
        logit_scale=best.logit_scale,
        beta=best.beta,
        prior_matching=prior_matching,
        batch_size=256,
        prior=power_law_prior(1024, exponent).tolist() if exponent else None,
    )
    assert collapse_threshold(run) == certificate.collapse_threshold
    assert (certificate.collapse_threshold is None) == (
        prior_matching == "forward" and exponent > 0
    )
    gap = {name: float(curve.y[-1]) for name, curve in gap_curves(run).items()}
    assert best.beta * gap["entropy − H_ε"] == certificate.gap_entropy
    assert gap["D − D_min"] == certificate.gap_prior


def test_a_temperature_states_the_same_scale(make_run: Any, tmp_path: Path) -> None:
    terms = optimum_of(
        run_with(
            make_run,
            tmp_path,
            ("epsilon: 1.0e-08", "epsilon: null"),
            ("temperature: null", "temperature: 0.38"),
        )
    )
    assert terms is not None
    assert terms.epsilon is not None
    assert terms.logit_scale == pytest.approx(math.sqrt(128 / 0.38))
    back = math.log((1 - terms.epsilon * 1023) / terms.epsilon)
    assert back == pytest.approx(terms.logit_scale, rel=1e-12)


def test_the_complete_dictionary_has_a_bound_of_its_own(make_run: Any, tmp_path: Path) -> None:
    terms = optimum_of(
        run_with(
            make_run, tmp_path, ("epsilon: 1.0e-08", "epsilon: null"), ("rademacher", "complete")
        )
    )
    assert terms is not None
    assert terms.epsilon is None
    assert terms.log_num_codes == pytest.approx(128 * math.log(2))
    p = (1 + math.tanh(terms.logit_scale / 128)) / 2  # each of 128 bits, features equally large
    bit = -p * math.log(p) - (1 - p) * math.log(1 - p)
    assert terms.least_entropy == pytest.approx(128 * bit, rel=1e-12)


def test_a_recorded_scale_wins(make_run: Any, tmp_path: Path) -> None:
    about = {"logit_scale": 9.0, "embed_dim": 128}
    terms = optimum_of(read_run(make_run(tmp_path / "run", about=about)))
    assert terms is not None
    assert terms.logit_scale == 9.0
    assert terms.epsilon == pytest.approx(1 / (math.exp(9.0) + 1023))


def test_a_recorded_threshold_wins(make_run: Any, tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path / "run", certificate={"collapse_threshold": 1.25}))
    assert collapse_threshold(run) == 1.25


def test_blocks_are_separated_from_the_rest() -> None:
    codes = np.array([3, 3, 8, 8])
    similarity = np.where(codes[:, None] == codes[None, :], 1.0, -0.25)
    within, across = block_contrast(similarity, codes)
    assert within.tolist() == [1.0, 1.0]
    assert across.tolist() == [-0.25] * 4


def test_geometry_of_the_two_extremes() -> None:
    assert off_diagonal_rms(np.eye(5)) == 0.0
    assert off_diagonal_rms(np.ones((5, 5))) == pytest.approx(1.0)
    assert effective_rank(np.array([1.0, 0.0, 0.0])) == pytest.approx(1.0)


def test_alignment_with_the_nearest_code_is_shown_beside_its_optimum(
    make_run: Any, tmp_path: Path
) -> None:
    run = read_run(make_run(tmp_path / "run", aligned_cosine=0.625))
    tables = [block for block in theory_section(run).blocks if isinstance(block, Table)]
    rows = [[cell.text for cell in row] for row in tables[0].groups[0].rows]
    assert ["mean cosine to the nearest code", "0.625", "1"] in rows


@pytest.mark.parametrize(
    "changes",
    [
        {"embed_dim: 128": "embed_dim: 1000000000000", "rademacher": "complete"},
        {"embed_dim: 128": "embed_dim: -3", "rademacher": "complete"},
        {"num_codes: 1024": "num_codes: .nan"},
        {"num_codes: 1024": "num_codes: .inf"},
        {"num_codes: 1024": "num_codes: 1000000000000", "prior_exponent: 0.0": "prior_exponent: 1"},
        {"temperature: null": "temperature: 1.0e+200", "epsilon: 1.0e-08": "epsilon: null"},
    ],
)
def test_sizes_that_no_run_has_recorded_have_no_optimum(
    changes: dict[str, str], make_run: Any, tmp_path: Path
) -> None:
    folder = make_run(tmp_path / "run", evaluated=False)
    path = folder / "config.yaml"
    text = path.read_text()
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)
    assert optimum_of(read_run(folder)) is None
