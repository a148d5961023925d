"""What pages, examples and the reference application use of the library is public, and has the parameters they name."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from session_core import SessionHandle, SessionManager
from tests.support.pages import PAGES, ROOT, blocks, inline_code

PAGE = ROOT / "docs" / "reference" / "public-api.md"
_ROWS = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
_NAMED = {name for row in _ROWS for name in re.findall(r"`(session_core[\w.]*)`", row)}
FILES = sorted(path for folder in ("app", "examples", "migrations") for path in (ROOT / folder).rglob("*.py"))
BLOCKS = [block for page in PAGES for block in blocks(page)]
HANDLES = {"session": SessionHandle, "sessions": SessionManager}


def modules() -> Iterator[str]:
    """The public modules: the other names of the page are single objects of a module."""
    for name in _NAMED:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            continue
        yield name


MODULES = frozenset(modules())


def private_imports(code: str) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "session_core" and node.module not in _NAMED:
            found += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module in MODULES:
            public = importlib.import_module(node.module).__all__
            found += [f"{node.module}.{alias.name}" for alias in node.names if alias.name not in public]
    return [name for name in found if name not in _NAMED]


def unknown_parameters(code: str, public: dict[str, object]) -> list[str]:
    """The parameters in a line of code that the called class, function or method of the library does not have."""
    try:
        tree = ast.parse(code)
    except SyntaxError:
        return []
    found = []
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        target = _called(call.func, public)
        if target is None:
            continue
        parameters = inspect.signature(target).parameters.values() if callable(target) else ()
        if not any(each.kind is each.VAR_KEYWORD for each in parameters):
            names = {each.name for each in parameters}
            found += [keyword.arg for keyword in call.keywords if keyword.arg and keyword.arg not in names]
    return found


def _called(function: ast.expr, public: dict[str, object]) -> object:
    if isinstance(function, ast.Name):
        return public.get(function.id)
    if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name) and function.value.id in HANDLES:
        return getattr(HANDLES[function.value.id], function.attr, _absent)
    return None


def _absent() -> None:
    """Stands for a method that does not exist."""


@pytest.fixture(scope="module")
def public() -> dict[str, object]:
    return {name: getattr(module, name) for module in map(importlib.import_module, sorted(MODULES)) for name in module.__all__}


def test_every_module_on_the_page_exists() -> None:
    for name in _NAMED - MODULES:
        module, _, attribute = name.rpartition(".")
        assert hasattr(importlib.import_module(module), attribute), name


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_imports_public_names_only(path: Path) -> None:
    assert private_imports(path.read_text(encoding="utf-8")) == []


def test_blocks_import_public_names_only() -> None:
    assert {str(block): found for block in BLOCKS if (found := private_imports(block.code))} == {}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_code_in_the_text_of_a_page_names_existing_parameters(page: Path, public: dict[str, object]) -> None:
    assert {code: found for code in inline_code(page) if (found := unknown_parameters(code, public))} == {}


def test_an_unknown_parameter_is_reported(public: dict[str, object]) -> None:
    assert unknown_parameters("SessionConfig(header_sessions=True)", public) == ["header_sessions"]
    assert unknown_parameters("await session.login(identity, lasting=True)", public) == ["lasting"]
    assert unknown_parameters("await session.log_in(identity, persistent=True)", public) == ["persistent"]
    assert unknown_parameters("SessionConfig(AppSession, bearer=True)", public) == []
    assert private_imports("from session_core.sessions.record import Device") == ["session_core.sessions.record.Device"]
    assert private_imports("from session_core import Device, SessionRecord") == ["session_core.SessionRecord"]


def test_the_table_of_extras_is_complete() -> None:
    page = (ROOT / "docs" / "how-to" / "embed.md").read_text(encoding="utf-8")
    table = page.partition("| Extra | For |")[2].partition("\n\n")[0]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert sorted(re.findall(r"(?m)^\| `([\w-]+)` \|", table)) == sorted(project["optional-dependencies"])
