"""Several runs on one page: families of seeds, the best in bold, the sweep over dictionaries."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from falcon_ssl import cli
from falcon_ssl.core.errors import InputError
from falcon_ssl.core.theory import codes_needed, logit_scale
from falcon_ssl.report import build_comparison, build_sweep, read_run
from falcon_ssl.report.families import families, spread
from falcon_ssl.report.sweep import sweep_points


def edit(folder: Path, old: str, new: str) -> Path:
    config = folder / "config.yaml"
    assert old in config.read_text()
    config.write_text(config.read_text().replace(old, new))
    return folder


def row(html: str, name: str) -> list[str]:
    """Cells of a table row, with <strong> kept."""
    line = re.search(rf'<th scope="row">{re.escape(name)}</th>(.*?)</tr>', html, re.DOTALL)
    assert line is not None, name
    return re.findall(r"<td[^>]*>(.*?)</td>", line.group(1))


@settings(deadline=None, max_examples=50)
@given(values=st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=9))
def test_spread_is_mean_and_sample_deviation(values: list[float]) -> None:
    found = spread([*values, None])
    assert found is not None
    assert found.deviation is not None
    assert found.count == len(values)
    assert found.mean == pytest.approx(np.mean(values), abs=1e-9)
    # Equal numbers count as such although their mean rounds: 1e-9 of its size.
    assert found.deviation == pytest.approx(
        np.std(values, ddof=1), rel=1e-9, abs=1e-9 * abs(found.mean)
    )


def test_nothing_measured_has_no_spread_and_one_run_no_deviation() -> None:
    assert spread([None]) is None
    one = spread([0.5])
    assert one is not None
    assert one.text("percent") == "50.0\u202f%"


def test_runs_that_differ_by_seed_only_are_a_family(make_run: Any, tmp_path: Path) -> None:
    runs = [
        read_run(make_run(tmp_path / f"{codes}-{seed}", num_codes=codes, seed=seed))
        for codes in (64, 256)
        for seed in (0, 1)
    ]
    found = families(runs)
    assert [[run.name for run in family.runs] for family in found] == [
        ["64-0", "64-1"],
        ["256-0", "256-1"],
    ]
    assert [family.label for family in found] == ["num codes 64", "num codes 256"]


def test_methods_are_named_when_there_are_several(make_run: Any, tmp_path: Path) -> None:
    first = make_run(tmp_path / "a")
    other = edit(make_run(tmp_path / "b"), "method: falcon", "method: vicreg")
    labels = [family.label for family in families([read_run(first), read_run(other)])]
    assert labels == ["falcon", "vicreg"]


def test_too_many_differences_are_named_by_the_folder(make_run: Any, tmp_path: Path) -> None:
    first = make_run(tmp_path / "plain")
    other = make_run(tmp_path / "changed", num_codes=64, width=32)
    edit(other, "beta: 0.5", "beta: 0.25")
    edit(other, "lr: 0.002", "lr: 0.001")
    labels = [family.label for family in families([read_run(first), read_run(other)])]
    assert labels == ["plain", "changed"]


def test_the_comparison_shows_spread_and_the_best_in_bold(make_run: Any, tmp_path: Path) -> None:
    folders = [
        make_run(
            tmp_path / f"{codes}-{seed}", num_steps=30, num_codes=codes, seed=seed,
            top1_linear=top1 + 0.01 * seed, effective_rank_u=40.0,
        )
        for codes, top1 in ((64, 0.90), (256, 0.95))
        for seed in (0, 1)
    ]  # fmt: skip
    out = build_comparison(folders, tmp_path / "comparison.html")
    html = out.read_text(encoding="utf-8")
    linear = row(html, "linear probe, top-1")
    assert linear[0] == "90.5 ± 0.7\u202f%"
    assert linear[1] == "<strong>95.5 ± 0.7\u202f%</strong>"
    assert linear[2] == "93.1\u202f%"  # the random encoder does not compete
    assert "<strong>" not in "".join(row(html, "effective rank of u"))  # a draw
    assert "<strong>" not in "".join(row(html, "codes used"))  # neither direction is better
    assert "Best by linear probe, top-1: num codes 256 with 95.5 ± 0.7\u202f%" in html
    assert "within the spread" not in html
    assert html.count('class="line"') >= 4 * 8
    assert not re.search(r"url\((?!data:)|https?://", html)


def test_a_lead_smaller_than_the_spread_is_reported(make_run: Any, tmp_path: Path) -> None:
    folders = [
        make_run(
            tmp_path / f"{codes}-{seed}", num_codes=codes, seed=seed,
            top1_linear=0.9 + 1e-5 * codes + 0.02 * seed,
        )
        for codes in (64, 256)
        for seed in (0, 1)
    ]  # fmt: skip
    html = build_comparison(folders, tmp_path / "out.html").read_text(encoding="utf-8")
    assert "within the spread over seeds" in html


def test_a_tie_is_called_one(make_run: Any, tmp_path: Path) -> None:
    folders = [
        make_run(tmp_path / f"{codes}", num_codes=codes, top1_linear=top1)
        for codes, top1 in ((64, 0.9811), (128, 0.9), (256, 0.9812))
    ]
    html = build_comparison(folders, tmp_path / "out.html").read_text(encoding="utf-8")
    names = "num codes 256 and num codes 64"
    assert f"A tie by linear probe, top-1: {names} with 98.1\u202f%, before num codes 128" in html


@pytest.mark.parametrize(("lead", "is_chance"), [(0.01, True), (0.05, False)])
def test_one_seed_has_the_error_of_its_test_images(
    make_run: Any, tmp_path: Path, lead: float, is_chance: bool
) -> None:
    folders = [
        make_run(tmp_path / f"{codes}", num_codes=codes, top1_linear=top1)
        for codes, top1 in ((64, 0.90), (256, 0.90 + lead))
    ]
    html = build_comparison(folders, tmp_path / "out.html").read_text(encoding="utf-8")
    assert (
        "standard error of the difference is 2.2 points, so this may be chance" in html
    ) == is_chance
    assert "One seed each" in html


def test_what_was_compared_names_options_epochs_time_and_verdicts(
    make_run: Any, tmp_path: Path
) -> None:
    first, other = make_run(tmp_path / "a"), make_run(tmp_path / "b", num_codes=64)
    edit(other, "lr: 0.002", "lr: 0.001")
    (other / "diagnosis.json").write_text('{"verdict": "collapsed", "collapses": []}')
    html = build_comparison([first, other], tmp_path / "out.html").read_text(encoding="utf-8")
    assert row(html, "optim.lr") == ["0.002", "0.001"]
    assert row(html, "falcon.num_codes") == ["1024", "64"]
    assert row(html, "diagnosis")[:2] == [
        '<span class="healthy">healthy</span>', '<span class="collapsed">collapsed</span>'
    ]  # fmt: skip
    assert "10.3 s" in row(html, "num codes 64, lr 0.001")
    assert (
        "beta" not in html[html.index("Options that differ") : html.index("All others are equal")]
    )


def test_different_data_are_warned_of(make_run: Any, tmp_path: Path) -> None:
    first, other = make_run(tmp_path / "a"), make_run(tmp_path / "b")
    edit(other, "data: digits", "data: folder:cats")
    html = build_comparison([first, other], tmp_path / "out.html").read_text(encoding="utf-8")
    assert "The data sets differ, so the numbers are not comparable: digits, folder:cats." in html
    assert "These runs are of different data, so none can be called the best." in html
    same = [first, make_run(tmp_path / "c", num_codes=64)]
    html = build_comparison(same, tmp_path / "out.html").read_text(encoding="utf-8")
    assert "not comparable" not in html


def test_a_loss_that_is_no_divergence_has_no_nats(make_run: Any, tmp_path: Path) -> None:
    first = make_run(tmp_path / "a")
    other = edit(make_run(tmp_path / "b"), "method: falcon", "method: vicreg")
    html = build_comparison([first, other], tmp_path / "out.html").read_text(encoding="utf-8")
    total = html[html.index("<h3>Total loss</h3>") :]
    total = total[: total.index("</figure>")]
    assert '<li class="unit">nats</li>' not in total
    assert "That of vicreg is another quantity, which is not in nats" in total
    assert row(html, "method") == ["falcon", "vicreg"]


def test_compare_prints_the_same(
    make_run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [str(make_run(tmp_path / name, num_codes=c)) for name, c in (("a", 64), ("b", 128))]
    page = tmp_path / "pages" / "out.html"
    assert cli.main(["compare", *folders, "--out", str(page)]) == 0
    said = capsys.readouterr().out
    assert "num codes 64" in said
    assert "One seed each" in said
    assert page.is_file()
    assert cli.main(["compare", folders[0], "--out", str(page)]) == 2
    assert cli.main(["report", *folders]) == 2


def test_runs_without_evaluation_can_still_be_compared(make_run: Any, tmp_path: Path) -> None:
    folders = [make_run(tmp_path / f"{k}", num_codes=2**k, evaluated=False) for k in (5, 6)]
    html = build_comparison(folders, tmp_path / "out.html").read_text(encoding="utf-8")
    assert "none can be called the best" in html
    assert "Total loss" in html


@pytest.mark.parametrize("count", [0, 1])
def test_one_run_is_no_comparison(make_run: Any, tmp_path: Path, count: int) -> None:
    folders = [make_run(tmp_path / "run")] * count
    with pytest.raises(InputError, match=r"nothing to compare.*at least 2"):
        build_comparison(folders, tmp_path / "out.html")


def test_a_run_is_not_compared_with_itself(make_run: Any, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    with pytest.raises(InputError, match="1 of them different"):
        build_comparison([folder, folder], tmp_path / "out.html")


def test_a_sweep_orders_sizes_and_ends_with_the_complete_dictionary(
    make_run: Any, tmp_path: Path
) -> None:
    complete = make_run(tmp_path / "complete", pictured=True)
    edit(edit(complete, "rademacher", "complete"), "reverse", "renyi2")
    folders = [
        complete,
        *(make_run(tmp_path / f"{c}", num_codes=c, pictured=True) for c in (4096, 256, 1024)),
        make_run(tmp_path / "256-1", num_codes=256, seed=1),
    ]
    points = sweep_points([read_run(folder) for folder in folders])
    assert [point.name for point in points] == ["256", "1K", "4K", "2¹²⁸"]
    assert [len(point.family.runs) for point in points] == [2, 1, 1, 1]
    assert np.all(np.diff([point.x for point in points]) > 0)
    html = build_sweep(folders, tmp_path / "sweep.html").read_text(encoding="utf-8")
    for expected in ("NMI of permuted labels", "AMI is adjusted", "Covariance HᵀH", "2¹²⁸"):
        assert expected in html
    assert 'class="whisker"' in html
    assert "nan" not in re.sub(r"data:image[^\"]*", "", html).lower().split("<main>")[1]


def test_a_sweep_marks_how_many_codes_are_enough(make_run: Any, tmp_path: Path) -> None:
    """C = (exp(1/T) - 1) / delta^2 at F = 128 and epsilon = 1e-8; no mark where the axis does not reach it."""
    few, many = (
        [make_run(tmp_path / f"{c}", num_codes=c, pictured=True) for c in sizes]
        for sizes in ((64, 256), (512, 2048))
    )
    html = build_sweep(many, tmp_path / "many.html").read_text(encoding="utf-8")
    temperature = 128 / logit_scale(2048, 1e-8) ** 2
    enough = codes_needed(temperature, 0.1)
    assert 1280 < enough < 1340
    assert html.count('class="event"') == 2, "accuracy, and the theory itself"
    assert f"{enough:,}".replace(",", "\u202f") + " codes give the softmax" in html
    assert "Distance from the complete dictionary" in html
    html = build_sweep(few, tmp_path / "few.html").read_text(encoding="utf-8")
    assert 'class="event"' not in html
    assert "Distance from the complete dictionary" in html


def test_a_sweep_claims_no_trend_that_the_seeds_do_not_show(make_run: Any, tmp_path: Path) -> None:
    folders = [
        make_run(
            tmp_path / f"{codes}-{seed}",
            num_steps=3,
            num_codes=codes,
            seed=seed,
            pictured=True,
            top1_linear=0.9 + 0.02 * seed,
        )
        for codes in (64, 256)
        for seed in (0, 1)
    ]
    html = build_sweep(folders, tmp_path / "sweep.html").read_text(encoding="utf-8")
    assert "the difference is within the spread over seeds" in html
    assert "covariance tends to the identity" not in html
    assert "1/√(codes used)" in html


def test_a_sweep_changes_nothing_but_the_dictionary(make_run: Any, tmp_path: Path) -> None:
    first = make_run(tmp_path / "a", num_codes=64)
    other = edit(make_run(tmp_path / "b", num_codes=256), "lr: 0.002", "lr: 0.1")
    with pytest.raises(InputError, match=r"more than their dictionary: received optim\.lr"):
        build_sweep([first, other], tmp_path / "out.html")


def test_a_sweep_needs_two_sizes(make_run: Any, tmp_path: Path) -> None:
    folders = [make_run(tmp_path / f"{seed}", seed=seed) for seed in (0, 1)]
    with pytest.raises(InputError, match="this is no sweep"):
        build_sweep(folders, tmp_path / "out.html")


def test_a_run_without_a_dictionary_is_no_part_of_a_sweep(make_run: Any, tmp_path: Path) -> None:
    folders = [make_run(tmp_path / f"{c}", num_codes=c) for c in (64, 128)]
    for folder, codes in zip(folders, (64, 128), strict=True):
        edit(folder, f"num_codes: {codes}", "num_codes: null")
    with pytest.raises(InputError, match="has no dictionary size"):
        build_sweep(folders, tmp_path / "out.html")


@pytest.mark.parametrize("size", ["-4", ".inf", ".nan", "0", "many"])
def test_a_sweep_refuses_what_is_no_size(size: str, make_run: Any, tmp_path: Path) -> None:
    folders = [make_run(tmp_path / str(c), num_codes=c) for c in (256, 1024)]
    edit(folders[1], "num_codes: 1024", f"num_codes: {size}")
    with pytest.raises(InputError, match="has no dictionary size"):
        build_sweep(folders, tmp_path / "sweep.html")


def test_options_of_any_type_are_compared(make_run: Any, tmp_path: Path) -> None:
    folders = [make_run(tmp_path / str(seed), seed=seed) for seed in range(2)]
    edit(edit(folders[1], "data: digits", "data: [digits]"), "epochs: 30", "epochs: [3, 0]")
    html = build_comparison(folders, tmp_path / "out.html").read_text(encoding="utf-8")
    assert "The data sets differ" in html
    assert "The epochs differ: 30, [3, 0]." in html
