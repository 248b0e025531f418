"""Results show themselves: each table has its numbers, its verdict in color, and no markup from outside."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import pytest
import torch

from falcon_ssl import (
    CompleteDictionary,
    Features,
    LossTerms,
    RademacherDictionary,
    certify,
    diagnose,
)
from falcon_ssl.core.notebook import COLORS, html_table
from falcon_ssl.report.summary import Evaluation

RECORD = {
    "top1_linear": 0.9,
    "top1_linear_1pct": 0.5,
    "top1_linear_1pct_std": 0.02,
    "effective_rank_z": 12.5,
    "random_encoder": {"top1_linear": 0.7},
    "chance": {"top1": 0.1},
    "certificate": {"sentence": "Proven."},
    "about": {
        "data": "<b>mine</b>",
        "split": "test",
        "num_test": 7,
        "note": "a note",
        "num_classes": 3,
    },
}


def shown(result: object) -> str:
    """The text of what a notebook shows; it has to be well-formed."""
    html = result._repr_html_()  # type: ignore[attr-defined]
    return " ".join(ElementTree.fromstring(html).itertext())


def test_nothing_from_outside_becomes_markup() -> None:
    html = html_table([["<script>", "1"]], head=["<i>"], sentence="<b>", verdict="<u>", note="<s>")
    assert not re.search(r"<(script|i|s|u)>", html)
    assert "<b>" not in html


def test_a_verdict_has_its_color() -> None:
    for verdict, color in COLORS.items():
        assert html_table([["a", verdict]], verdict=verdict).count(color) == 2
    assert not any(color in html_table([["a", "1"]]) for color in COLORS.values())


def test_columns_of_numbers_alone_are_aligned_to_the_right() -> None:
    html = html_table([["a", "1.5", "of it"], ["b", "", "2 of it all"]], head=["", "nats", "what"])
    aligned = re.findall(r"text-align:(\w+)", html)
    assert aligned == ["left", "right", "left"] * 3


def test_loss_terms_show_every_term() -> None:
    text = shown(LossTerms(*torch.tensor([5.0, 1.0, 4.0, 0.75, 0.25])))
    assert "prior_matching 4.0000" in text
    assert "entropy 0.7500" in text


@pytest.mark.parametrize(
    ("dictionary", "size"),
    [(RademacherDictionary(4096, 128), "4096"), (CompleteDictionary(128), "2^128")],
    ids=["rademacher", "complete"],
)
def test_a_dictionary_shows_its_size(dictionary: object, size: str) -> None:
    text = shown(dictionary)
    assert f"codes C {size}" in text
    assert "width F 128" in text


def test_a_diagnosis_shows_what_it_found_and_what_it_could_not() -> None:
    found = diagnose(Features(z=torch.ones(50, 40)), num_clusters=2)
    text = shown(found)
    assert found.sentence in text
    assert "cluster not measured" in text
    assert COLORS["collapsed"] in found._repr_html_()


def test_a_certificate_shows_whether_it_is_a_proof() -> None:
    terms = {
        "total": 5.0,
        "invariance": 1.0,
        "prior_matching": 4.0,
        "entropy": 0.75,
        "consistency": 0.25,
    }
    options = {"num_codes": 4096, "logit_scale": 18.4, "beta": 1.0, "batch_size": 256}
    proven = certify(terms, prior_matching="reverse", **options)  # type: ignore[arg-type]
    assert shown(proven).startswith("proven")
    assert "8.318 nats" in shown(proven)
    unproven = certify({**terms, "total": 12.0}, prior_matching="forward", **options)  # type: ignore[arg-type]
    assert shown(unproven).startswith("not proven")
    assert "bits of code not known" in shown(unproven)


def test_an_evaluation_shows_what_the_terminal_shows() -> None:
    found = Evaluation(RECORD)
    text = shown(found)
    assert text.startswith("<b>mine</b>, test split (7 images)")
    assert "linear probe, top-1 90.0\u202f% 70.0\u202f% 10.0\u202f%" in text
    assert "50.0\u202f% ± 2.0" in text
    assert "Proven." in text
    assert found == RECORD, "it stays a dictionary"
    unlabeled = {**RECORD, "about": {**RECORD["about"], "num_classes": None}, "certificate": {}}  # type: ignore[dict-item]
    assert "No labels were read" in shown(Evaluation(unlabeled))
