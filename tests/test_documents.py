"""What the documents show is what happens: their code runs, their commands exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import torch
from torch.nn.functional import normalize

from falcon_ssl import RademacherDictionary, falcon_loss, logit_scale
from falcon_ssl.cli.commands import COMMANDS as FUNCTIONS
from falcon_ssl.cli.parser import parse

ROOT = Path(__file__).parents[1]
MINIMAL = ROOT / "MINIMAL.md"  # its code has a test of its own
UNMEASURED = ROOT / "src/falcon_ssl/config/recipes/unmeasured/README.md"
TOP = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "results/LOG.md")]
DOCUMENTS = [MINIMAL, UNMEASURED, *TOP, *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(document: Path, language: str) -> list[str]:
    text = document.read_text(encoding="utf-8")
    found = re.finditer(rf"^( *)```{language}\n(.*?)^\1```", text, re.M | re.S)
    return [dedent(one[2]) for one in found]  # indented in a tab


CODE = [
    (path, i) for path in DOCUMENTS if path != MINIMAL for i in range(len(blocks(path, "python")))
]
COMMANDS = sorted(
    {
        re.split(r"[#>]", line)[0].strip()
        for path in DOCUMENTS
        for block in blocks(path, "console")
        for line in block.splitlines()
        if line.startswith("falcon-ssl ")
    }
)


@pytest.mark.parametrize(("path", "index"), CODE, ids=[f"{p.name}-{i}" for p, i in CODE])
def test_python_blocks_run(
    path: Path, index: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    exec(compile(blocks(path, "python")[index], str(path), "exec"), {})


def test_minimal_is_the_method(capsys: pytest.CaptureFixture[str]) -> None:
    """Its loss is the library's loss, and it learns."""
    (code,) = blocks(MINIMAL, "python")
    assert len(code.splitlines()) < 70, "one screen"
    names: dict[str, Any] = {}
    exec(compile(code, "MINIMAL.md", "exec"), names)
    same = float(capsys.readouterr().out.rsplit(" ", 1)[1])
    assert same > 0.97, (
        "raw pixels give about .985 with 8x8 digits unshifted; a collapsed encoder about .1"
    )
    dictionary = RademacherDictionary(names["C"], names["F"], seed=3)
    names["codes"] = dictionary.block(0, names["C"])
    u1, u2 = normalize(torch.randn(2, 32, names["F"]), dim=2)
    ours = falcon_loss(
        (u1, u2),
        dictionary,
        logit_scale=logit_scale(names["C"], names["epsilon"]),
        beta=names["beta"],
        backend="reference",
    )
    assert torch.allclose(names["falcon_loss"](u1, u2), ours.total, rtol=1e-5)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_parse(command: str) -> None:
    _, name, *words = shlex.split(command)
    if "--help" in words:
        with pytest.raises(SystemExit, match="0"):
            parse(name, FUNCTIONS[name], words)
    else:
        parse(name, FUNCTIONS[name], words)


def swallowed_items(text: str) -> list[str]:
    """Items of lists that follow a line of prose: MkDocs takes them for more of that prose, GitHub does not."""
    prose = re.sub(r"^ *(```|~~~).*?^ *\1", "", text, flags=re.M | re.S)
    paragraphs = [
        one for one in re.split(r"\n\s*\n", prose) if re.match(r"\w|[`[(*]+\w", one.strip())
    ]
    return [line for one in paragraphs for line in one.splitlines()[1:] if re.match("[-*] ", line)]


def test_lists_begin_after_an_empty_line() -> None:
    assert swallowed_items("Two of them:\n- one\n- two\n") == ["- one", "- two"]
    assert not swallowed_items("Two of them:\n\n- one\n- two\n")
    for document in DOCUMENTS:
        assert not swallowed_items(document.read_text(encoding="utf-8")), document


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


def test_links_lead_somewhere() -> None:
    for path in DOCUMENTS:
        for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text(encoding="utf-8")):
            assert (path.parent / target).exists(), f"{path.name}: {target}"
