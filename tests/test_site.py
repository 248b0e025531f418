"""The site of the documentation: it builds without a warning, is whole, and loads nothing from elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).parents[1]
# What makes a browser load something at once; a link to follow is none of these.
LOADED = re.compile(
    r'<(?:script|img|iframe|source)[^>]*\ssrc="?([^" >]+)|<link[^>]*\shref="?([^" >]+)'
)
BASE = """<script>if (location.protocol !== "file:") document.write('<base href="/">')</script>"""
IN_STYLE = re.compile(r"(?:@import\s+|url\()[\"']?(https?:[^\"')]+)")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(out)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def test_every_document_is_a_page(site: Path) -> None:
    for path in (ROOT / "docs").rglob("*.md"):
        assert (site / path.relative_to(ROOT / "docs").with_suffix(".html")).is_file(), path


def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    """Neither fonts nor scripts nor pictures; what they do load is there."""
    pages = list(site.rglob("*.html"))
    assert len(pages) > 30
    loaded = 0
    for page in pages:
        for found in LOADED.finditer(page.read_text(encoding="utf-8")):
            target = found[1] or found[2]
            if "rel=canonical" in found[0] or 'rel="canonical"' in found[0] or target[0] == "#":
                continue
            assert not target.startswith(("http", "//")), f"{page.name}: {target}"
            if not target.startswith("data:"):
                path = unquote(target.partition("?")[0])
                file = site / path[1:] if path[0] == "/" else page.parent / path
                assert file.exists(), f"{page.name}: {target}"
                loaded += 1
    assert loaded > len(pages)
    for style in site.rglob("*.css"):
        assert not IN_STYLE.search(style.read_text(encoding="utf-8")), style


def test_what_loads_from_elsewhere_would_be_found() -> None:
    assert LOADED.search('<script src="https://unpkg.com/iframe-worker/shim">')
    assert LOADED.search("<link rel=stylesheet href=https://fonts.googleapis.com/css>")
    assert IN_STYLE.search("@import url(https://fonts.example/inter.css)")


def test_records_and_sources_are_in_the_site(site: Path) -> None:
    """A link that leaves docs/ leads to a copy."""
    text = (site / "results.html").read_text(encoding="utf-8")
    targets = re.findall(r'href="?(repository/[^" >]+)', text)
    assert len(targets) > 10
    for target in targets:
        assert (site / unquote(target.partition("#")[0])).is_file(), target


def test_figures_follow_the_colors_of_the_page(site: Path) -> None:
    text = (site / "understand.html").read_text(encoding="utf-8")
    assert text.count('<svg style="max-width') == 5
    assert "images/terms.svg" not in text


def test_lines_break_where_a_reader_would(site: Path) -> None:
    codes, data = (
        (site / f"{name}.html").read_text(encoding="utf-8") for name in ("codes", "data")
    )
    assert "17.7\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}1.5" in codes
    assert "16\N{NO-BREAK SPACE}384" in codes
    assert "40\N{NO-BREAK SPACE}%" in data
    assert "F\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}128" in codes
    assert '<span class="whole">--reading.image_size</span> 224</code>' in data
    assert '<span class="whole"' not in "".join(re.findall("<pre.*?</pre>", data, re.DOTALL))


def test_columns_of_words_are_marked_and_others_are_not(site: Path) -> None:
    layout = (site / "architecture.html").read_text(encoding="utf-8")
    floors = re.findall(r"<tr>\s*<td(.*?)>.*?</td>\s*<td(.*?)>.*?</td>\s*<td(.*?)>", layout)
    assert len(floors) > 10
    assert {tuple(bool(mark) for mark in row) for row in floors} == {(False, False, True)}


def test_the_page_of_unknown_addresses_finds_its_styles_on_a_disk(site: Path) -> None:
    """Its links start beside it; a server, which shows it under any address, starts them at the root."""
    text = (site / "404.html").read_text(encoding="utf-8")
    assert not re.search(r'\b(?:href|src)="?/', text.replace(BASE, ""))
    assert BASE in text
    assert 'href="#' not in text  # the base would lead it to the root
    base, on_disk = text.index('id="__config"'), text.index("""'"base": "."'""")
    assert (
        '"base": "/"' in text[base:on_disk]
    )  # where a server's search index is; the script moves it on a disk
    assert on_disk < text.index("javascripts/bundle")


def test_the_api_has_arguments_and_options_with_their_meaning(site: Path) -> None:
    """Functions of `commands` are named as their modules, whose first lines must not stand in their place."""
    commands, options = (
        (site / "api" / page).read_text(encoding="utf-8")
        for page in ("commands.html", "config.html")
    )
    for name in ("pretrain", "evaluate", "diagnose", "embed", "finetune", "speedrun"):
        assert f'id="falcon_ssl.commands.{name}.{name}"' in commands.replace(
            "id=falcon", 'id="falcon'
        )
    pages = [page.read_text(encoding="utf-8") for page in (site / "api").glob("*.html")]
    assert "".join(pages).count("doc-module") == 1  # that of the figures
    assert not any(re.search(r'id="?falcon_ssl[\w.]*\._', page) for page in pages)
    assert "Passes over the training images." in options
    assert "option(" not in options
