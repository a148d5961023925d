"""`tests/mutants.toml` matches the code: files to mutate, their tests, and the lines of mutants that change no behaviour."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest

from tests.support.pages import ROOT

PLAN: dict[str, Any] = tomllib.loads((ROOT / "tests/mutants.toml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("pattern", [pattern for target in PLAN["target"] for pattern in target["files"]])
def test_every_file_to_mutate_exists(pattern: str) -> None:
    assert list(ROOT.glob(pattern))


@pytest.mark.parametrize("name", sorted({name for target in PLAN["target"] for name in target["tests"]}))
def test_every_test_that_must_notice_exists(name: str) -> None:
    path, _, part = name.partition("::")
    assert (ROOT / path).exists()
    assert not part or f"class {part}" in (ROOT / path).read_text(encoding="utf-8")


@pytest.mark.parametrize("listed", PLAN["equivalent"], ids=lambda each: each["file"])
def test_a_listed_mutant_changes_a_line_of_todays_code(listed: dict[str, str]) -> None:
    """Otherwise the entry is stale, and the same fault in the new line is reported as a survivor."""
    lines = [line.strip() for line in (ROOT / listed["file"]).read_text(encoding="utf-8").splitlines()]
    assert listed["before"] in lines
    assert listed["after"] != listed["before"]
    assert listed["reason"]
