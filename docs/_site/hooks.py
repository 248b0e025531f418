"""What MkDocs does not do by itself: links that leave docs/, figures in the page's colors, line breaks, 404 on a disk.

A link from a page to a record, an example or a source file of the repository leads to a copy of it in the site, which
so is whole; documents and sources become pages, records stay as they are. Pictures ``images/*.svg`` are put into the
page, where its style sheet colors them for light and dark.
"""

from __future__ import annotations

import json
import os
import posixpath
import re
from html import escape
from itertools import zip_longest
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
LINK = re.compile(r"\]\(([^)#:\s]+)(#[^)\s]*)?\)")
PICTURE = re.compile(r'<img alt="([^"]*)" src="[^"]*?images/([\w-]+\.svg)"\s*/?>')
ABSOLUTE = re.compile(r'\b(href|src)="/')
SERVED = '<script>if (location.protocol !== "file:") document.write(\'<base href="/">\')</script>'
ON_DISK = """<script>if (location.protocol === "file:") {
  const config = document.getElementById("__config");
  config.textContent = config.textContent.replace('"base": "/"', '"base": "."');
}</script>"""
BEGIN = '<p>Search for it above, or begin <a href="index.html">at the start</a>.</p>'
BUNDLE = '<script src="assets/javascripts/bundle'
# What holds together: a number and its spread, thousands or unit, a letter and its value, an option and its dashes.
APART = re.compile(r"(<pre.*?</pre>|<svg.*?</svg>)", re.S)
NUMBERS = re.compile(
    r"(?<=[\d)]) (?=± ?[\d.])|(?<=±) (?=[\d.])|(?<=\d) (?=\d{3}\b|%)"
    r"|(?<=\d) (?=(?:ms|µs|s|min|px|[KMG]|[KMG]i?B)\b)|(?<=\b\w) (?== [\d.])|(?<=\b\w\W=) (?=[\d.])"
    r"|(?<=\d) (?=x \d)|(?<=\d x) (?=\d)"
)
NAMES = re.compile(
    r"(?<=[\s(>])(\d[\d.]*e-\d+|[A-Z]\w*-\d+|ViT-\w(?:/\d+)?|[A-Za-z]-\w+)(?![^<]*>)"
)
HYPHENED = re.compile(r"(?<=[\s>])(-{1,2}\w[\w.-]*|\w+(?:-\w+)+)(?=[\s<,/])")
CODE = re.compile(r"(<code>[^<]*</code>)")
# A table, its rows, their cells, and how many characters make a cell one of words.
TABLE = re.compile(r"<table.*?</table>", re.S)
ROW = re.compile(r"<tr>.*?</tr>", re.S)
CELL = re.compile(r"<td([^>]*)>(.*?)</td>", re.S)
TAG = re.compile(r"<[^>]*>")
WORDS = 24
LANGUAGES = {".py": "python", ".yaml": "yaml", ".toml": "toml", "": "make"}
NOT_FOUND_BY_SEARCH = "---\nsearch: {exclude: true}\n---\n"


def in_site(path: Path) -> bool:
    """Whether MkDocs has the file anyway."""
    return path.is_relative_to(DOCS) and path.suffix != ".py"


def place(path: Path) -> str:
    """Where a file or folder of the repository lies in the site's sources."""
    if in_site(path):
        return path.relative_to(DOCS).as_posix()
    uri = f"repository/{path.relative_to(ROOT).as_posix()}"
    if path.is_dir():
        return f"{uri}/index.md"
    return f"{uri}.md" if path.suffix in {*LANGUAGES, ".ipynb"} else uri


def content(path: Path) -> str:
    """What stands there: a document as it is, sources as code, a folder as the list of its files."""
    name = path.relative_to(ROOT).as_posix()
    if path.is_dir():
        files = sorted(one for one in path.iterdir() if not one.name.startswith((".", "_")))
        items = [f"- [{one.name}]({one.name})" for one in files]
        return "\n".join([f"# {name}", "", *items, ""])
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        return notebook(json.loads(text))
    if path.suffix not in LANGUAGES:
        return text
    fence = "~" * 12
    code = f"{fence}{LANGUAGES[path.suffix]}\n{text}\n{fence}\n"
    return f"{NOT_FOUND_BY_SEARCH}# {path.name}\n\n`{name}`\n\n{code}"


