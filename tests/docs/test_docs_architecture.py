"""The page about the architecture names functions and folders that exist."""

from __future__ import annotations

import ast
import re
import tomllib

import pytest

from tests.support.pages import ROOT

PAGE = (ROOT / "docs/explanation/architecture.md").read_text(encoding="utf-8")
NAMED = re.findall(r"`([\w/]+\.py)::([\w.]+)`", PAGE)


def defined(file: str) -> set[str]:
    found: set[str] = set()
    for node in ast.parse((ROOT / file).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            methods = (each for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef))
            found |= {f"{node.name}.{each.name}" for each in methods}
    return found


@pytest.mark.parametrize(("file", "name"), NAMED, ids=lambda part: part)
def test_each_function_of_a_walk_exists(file: str, name: str) -> None:
    assert name in defined(file)


def test_all_four_walks_name_functions() -> None:
    walks = PAGE.split("\n### ")[1:]
    assert len(walks) == 4
    assert all(len(re.findall(r"\.py::", walk)) >= 5 for walk in walks)


def test_the_tree_shows_every_folder_of_the_library_and_every_module_of_its_root() -> None:
    tree = PAGE.split("```text")[1].split("```")[0]
    library = ROOT / "session_core"
    folders = {path.name for path in library.rglob("*/") if (path / "__init__.py").exists()}
    assert {name for name in folders if f"{name}/" not in tree} <= {"session_core"}
    modules = {path.stem for path in library.glob("*.py")} - {"__init__"}
    assert not {name for name in modules if not re.search(rf"\b{name}\b", tree)}


def test_the_page_names_every_module_that_may_import_litestar() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = project["tool"]["importlinter"]["contracts"]
    allowed = next(each["allowed_importers"] for each in contracts if each.get("protected_modules") == ["litestar"])
    (rule,) = re.findall(r"^- Only (.*?)import\s+Litestar\.", PAGE, re.MULTILINE | re.DOTALL)
    library = {name.removeprefix("session_core.").replace(".", "/") for name in allowed if name.startswith("session_core.")}
    assert library
    assert set(re.findall(r"`([\w/]+)`", rule)) == library
