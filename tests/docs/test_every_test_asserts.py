"""Every test has an assertion in its body: `assert`, `pytest.raises` or a function named assert_... or expect_..."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.support.pages import ROOT

_ASSERTING = ("assert", "expect", "raises", "warns")


def asserts(test: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    called = (node.func for node in ast.walk(test) if isinstance(node, ast.Call))
    names = (each.attr if isinstance(each, ast.Attribute) else getattr(each, "id", "") for each in called)
    return any(isinstance(node, ast.Assert) for node in ast.walk(test)) or any(
        name.lstrip("_").startswith(_ASSERTING) for name in names
    )


def functions_of(file: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    found = (node for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
    return [node for node in found if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")]


def test_every_test_has_an_assertion() -> None:
    silent = {
        f"{file.relative_to(ROOT)}::{test.name}"
        for file in (ROOT / "tests").rglob("test_*.py")
        for test in functions_of(file)
        if not asserts(test)
    }
    assert silent == set()
