"""Reads the project's Markdown: its Python blocks, links, headings and commands."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>[a-z]*)(?: title=\"(?P<title>[^\"\n]+)\")?[^\n]*\n(?P<body>.*?)^(?P=indent)```[ ]*$",
    re.MULTILINE | re.DOTALL,
)
_MARK = re.compile(
    r"<!-- (?P<mark>continues|same as (?P<file>\S+)|needs (?P<group>[\w-]+) on Python (?P<python>3\.\d+)) -->\s*\Z"
)
_LINK = re.compile(r"!?\[[^\]]*\]\((?P<target>[^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} +(?P<text>.+?) *(?:\{#(?P<id>[\w-]+)\})?$", re.MULTILINE)
_CODE = re.compile(r"(?<!`)`(?P<code>[^`\n]+)`")
_SHELL = frozenset({"console", "sh", "bash", "shell"})


class Fence(NamedTuple):
    """The text between two lines of backticks. A mark is a comment on the lines before it."""

    line: int
    language: str
    title: str | None
    body: str
    mark: re.Match[str] | None


class Needs(NamedTuple):
    """The environment of an example that does not run in the project's own."""

    group: str
    """A dependency group of pyproject.toml."""
    python: tuple[int, int]
    """The lowest version."""


class Block(NamedTuple):
    """One example of a page: the code of a Python fence, preceded by that of the fences it continues."""

    page: Path
    line: int
    code: str
    same_as: str | None
    needs: Needs | None

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def fences(page: Path) -> Iterator[Fence]:
    """All fences of a page, in order."""
    text = page.read_text(encoding="utf-8")
    for fence in _FENCE.finditer(text):
        body = re.sub(rf"^{fence['indent']}", "", fence["body"], flags=re.MULTILINE)
        line = text.count("\n", 0, fence.start()) + 2
        yield Fence(line, fence["language"], fence["title"], body, _MARK.search(text, 0, fence.start()))


def blocks(page: Path) -> list[Block]:
    """The examples of a page. `<!-- continues -->` joins a block to the previous one; other blocks are independent.

    Without those that have a file's name as their title: they are steps of the tutorial, which is run as a whole.
    """
    found: list[Block] = []
    for fence in fences(page):
        if fence.language not in {"python", "py", "python3"} or fence.title:
            continue
        if fence.mark and fence.mark["mark"] == "continues":
            before = found.pop()
            found.append(before._replace(code=f"{before.code}\n\n{fence.body}"))
        else:
            same_as = fence.mark["file"] if fence.mark else None
            found.append(Block(page, fence.line, fence.body, same_as, _needs(fence)))
    return found


def _needs(fence: Fence) -> Needs | None:
    if not fence.mark or not fence.mark["group"]:
        return None
    return Needs(fence.mark["group"], (3, int(fence.mark["python"].partition(".")[2])))


def prose(page: Path) -> str:
    """The page without its fences."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def inline_code(page: Path) -> list[str]:
    """What stands between single backticks in the running text and the tables."""
    return [match["code"].replace("\\|", "|") for match in _CODE.finditer(prose(page))]


def links(page: Path) -> list[str]:
    """The targets of the links and images to files of the repository."""
    found = (match["target"] for match in _LINK.finditer(prose(page)))
    return [target for target in found if not re.match(r"[a-z]+:", target)]


def anchors(page: Path) -> set[str]:
    """The link anchors of the page's headings."""
    return {match["id"] or _slug(match["text"]) for match in _HEADING.finditer(prose(page))}


def commands(page: Path) -> list[list[str]]:
    """Every `uv run ...` of a page, in a shell block or in running text, as the words after `uv run`."""
    found = [code for code in inline_code(page) if code.startswith("uv run ")]
    for fence in fences(page):
        if fence.language in _SHELL:
            found += re.findall(r"uv run [^\n]+", fence.body.replace("\\\n", " "))
    split = [shlex.split(re.split(r"\s(?:&&|\|)\s", command)[0], comments=True)[2:] for command in found]
    return [[word for word in words if word != "--no-sync"] for words in split]


def _slug(heading: str) -> str:
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
    return re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", plain.lower())).strip("-")
