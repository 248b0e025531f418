"""The page of one run: complete, self-contained, honest about what is absent."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from falcon_ssl.core.errors import InputError
from falcon_ssl.records.metrics import describe
from falcon_ssl.report import build_report, read_run
from falcon_ssl.report.verdict import assess

VOID = frozenset(["meta", "img", "input", "br", "path", "circle"])


class Outline(HTMLParser):
    """Text, and a check that every element is closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []
        self.ids: list[str] = []
        self.sources: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.sources += [str(given[name]) for name in ("src", "href") if given.get(name)]
        if given.get("id"):
            self.ids.append(str(given["id"]))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)


def outline(path: Path) -> Outline:
    parser = Outline()
    parser.feed(path.read_text(encoding="utf-8"))
    assert parser.open == []
    return parser


def text_of(path: Path) -> str:
    return " ".join(" ".join(outline(path).words).split())


@pytest.fixture(scope="module")
def page(make_run: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a healthy run with everything recorded."""
    folder = make_run(tmp_path_factory.mktemp("page") / "demo", num_steps=330, pictured=True)
    return build_report(folder)


def test_a_healthy_run_gets_the_whole_page(page: Path) -> None:
    assert page.name == "report.html"
    assert page.stat().st_size < 2_000_000
    text = text_of(page)
    assert outline(page).ids == ["map", "geometry", "theory", "training", "numbers", "made"]
    for expected in (
        "Learned without collapse", "random encoder 93.1", "chance 10.0", "of 128",
        "Covariance of the embedding", "Adjacency", "Spectrum of the embedding", "Code usage",
        "not centered", "Singular values of the centered matrix", "falcon-ssl pretrain --data digits",
        "80 % train, 20 % test", "torch 2.13.0", "Logit scale L 18.42",
    ):  # fmt: skip
        assert expected in text, expected
    assert "/somewhere/bin" not in text


def test_the_page_needs_no_network(page: Path) -> None:
    html = page.read_text(encoding="utf-8")
    assert all(source.startswith(("data:", "#")) for source in outline(page).sources)
    assert not re.search(r"url\((?!data:)|@import|https?://", html)


def test_the_same_records_give_the_same_bytes(page: Path) -> None:
    first = page.read_bytes()
    assert build_report(page.parent).read_bytes() == first


def test_names_from_outside_cannot_become_markup(make_run: Any, tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script>"
    about = {"class_names": [hostile] * 10, "data": hostile}
    folder = make_run(
        tmp_path / "demo",
        num_steps=5,
        about=about,
        pictured=True,
        extra_lines=({"step": 4, "alarm": {"name": "x", "text": hostile}},),
    )
    html = build_report(folder).read_text(encoding="utf-8")
    assert hostile not in html
    assert "&lt;script&gt;alert(1)" in html


def test_without_labels_there_is_no_accuracy_and_it_says_so(make_run: Any, tmp_path: Path) -> None:
    path = build_report(make_run(tmp_path / "run", labeled=False, pictured=True))
    text = text_of(path)
    assert "No sign of collapse; whether it learned is not measured." in text
    assert "Learned without collapse" not in text
    assert "checked>show the images" in path.read_text(encoding="utf-8")
    assert "No labels were recorded" in text
    assert "Linear probe" not in text
    assert "which training never saw" not in text
    assert "Map of the representations" in text


def test_before_the_evaluation_there_are_curves_only(make_run: Any, tmp_path: Path) -> None:
    path = build_report(make_run(tmp_path / "run", evaluated=False))
    text = text_of(path)
    assert "has not been evaluated yet" in text
    assert "There is no evaluation.json" in text
    assert "There is no arrays.npz" in text
    assert "Total loss" in text
    assert "geometry" not in outline(path).ids


def test_a_run_stopped_before_its_first_step_has_a_page(make_run: Any, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", evaluated=False)
    (folder / "metrics.jsonl").write_text("")
    assert "No training step was logged" in text_of(build_report(folder))


def test_terms_of_another_method_get_a_chart_each(make_run: Any, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    (folder / "metrics.jsonl").write_text(
        "".join(f'{{"step": {k}, "total": 1.0, "redundancy_term": {k}}}\n' for k in range(5))
    )
    (folder / "config.yaml").write_text("method: barlow_twins\n")
    path = build_report(folder)
    assert "redundancy term" in text_of(path)
    assert "theory" not in outline(path).ids


def test_a_metric_nobody_knows_is_shown(make_run: Any, tmp_path: Path) -> None:
    path = build_report(make_run(tmp_path / "run", my_new_score=0.25))
    assert "my new score 0.25" in text_of(path)


def test_the_certificate_is_shown(make_run: Any, tmp_path: Path) -> None:
    certificate = {"sentence": "This run provably has not collapsed.", "max_bits": 7.0,
                   "mutual_information_bits": 5.5}  # fmt: skip
    text = text_of(build_report(make_run(tmp_path / "run", certificate=certificate)))
    assert "This run provably has not collapsed." in text
    assert "5.5 of 7" in text


def test_a_million_codes_stay_light(make_run: Any, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    counts = np.random.default_rng(0).multinomial(50_000, np.full(1_000_000, 1e-6))
    np.savez_compressed(folder / "arrays.npz", code_counts_C=counts)
    path = build_report(folder)
    assert path.stat().st_size < 100_000
    assert f"{(counts > 0).sum():,}".replace(",", "\u202f") in path.read_text(encoding="utf-8")


def test_the_verdict_is_the_diagnosis_unless_the_numbers_say_worse(
    make_run: Any, tmp_path: Path
) -> None:
    verdict = assess(read_run(make_run(tmp_path / "healthy")))
    assert verdict.status == "healthy"
    assert "Learned without collapse" in verdict.text
    worse = assess(read_run(make_run(tmp_path / "run", top1_linear=0.93, top1_knn=0.93)))
    assert worse.status == "warning"
    assert "no better than" in worse.text
    (tmp_path / "healthy" / "diagnosis.json").unlink()
    assert assess(read_run(tmp_path / "healthy")).status == "unknown"


def test_an_alarm_is_marked_and_lowers_the_verdict(make_run: Any, tmp_path: Path) -> None:
    alarm = {"step": 3, "epoch": 9.0, "alarm": {"name": "codes", "text": "12 of 4096 codes used"}}
    folder = make_run(tmp_path / "run", num_steps=10, extra_lines=(alarm,))
    assert assess(read_run(folder)).status == "warning"
    path = build_report(folder)
    assert "Alarm at epoch 9, step 3: 12 of 4096 codes used" in text_of(path)
    assert 'class="event"' in path.read_text(encoding="utf-8")
    (folder / "evaluation.json").unlink()
    verdict = assess(read_run(folder))
    assert (verdict.status, "Last alarm: 12 of 4096 codes used" in verdict.text) == (
        "warning",
        True,
    )


def test_suffixes_say_where_a_metric_was_measured() -> None:
    assert describe("accuracy_kmeans_u").label == "cluster accuracy of k-means on u"
    assert describe("effective_rank_z").group == describe("offdiagonal_rms_u").group
    assert describe("unheard_of_u").better is None


def test_the_diagnosis_is_shown_and_decides_the_verdict(make_run: Any, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    measure = {
        "name": "mean_cosine_z",
        "value": 0.97,
        "random": 0.4,
        "ideal": 0.0,
        "meaning": "1: all alike",
        "verdict": "collapsed",
    }
    collapses = [
        {"name": "representation", "verdict": "collapsed", "measures": [measure]},
        {"name": "cluster", "verdict": "unknown", "measures": []},
    ]
    sentence = "Collapsed: all images get nearly the same representation (representation)."
    record = {"verdict": "collapsed", "sentence": sentence, "collapses": collapses}
    (folder / "diagnosis.json").write_text(json.dumps(record))
    verdict = assess(read_run(folder))
    assert verdict.status == "collapsed"
    assert verdict.text.startswith(sentence)
    text = text_of(build_report(folder))
    row = "mean cosine of z 0.970 0.400 0.000 collapsed 1: all alike"
    assert f"Representation collapse collapsed {row}" in text
    assert "Cluster collapse not measured" in text


def test_more_codes_than_a_float_can_count(make_run: Any, tmp_path: Path) -> None:
    about = {"num_codes": 2**2048, "embed_dim": 2048, "num_test": 360, "logit_scale": 70.0}
    folder = make_run(tmp_path / "run", width=2048, about=about)
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace("rademacher", "complete"))
    text = text_of(build_report(folder))
    assert "70 of 360" in text
    assert "Codes C 2^2048" in text


def test_a_completely_collapsed_run_can_be_drawn(make_run: Any, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", effective_rank_u=1.0)
    same = np.zeros(40, dtype=np.int64)
    np.savez(
        folder / "arrays.npz",
        covariance_FF=np.ones((8, 8)),
        adjacency_MM=np.ones((40, 40)),
        adjacency_code_M=same,
        adjacency_label_M=same,
        spectrum_z=np.zeros(8),
        spectrum_u=np.zeros(8),
        code_counts_C=np.array([0, 40, 0]),
        map_xy_M2=np.zeros((40, 2)),
        map_label_M=same,
    )
    path = build_report(folder)
    text = text_of(path)
    assert "off-diagonal RMS 1.000" in text
    assert "No thumbnails were recorded" in text
    assert "Blocks: inside and between codes" not in text  # there is only one code
    assert "NaN" not in text
    assert "nan" not in path.read_text(encoding="utf-8").split("<main>")[1].split("<script>")[0]


@pytest.mark.parametrize("labeled", [True, False])
def test_the_adjacency_of_a_run_without_codes(labeled: bool, make_run: Any, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", labeled=labeled, pictured=True)
    arrays = dict(np.load(folder / "arrays.npz"))
    assert "Adjacency: one block per code" in text_of(build_report(folder))
    arrays["adjacency_code_M"] = np.full_like(arrays["adjacency_code_M"], -1)
    np.savez(folder / "arrays.npz", **arrays)
    text = text_of(build_report(folder))
    assert f"Adjacency, sorted by {'class' if labeled else 'similarity'}" in text
    for words in ("one block per code", "inside and between codes", "mean cosine, same code"):
        assert words not in text


def with_neighbors(folder: Path, **changed: np.ndarray) -> Path:
    rng = np.random.default_rng(0)
    arrays = {
        "neighbors_thumbnails": rng.integers(0, 255, (9, 12, 8, 3), dtype=np.uint8),
        "neighbors_label_T": np.arange(9) % 3,
        "neighbors_QK": np.array([[0, 3, 6, 1], [1, 4, 7, 8]]),
        "neighbors_random_QK": np.array([[0, 1, 2, 4], [1, 0, 2, 3]]),
    }
    np.savez_compressed(folder / "arrays.npz", **arrays | changed)
    return folder


def test_neighbors_are_shown_with_and_without_labels(make_run: Any, tmp_path: Path) -> None:
    folder = with_neighbors(make_run(tmp_path / "run"))
    html = build_report(folder).read_text(encoding="utf-8")
    assert "neighbors" in outline(folder / "report.html").ids
    assert "4 of 6 by this run, 0 of 6 by random encoder" in html
    assert html.count('class="alike"') == 4
    assert html.count('class="sheet near"') == 2 * 2 * 4
    no_labels = with_neighbors(
        make_run(tmp_path / "bare", labeled=False), neighbors_label_T=np.full(9, -1)
    )
    html = build_report(no_labels).read_text(encoding="utf-8")
    assert 'class="sheet near"' in html
    assert "Framed" not in html
    assert 'class="alike"' not in html


@pytest.mark.parametrize("count", [4, 18])
def test_labels_of_other_images_than_the_pictures(
    count: int, make_run: Any, tmp_path: Path
) -> None:
    folder = with_neighbors(make_run(tmp_path / "run"), neighbors_label_T=np.zeros(count, int))
    with pytest.raises(InputError, match=f"neighbors_label_T of {count}, expected one for each"):
        build_report(folder)


def test_neighbors_that_are_no_pictures_are_refused(make_run: Any, tmp_path: Path) -> None:
    folder = with_neighbors(make_run(tmp_path / "run"), neighbors_QK=np.array([[0, 9]]))
    with pytest.raises(InputError, match="places among 9 pictures"):
        build_report(folder)


def test_measures_stand_once(make_run: Any, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    measure = {"name": "mean_cosine_z", "value": 0.11, "verdict": "healthy", "meaning": "m"}
    record = {"verdict": "healthy", "collapses": [{"name": "representation", "verdict": "healthy",
              "measures": [measure]}]}  # fmt: skip
    (folder / "diagnosis.json").write_text(json.dumps(record))
    html = build_report(folder).read_text(encoding="utf-8")
    assert html.count('<th scope="row">mean cosine of z</th>') == 1


def test_a_batch_cannot_use_more_codes_than_it_has_samples(make_run: Any, tmp_path: Path) -> None:
    text = text_of(build_report(make_run(tmp_path / "run", num_codes=1024)))
    assert text.count("a code for each sample: log(C/N) = 2.08") == 2  # log(1024 / 128)
    assert "log(C/N) =" not in text_of(build_report(make_run(tmp_path / "few", num_codes=64)))


def test_few_images_cannot_take_more_directions_than_they_are(
    make_run: Any, tmp_path: Path
) -> None:
    page = build_report(make_run(tmp_path / "demo", num_steps=5, about={"num_test": 41}))
    assert "of 40" in text_of(page)
    assert "of 128" not in text_of(page)
