"""Figures as objects: each displays, is a whole SVG or PNG file, and follows light and dark."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from markupsafe import Markup
from PIL import Image

from falcon_ssl.core.errors import InputError
from falcon_ssl.report import figures
from falcon_ssl.report.document import Figure
from falcon_ssl.report.images import GAP, SIDE, Matrices
from falcon_ssl.report.plots import map_figure
from falcon_ssl.report.run import read_run
from falcon_ssl.report.sheet import Sheet, resolved, svg_text
from report.conftest import MakeRun

DRAWN: dict[str, Callable[[Path], Figure]] = {
    "spectrum": figures.spectrum,
    "spectrum of u": lambda run: figures.spectrum(run, space="u"),
    "covariance": figures.covariance,
    "codes": figures.codes,
    "blocks": figures.blocks,
    "training": lambda run: figures.training(run, "effective_rank_u"),
    "gaps": figures.gaps,
}


@pytest.fixture(scope="module")
def run(make_run: MakeRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("figures") / "run", pictured=True)


@pytest.mark.parametrize("name", DRAWN)
def test_a_figure_is_a_file_that_needs_nothing(name: str, run: Path, tmp_path: Path) -> None:
    figure = DRAWN[name](run)
    svg = figure.save(tmp_path / "figure.svg").read_text(encoding="utf-8")
    assert svg == figure._repr_svg_(), "what a notebook shows"
    root = ElementTree.fromstring(svg)
    assert root.get("aria-label") == figure.caption
    assert figure.title in "".join(root.itertext())
    assert "prefers-color-scheme:dark" in svg
    assert not [v for e in root.iter() for v in e.attrib.values() if v.startswith("http")]


def test_a_picture_is_drawn_in_the_colors_of_its_theme(run: Path, tmp_path: Path) -> None:
    paper = {}
    for theme in ("light", "dark"):
        figure = figures.spectrum(run)
        file = figure.save(tmp_path / f"{theme}.png", theme=theme, scale=1)  # type: ignore[arg-type]
        with Image.open(file) as picture:
            assert picture.width == 472
            pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
        colors, counts = np.unique(pixels, axis=0, return_counts=True)
        paper[theme] = colors[counts.argmax()].tolist()
        assert len(colors) > 50, "lines and letters"
    assert paper == {"light": [0xFA, 0xF9, 0xF6], "dark": [0x13, 0x15, 0x18]}


def test_no_variable_is_left_for_programs_that_know_none(run: Path) -> None:
    for theme in ("light", "dark"):
        svg = resolved(figures.training(run).svg(), theme)  # type: ignore[arg-type]
        assert "var(" not in svg
        assert "@media" not in svg


def test_panels_stand_side_by_side() -> None:
    sheet = Sheet(100, 50, Markup(""), [("c0", "a name")])
    box = [
        ElementTree.fromstring(svg_text([("a", sheet)] * 3, columns=columns)).get("viewBox")
        for columns in (1, 2, 3)
    ]
    sizes = [tuple(map(float, (one or "").split()[2:])) for one in box]
    assert sizes[1] == (2 * sizes[0][0], sizes[0][1] * 2 / 3)
    assert sizes[2] == (3 * sizes[0][0], sizes[0][1] / 3)


def test_titles_are_text(make_run: MakeRun, tmp_path: Path) -> None:
    """No title can become markup."""
    svg = svg_text([("<script>&", Sheet(9, 9, Markup("")))])
    assert "<script>" not in svg
    assert ElementTree.fromstring(svg).get("aria-label") == "<script>&"


def test_what_cannot_be_drawn_is_said(make_run: MakeRun, run: Path, tmp_path: Path) -> None:
    unread = make_run(tmp_path / "unread", evaluated=False)
    for draw in (figures.spectrum, figures.covariance, figures.codes, figures.blocks):
        with pytest.raises(InputError, match="falcon-ssl evaluate"):
            draw(unread)
    with pytest.raises(
        InputError, match=r"no such quantity was logged: received loss, expected.*total"
    ):
        figures.training(run, "loss")
    with pytest.raises(InputError, match=r"unknown kind of picture: received a.pdf"):
        figures.codes(run).save(tmp_path / "a.pdf")
    assert not list(tmp_path.glob("*.pdf"))
    on_a_page = map_figure(read_run(run))
    assert on_a_page is not None
    with pytest.raises(InputError, match="a part of a page"):
        on_a_page.svg()


def test_heat_maps_make_room_for_their_names() -> None:
    def width(name: str) -> float:
        return Matrices("pair", [("a", np.eye(3)), (name, np.eye(3))]).sheet().width

    assert width("short") == 2 * SIDE + GAP
    assert width("random encoder: off-diagonal RMS 0.186") > 2 * SIDE + GAP + 40
