"""Drawings of their own: an SVG file that is light or dark as its viewer is, and PNG.

The colors are those of the pages, read from their style sheet.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal, Protocol, TypeAlias

from markupsafe import Markup

from falcon_ssl.core.extras import train_extra

Theme: TypeAlias = Literal["light", "dark"]

NUM_COLORS = 8
MARGIN, LINE = 16.0, 18.0  # around a panel; height of a line of text
LETTER = 6.8  # width of a letter of 12 units, on average of a wide font


@dataclass(frozen=True)
class Sheet:
    """A drawing without its heading.

    Attributes:
        width: Of the box it is drawn in.
        height: The same.
        body: What is drawn, as SVG.
        keys: Class of a color ("" for none) and text of every entry above the drawing.
    """

    width: float
    height: float
    body: Markup
    keys: Sequence[tuple[str, str]] = ()


class Drawn(Protocol):
    """A part of a page that can also be drawn alone."""

    def __html__(self) -> str:
        """It, as HTML of a page."""

    def sheet(self) -> Sheet:
        """It, as a drawing."""


@cache
def _colors() -> dict[Theme, dict[str, str]]:
    """The variables of the pages: those of a light page, and of a dark one."""
    css = (files("falcon_ssl.report") / "page.css").read_text(encoding="utf-8")
    light, dark = re.findall(r":root \{(.*?)\}", css, re.S)[:2]
    given: list[dict[str, str]] = [
        dict(re.findall(r"--(\w+): ([^;]+);", one)) for one in (light, dark)
    ]
    return {"light": given[0], "dark": given[0] | given[1]}


def _variables(colors: Mapping[str, str]) -> str:
    return "".join(f"--{name}:{value};" for name, value in colors.items() if value[0] == "#")


def _style() -> str:
    """Of a drawing; names are kept apart from those of a page that it may stand in."""
    rules = {
        "text": f"font-family:{_colors()['light']['sans']};font-size:11.5px;fill:var(--soft)",
        "text.title": "font-size:14px;font-weight:600;fill:var(--ink)",
        "text.key": "font-size:12px",
        "text.level": "font-size:10.5px;paint-order:stroke;stroke:var(--paper);stroke-width:3px",
        "path": "fill:none",
        ".paper": "fill:var(--paper)",
        ".frame,.falcon-figure .grid": "stroke:var(--line)",
        ".axis,.falcon-figure path.level": "stroke:var(--muted)",
        ".line": "stroke-width:1.9;stroke-linejoin:round;stroke-linecap:round",
        ".whisker": "stroke-width:1.4",
        ".swatch": "stroke-width:3",
        "path.level": "stroke-dasharray:4 4",
        ".event": "stroke:var(--fair);stroke-width:1.5;stroke-dasharray:2 3",
        "image": "image-rendering:pixelated",
    }
    for color in (*(f"c{k}" for k in range(NUM_COLORS)), "muted"):
        rules[f".{color} path,.falcon-figure path.{color}"] = f"stroke:var(--{color})"
        rules[f".{color} circle"] = f"fill:var(--{color})"
    light, dark = (_variables(_colors()[theme]) for theme in ("light", "dark"))
    in_dark = f"@media (prefers-color-scheme:dark){{.falcon-figure{{{dark}}}}}"
    body = "".join(f".falcon-figure {name}{{{rule}}}" for name, rule in rules.items())
    return f".falcon-figure{{{light}}}{in_dark}{body}"


def svg_text(panels: Sequence[tuple[str, Sheet]], *, columns: int = 1, alt: str = "") -> str:
    """An SVG file of drawings, each under its title, side by side and in rows.

    Args:
        panels: Title and drawing; all of one size.
        columns: Drawings in a row.
        alt: Text alternative; the titles when "".
    """
    heads = [_head(title, sheet) for title, sheet in panels]
    top = max(height for _, height in heads)
    width = max(sheet.width for _, sheet in panels) + 2 * MARGIN
    height = top + max(sheet.height for _, sheet in panels) + MARGIN
    body = Markup("")
    for k, ((_, sheet), (head, _)) in enumerate(zip(panels, heads, strict=True)):
        row, column = divmod(k, columns)
        body += Markup(
            '<g transform="translate({:g} {:g})">{}<g transform="translate(0 {:g})">{}</g></g>'
        ).format(MARGIN + column * width, row * height, head, top, sheet.body)
    box = min(columns, len(panels)) * width, -(-len(panels) // columns) * height
    return Markup(
        '<svg class="falcon-figure" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {w:g} {h:g}" role="img"'
        ' aria-label="{alt}">\n<style>{style}</style>\n'
        '<rect class="paper" width="{w:g}" height="{h:g}"/>\n{body}\n</svg>\n'
    ).format(
        w=box[0],
        h=box[1],
        alt=alt or "; ".join(title for title, _ in panels),
        style=Markup(_style()),
        body=body,
    )


def _head(title: str, sheet: Sheet) -> tuple[Markup, float]:
    """Title and keys, and their height."""
    body, y = Markup(""), MARGIN
    if title:
        y += 10
        body += Markup('<text class="title" x="0" y="{:g}">{}</text>').format(y, title)
    x = 0.0
    for k, (css, text) in enumerate(sheet.keys):
        length = LETTER * len(text) + (21 if css else 0)
        if k == 0 or x + length > sheet.width:
            x, y = 0.0, y + LINE
        if css:
            body += Markup('<path class="swatch {}" d="M{:g} {:g}h15"/>').format(css, x, y - 4)
        body += Markup('<text class="key" x="{:g}" y="{:g}">{}</text>').format(
            x + (21 if css else 0), y, text
        )
        x += length + 16
    return body, y + 8


def resolved(svg: str, theme: Theme) -> str:
    """A drawing in the colors of one theme, for programs that know no variables."""
    svg = re.sub(r"@media[^{]*\{[^{]*\{[^}]*\}\}", "", svg)
    svg = re.sub(r"\.falcon-figure\{[^}]*\}", "", svg, count=1)
    return re.sub(r"var\(--(\w+)\)", lambda found: _colors()[theme][found[1]], svg)


def png_bytes(svg: str, *, theme: Theme = "light", scale: float = 2.0) -> bytes:
    """A drawing as a PNG picture of ``scale`` pixels a unit.

    Raises:
        MissingExtraError: resvg-py is not installed.
    """
    with train_extra("a picture in PNG"):
        import resvg_py
    found = re.search(r'viewBox="0 0 ([\d.]+)', svg)
    assert found, "a drawing of this file"
    width = round(float(found[1]) * scale)
    return bytes(resvg_py.svg_to_bytes(svg_string=resolved(svg, theme), width=width))
