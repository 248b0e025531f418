"""The code of the guide "Adding a method" is the code of the library."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

GUIDE = Path(__file__).parents[2] / "docs" / "extend.md"
# A block belongs to the last file that is linked before it.
BLOCKS = re.findall(
    r"\]\((\.\./[\w/.]+)\)[^\]]*?:\n\n^```py\n(.*?)^```",
    GUIDE.read_text(encoding="utf-8"),
    re.M | re.S,
)


def parts_in_order(block: str, text: str) -> bool:
    """Whether what stands between the lines ``...`` of a block stands in the text, in that order."""
    found = 0
    for part in re.split(r"^ *\.\.\.\n", block, flags=re.M):
        part = part.strip("\n")
        found = text.find(part, found)
        if found < 0:
            return False
        found += len(part)
    return True


@pytest.mark.parametrize(("link", "block"), BLOCKS, ids=[link for link, _ in BLOCKS])
def test_the_guide_shows_the_code(link: str, block: str) -> None:
    assert parts_in_order(block, (GUIDE.parent / link).read_text(encoding="utf-8"))


def test_every_block_is_compared_and_the_check_can_fail() -> None:
    assert len(BLOCKS) == GUIDE.read_text(encoding="utf-8").count("```py\n") == 6
    link, block = BLOCKS[0]
    text = (GUIDE.parent / link).read_text(encoding="utf-8")
    assert not parts_in_order(block.replace("logsumexp", "exp"), text)