def notebook(found: dict[str, Any]) -> str:
    """The cells of a notebook and what they showed, as a page."""
    parts = []
    for cell in found["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        for output in cell["outputs"]:
            data = output.get("data", {})
            if "text" in output:
                printed = escape("".join(output["text"]))
                parts.append(f'<pre class="printed"><code>{printed}</code></pre>')
            elif "image/svg+xml" in data:
                svg = "".join(data["image/svg+xml"])
                parts.append(f'<div class="figure">{sized(svg)}</div>'.replace("\n", ""))
            elif "text/html" in data:
                parts.append(f'<div class="shown">{"".join(data["text/html"])}</div>')
    return "\n\n".join([*parts, ""])


def linked(path: Path, text: str) -> set[Path]:
    """Files and folders outside docs/ that a document links to."""
    targets = {(path if path.is_dir() else path.parent) / found[1] for found in LINK.finditer(text)}
    inside = {Path(os.path.normpath(target)) for target in targets}
    return {one for one in inside if one.exists() and one.is_relative_to(ROOT) and not in_site(one)}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what the pages link to, and what that links to."""
    pages = [DOCS / file.src_uri for file in files.documentation_pages()]
    wanted = set().union(*(linked(path, path.read_text(encoding="utf-8")) for path in pages))
    added: set[Path] = set()
    while new := wanted - added:
        for path in sorted(new):
            text = content(path)
            file = File.generated(config, place(path), content=text)
            if path.suffix != ".ipynb":  # the tour is in the navigation
                file.inclusion = file.inclusion.NOT_IN_NAV
            files.append(file)
            added.add(path)
            if path.is_dir() or path.suffix in (".md", ".ipynb"):
                wanted |= linked(path, text)
    _SOURCES.update({place(path): path for path in [*added, *pages]})
    return files


_SOURCES: dict[str, Path] = {}  # page of the site -> file or folder of the repository


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Let links lead to where their targets lie in the site."""
    here = _SOURCES[page.file.src_uri]
    folder = here if here.is_dir() else here.parent

    def moved(found: re.Match[str]) -> str:
        target = Path(os.path.normpath(folder / found[1]))
        if not target.exists() or not target.is_relative_to(ROOT):
            return found[0]
        link = posixpath.relpath(place(target), posixpath.dirname(page.file.src_uri))
        return f"]({link}{found[2] or ''})"

    return LINK.sub(moved, markdown)


def sized(svg: str) -> str:
    """A figure as large as a report's charts where there is room; where there is little, legible and scrolled."""
    width = float(svg.split('viewBox="0 0 ')[1].split()[0])
    size = f"max-width:{1.15 * width:.0f}px;min-width:{min(0.75 * width, 640):.0f}px"
    return svg.replace("<svg ", f'<svg style="{size}" ', 1)


def on_post_template(output_content: str, template_name: str, **_: Any) -> str:
    """The page of unknown addresses: its links start at the root of a server, and on a disk beside it."""
    if template_name != "404.html":
        return output_content
    relative = ABSOLUTE.sub(r'\1="', output_content)
    relative = relative.replace("</h1>", f"</h1>{BEGIN}", 1)
    return relative.replace("<head>", f"<head>{SERVED}", 1).replace(BUNDLE, ON_DISK + BUNDLE, 1)


def on_page_content(html: str, **_: Any) -> str:
    """Put figures into the page, give columns of words room, and let lines break where a reader would break them."""

    def drawn(found: re.Match[str]) -> str:
        svg = (DOCS / "images" / found[2]).read_text(encoding="utf-8")
        return f'<span class="figure" tabindex="0" aria-label="{found[1]}">{sized(svg)}</span>'

    return "".join(
        part if APART.fullmatch(part) else unbroken(part)
        for part in APART.split(PICTURE.sub(drawn, TABLE.sub(roomy, html)))
    )


def unbroken(html: str) -> str:
    """No line ends inside ".62 ± .01", "16 384", "3 %", "F = 2", "2 x 2", "1e-5", "CIFAR-10" or "--reading.stream"."""
    whole = r'<span class="whole">\1</span>'
    return "".join(
        HYPHENED.sub(whole, part)
        if CODE.fullmatch(part)
        else NAMES.sub(whole, NUMBERS.sub("\N{NO-BREAK SPACE}", part))
        for part in CODE.split(html)
    )


def roomy(found: re.Match[str]) -> str:
    """Marks columns of words: a phone gives them room, and does not break them into a word a line."""
    rows = [[TAG.sub("", cell[2]) for cell in CELL.finditer(row)] for row in ROW.findall(found[0])]
    lengths = [max(map(len, column)) for column in zip_longest(*rows, fillvalue="")]

    def marked(row: re.Match[str]) -> str:
        places = iter(lengths)
        return CELL.sub(
            lambda cell: (
                f'<td{cell[1]} class="words">{cell[2]}</td>' if next(places) > WORDS else cell[0]
            ),
            row[0],
        )

    return ROW.sub(marked, found[0])
