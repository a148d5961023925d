"""Texts, comments and names use plain words: riddles and personified code are hard to read for non-native speakers."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from tests.support.pages import ROOT

_TEXTS = {".html", ".js", ".lua", ".md", ".mjs", ".py", ".sh", ".toml", ".txt", ".yaml", ".yml"}
_FOLDERS = (
    "app",
    "auth_demo",
    "benchmarks",
    "deploy",
    "docs",
    "examples",
    "migrations",
    "scripts",
    "session_core",
    "tests",
    ".github",
)
_NAMED = ("CONTRIBUTING.md", "Justfile", "README.md", "SECURITY.md", "pyproject.toml", ".ci/run", ".env.example")
_WORDS = (
    "nobody", "somebody", "anybody", "everybody", "whoever", "gone around", "is told", "are told", "was told",
    "in the way", "says nothing", "knows no", "knows nothing", "without a word", "in vain", "thereby", "farewell",
    "comes to itself", "for ever",
)  # fmt: skip
_AVOIDED = re.compile("(?<![a-z])(?:" + "|".join(_WORDS).replace(" ", "[ _\n#]+") + ")(?![a-z])", re.IGNORECASE)
_LITERAL = re.compile(r'"nobody"')
"""The Unix user."""


def files() -> list[Path]:
    renamed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["name"] != "session-core"
    folders, names = (("session_core",), ()) if renamed else (_FOLDERS, _NAMED)  # the rest is the owner's to word
    found = (path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix in _TEXTS)
    named = (ROOT / name for name in names)
    kept = (path for path in (*found, *named) if path.is_file() and path != Path(__file__))
    return [path for path in kept if not {"node_modules", "__pycache__"} & set(path.parts)]


def avoided(text: str) -> list[str]:
    return _AVOIDED.findall(_LITERAL.sub("", text))


def test_no_file_uses_an_avoided_word() -> None:
    found = {str(path.relative_to(ROOT)): avoided(path.read_text(encoding="utf-8")) for path in files()}
    assert {path: words for path, words in found.items() if words} == {}


@pytest.mark.parametrize("text", ["# Nobody is told.", "def test_nobody_waits", "it is in the\n# way", "test_it_knows_no_limit"])
def test_an_avoided_word_is_found(text: str) -> None:
    assert avoided(text)


@pytest.mark.parametrize("text", ['user = "nobody"', "for everyone", "forever", "for every request"])
def test_other_words_are_accepted(text: str) -> None:
    assert not avoided(text)
