"""How results show themselves in a notebook: one table under a sentence, legible on light and on dark."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape

# Middle tones: each stands out on white and on near-black.
COLORS = {"healthy": "#2a9162", "warning": "#b9770e", "collapsed": "#d2463c"}
PLAIN = "#7d828b"
_NUMBER = re.compile(r"[-−–∞]?[\d.]|–?$")


def html_table(
    rows: Sequence[Sequence[str]],
    *,
    head: Sequence[str] = (),
    sentence: str = "",
    verdict: str = "",
    note: str = "",
) -> str:
    """A table as HTML with its styles in it, as a notebook has no style sheet of ours.

    Args:
        rows: Texts; the first of a row is its name. One that is a verdict is colored, and a column of numbers alone
            is aligned to the right.
        head: Names of the columns.
        sentence: What stands above it.
        verdict: "healthy", "warning", "collapsed", or words of your own before the sentence.
        note: What stands under it.

    Example:
        >>> "<b>loss</b>" in html_table([["<b>loss</b>", "1.5"]])
        False
    """
    parts = ['<div style="max-width:60em">']
    if sentence or verdict:
        parts.append(f'<p style="margin:.3em 0">{_pill(verdict)}{escape(sentence)}</p>')
    if rows:
        parts.append('<table style="border-collapse:collapse;font-variant-numeric:tabular-nums">')
        numbers = [all(map(_NUMBER.match, column)) for column in zip(*rows, strict=True)]
        if head:
            parts.append(_row(head, numbers, tag="th"))
        parts += [*(_row(row, numbers, tag="td") for row in rows), "</table>"]
    if note:
        parts.append(f'<p style="margin:.3em 0;opacity:.75">{escape(note)}</p>')
    return "".join([*parts, "</div>"])


def _pill(verdict: str) -> str:
    if not verdict:
        return ""
    style = f"color:{COLORS.get(verdict, PLAIN)};border:1px solid;border-radius:9px;padding:0 .6em"
    return f'<b style="{style};margin-right:.5em">{escape(verdict)}</b>'


def _row(cells: Sequence[str], numbers: Sequence[bool], *, tag: str) -> str:
    parts = []
    for text, is_number in zip(cells, numbers, strict=False):
        style = f"text-align:{'right' if is_number else 'left'};padding:.15em .8em .15em 0"
        if text in COLORS:
            style += f";color:{COLORS[text]};font-weight:600"
        parts.append(f'<{tag} style="{style}">{escape(text)}</{tag}>')
    return f"<tr>{''.join(parts)}</tr>"
