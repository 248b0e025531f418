"""What a page is made of, and how it becomes one HTML file that needs no network.

The template has only these parts; which quantities a page shows is decided in Python.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from falcon_ssl.core.errors import InputError
from falcon_ssl.core.version import __version__
from falcon_ssl.records.files import replacing, write_text
from falcon_ssl.report.sheet import Drawn, Theme, png_bytes, svg_text

_TEMPLATES = Environment(
    loader=PackageLoader("falcon_ssl", "report"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)

Status: TypeAlias = Literal["healthy", "warning", "collapsed", "unknown"]
MarkKind: TypeAlias = Literal["run", "random", "chance"]


@dataclass(frozen=True)
class Card:
    """A headline number with what to compare it with.

    Attributes:
        label: What is measured.
        value: The number.
        of: What follows it in small type: "of 128".
        marks: Places on the ruler under the number, as fractions of its length; empty for no ruler.
        notes: The values to compare with, each with its kind of mark on the ruler.
    """

    label: str
    value: str
    of: str = ""
    marks: Sequence[tuple[MarkKind, float]] = ()
    notes: Sequence[tuple[MarkKind, str]] = ()


class Block:
    """A part of a section; the template has a macro of the same name."""

    @property
    def kind(self) -> str:
        """Name of the macro."""
        return type(self).__name__.lower()


@dataclass(frozen=True)
class Figure(Block):
    """A picture with its title and a caption that says exactly what is drawn.

    It displays in a notebook, and saves itself where its body can be drawn alone (charts and heat maps).

    Attributes:
        title: Heading.
        body: The picture, as HTML or with a way to become it.
        caption: What the quantity is: centered or not, normalized or not, which rows.
        span: "wide" takes both columns of the page, "tall" two rows of one.
    """

    title: str
    body: Markup | Drawn = field(repr=False)
    caption: str = field(repr=False)
    span: Literal["", "wide", "tall"] = ""

    def svg(self) -> str:
        """The picture under its title, as an SVG file: light or dark as its viewer is.

        Raises:
            InputError: Its body is no drawing but a part of a page.
        """
        if isinstance(self.body, Markup):
            raise InputError(
                f"this figure is a part of a page: {self.title}",
                received="one that needs the page's script",
                expected="a chart or heat maps",
                fix="see it in the report of the run",
            )
        return svg_text([(self.title, self.body.sheet())], alt=self.caption)

    def save(self, path: str | Path, *, theme: Theme = "light", scale: float = 2.0) -> Path:
        """Write the picture as an SVG or PNG file.

        Args:
            path: File to write, ``.svg`` or ``.png``; an older one is replaced.
            theme: Colors of a PNG; an SVG has both.
            scale: Pixels of a PNG for each of the drawing's 472 units of width or so.

        Returns:
            ``path``.

        Raises:
            InputError: Another kind of file.
        """
        path = Path(path)
        if path.suffix == ".svg":
            write_text(path, self.svg())
        elif path.suffix == ".png":
            with replacing(path) as unfinished:
                unfinished.write_bytes(png_bytes(self.svg(), theme=theme, scale=scale))
        else:
            raise InputError(
                "unknown kind of picture", received=path.name, expected="a name in .svg or .png"
            )
        return path

    def _repr_svg_(self) -> str:
        return self.svg()


@dataclass(frozen=True)
class Cell:
    """One cell of a table; ``best`` sets it in bold, ``status`` colors it."""

    text: str
    best: bool = False
    status: Status = "unknown"


@dataclass(frozen=True)
class Rows:
    """Rows of a table under a heading of their own (none when ``title`` is empty)."""

    title: str
    rows: Sequence[Sequence[Cell]]
    status: Status | None = None  # None: no verdict


@dataclass(frozen=True)
class Table(Block):
    """Rows of cells, the first of each row being its header.

    Attributes:
        head: Column titles.
        groups: The rows, in groups.
        numeric: Number of columns after the first that hold numbers.
        title: Heading above the table.
        note: A remark under the table.
        wide: Whether it takes both columns of the page.
    """

    head: Sequence[str]
    groups: Sequence[Rows]
    numeric: int
    title: str = ""
    note: str = ""
    wide: bool = True


@dataclass(frozen=True)
class Facts(Block):
    """Name and value pairs."""

    pairs: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Listing(Block):
    """Text in a typewriter face, folded away when long."""

    title: str
    text: str
    folded: bool = False


@dataclass(frozen=True)
class Note(Block):
    """A sentence to the reader, colored by its status."""

    text: str
    status: Status = "unknown"


@dataclass(frozen=True)
class Section:
    """A part of the page, with an anchor of its own."""

    slug: str
    title: str
    intro: str
    blocks: Sequence[Block | None]  # without those that are None; a section without any is left out


@dataclass(frozen=True)
class Page:
    """A whole page.

    Attributes:
        title: Its heading.
        eyebrow: A few words above the heading.
        status: Color of the verdict; None for a page without a verdict.
        verdict: The one sentence to read.
        cards: Headline numbers.
        sections: Everything else.
        live: Of a page that is served while its run trains: where the run is.
        refresh: Seconds after which such a page asks for its newer self.
    """

    title: str
    eyebrow: str
    status: Status | None
    verdict: str
    cards: Sequence[Card] = ()
    sections: Sequence[Section] = field(default_factory=tuple)
    live: str = ""
    refresh: float = 0.0


def write_page(page: Page, path: Path) -> Path:
    """Write the page as one HTML file; the same page gives the same bytes.

    Args:
        page: What to show.
        path: File to write; an older one is replaced.

    Returns:
        ``path``.
    """
    write_text(path, page_html(page))
    return path


def page_html(page: Page) -> str:
    """The page as one HTML file."""
    return render("page.html", page=page, version=__version__)


def render(name: str, **values: object) -> Markup:
    """One of the templates beside this file, filled in; what is no markup is escaped."""
    return Markup(_TEMPLATES.get_template(name).render(**values))
