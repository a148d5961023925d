"""The statements of README and documentation hold: blocks run, link targets, commands and settings exist."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import re
import subprocess
import sys
import tomllib
from argparse import ArgumentParser
from pathlib import Path

import click
import pytest
from litestar import Litestar
from litestar.testing import TestClient

from app.user_commands import UserCommands
from session_core.litestar.commands import add_commands
from tests.support.application_state import global_state_is_restored  # noqa: F401 - a fixture
from tests.support.interpreters import find_python
from tests.support.pages import PAGES, ROOT, Block, anchors, blocks, commands, links, prose

BLOCKS = [block for page in PAGES for block in blocks(page)]
BIN = Path(sys.executable).parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
GROUPS: dict[str, list[object]] = PROJECT["dependency-groups"]
SCRIPTS: dict[str, str] = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]["custom"]["commands"]
# Programs that `uv run` does not install.
_NEEDS_DEV = {"pytest", "ruff", "mypy", "pyright", "lint-imports", "zensical"}
_HAS_TESTS = re.compile(r"^(?:async )?def test_|^class Test", re.MULTILINE)
_SHIPPED = {f"app.routes.{name}" for name in ("account", "admin", "health", "home", "session_api", "static", "user_api")}
_CALL = re.compile(r"\b(?P<name>[A-Z]\w+)\((?P<arguments>[^()]*(?:\([^()]*\)[^()]*)*)\)")
_OPTION = re.compile(r"(?:^|, )(\w+)=(?!=)")
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def _name(block: Block) -> str:
    return "block_" + re.sub(r"\W", "_", str(block))


@pytest.mark.parametrize("block", [block for block in BLOCKS if not _HAS_TESTS.search(block.code)], ids=str)
def test_a_block_runs(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "block.py"
    file.write_text(block.code, encoding="utf-8")
    name = _name(block)
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Litestar and msgspec resolve annotations in the module by its name.
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    app = getattr(module, "app", None)
    if isinstance(app, Litestar):
        with TestClient(app):
            pass


def test_the_tests_in_blocks_pass(tmp_path: Path) -> None:
    with_tests = [block for block in BLOCKS if _HAS_TESTS.search(block.code) and not block.needs]
    assert _failures(with_tests, tmp_path, "-W", "error") == []


@pytest.mark.long
@pytest.mark.parametrize("block", [block for block in BLOCKS if block.needs], ids=str)
def test_the_tests_in_a_block_of_another_package_pass(block: Block, tmp_path: Path) -> None:
    """In an environment with that package alone, as locked."""
    assert block.needs is not None
    python = find_python(block.needs.python)
    if python is None:
        pytest.skip(f"no Python {'.'.join(map(str, block.needs.python))} or later on this machine")
    environment = tmp_path / "environment"
    options = ("--quiet", "--locked", "--no-install-project", "--only-group", block.needs.group, "--python", python)
    settings = {**os.environ, "UV_PROJECT_ENVIRONMENT": str(environment)}
    synced = subprocess.run(["uv", "sync", *options], cwd=ROOT, env=settings, capture_output=True, text=True, check=False)
    assert synced.returncode == 0, synced.stderr
    assert _failures([block], tmp_path, python=environment / "bin" / "python") == []


def _failures(chosen: list[Block], folder: Path, *options: str, python: Path = Path(sys.executable)) -> list[str]:
    """What pytest prints when it runs these blocks in a process of its own, and one of them does not pass."""
    files = {f"test_{_name(block)}.py": block.code for block in chosen}
    for name, code in files.items():
        (folder / name).write_text(code, encoding="utf-8")
    plugins = ("-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:schemathesis")
    command = [python, "-m", "pytest", "-rA", *plugins, *options, *files]
    tried = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    passed = tried.returncode == 0 and all(f"PASSED {name}::" in tried.stdout for name in files)
    return [] if passed else [tried.stdout]


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.same_as], ids=str)
def test_a_block_equals_the_file_it_names(block: Block) -> None:
    assert block.same_as is not None
    assert block.code.strip() in (ROOT / block.same_as).read_text(encoding="utf-8")


@each_page
def test_link_targets_exist(page: Path) -> None:
    broken = []
    for target in links(page):
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors(file)):
            broken.append(target)
    assert broken == []


@each_page
def test_commands_exist(page: Path) -> None:
    problems = [f"uv run {' '.join(words)}: {problem}" for words in commands(page) if (problem := _problem(words))]
    assert problems == []


def test_an_invalid_command_is_reported() -> None:
    for wrong in (
        "serve --prot 1",
        "just nothing",
        "litestar sessions lsit",
        "litestar sessions revoke",
        "nothing",
        "alembic x",
        "pytest",
        "--group x serve",
    ):
        assert _problem(wrong.split()), wrong


def test_the_reference_lists_every_setting() -> None:
    settings = set(re.findall(r"^#?([A-Z][A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    assert settings
    page = ROOT / "docs" / "reference" / "settings.md"
    assert settings - set(re.findall(r"`([A-Z][A-Z_]+)`", page.read_text())) == set()


def test_the_reference_lists_every_error_event_and_option() -> None:
    errors = importlib.import_module("session_core.errors")
    events = importlib.import_module("session_core.events")
    config = importlib.import_module("session_core.config").SessionConfig
    codes = {vars(kind)["code"] for name in errors.__all__ if "code" in vars(kind := getattr(errors, name))}
    pages = {name: (ROOT / "docs" / "reference" / f"{name}.md").read_text() for name in ("errors", "events", "config")}
    assert {name for name in errors.__all__ if f"`{name}`" not in pages["errors"]} == set()
    assert {code for code in codes if f"`{code}`" not in pages["errors"]} == set()
    assert {name for name in events.EventName.__args__ if f"`{name}`" not in pages["events"]} == set()
    login = importlib.import_module("session_core.oidc")
    cookie = importlib.import_module("session_core.cookies").CookieConfig
    kinds = (config, login.OidcConfig, login.OidcProvider, login.OAuth2Provider)
    options = {name for kind in kinds for name in kind.__dataclass_fields__}
    options |= set(cookie.__struct_fields__)
    assert {name for name in options if f"`{name}`" not in pages["config"]} == set()


def _options(call: re.Match[str]) -> set[str]:
    """The names of the arguments of a call, without those of calls within it."""
    return set(_OPTION.findall(re.sub(r"\([^()]*\)", "", call["arguments"])))


@each_page
def test_the_options_that_a_page_names_exist(page: Path) -> None:
    modules = [importlib.import_module(name) for name in ("session_core", "session_core.oidc", "session_core.stores")]
    kinds = {name: getattr(module, name) for module in modules for name in module.__all__ if name[0].isupper()}
    calls = [call for call in _CALL.finditer(prose(page)) if inspect.isclass(kinds.get(call["name"]))]
    unknown = {
        call[0]: names for call in calls if (names := _options(call) - set(inspect.signature(kinds[call["name"]]).parameters))
    }
    assert unknown == {}


def test_a_decision_has_at_most_600_words() -> None:
    texts = {page.name: page.read_text() for page in (ROOT / "docs" / "adr").glob("0*.md")}
    decisions = {name: len(text.split()) for name, text in texts.items() if "\nStatus: " in text}
    assert len(decisions) > 20
    assert {name: words for name, words in decisions.items() if words > 600} == {}


def test_the_reference_lists_every_verb() -> None:
    session = importlib.import_module("session_core.sessions.handle").SessionHandle
    manager = importlib.import_module("session_core.sessions.manager").SessionManager
    page = (ROOT / "docs" / "reference" / "session.md").read_text()
    verbs = [name for kind in (session, manager) for name in vars(kind) if not name.startswith("_")]
    assert [name for name in verbs if f"`{name}" not in page] == []


def test_the_reference_lists_every_route(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "reference" / "routes.md").read_text()
    app: Litestar = importlib.import_module("app.asgi").create_app()
    paths = {re.sub(r":\w+\}", "}", route.path) for route in app.routes if _is_shipped(route)}
    assert {path for path in paths if f"{path}`" not in text and not path.startswith(("/static", "/schema/"))} == set()


def _is_shipped(route: object) -> bool:
    """Whether a route belongs to the template; the owner's additions need not be in the table."""
    modules = {handler.fn.__module__ for handler in getattr(route, "route_handlers", ())}
    return any(module in _SHIPPED or module.startswith("session_core.") for module in modules)


@each_page
def test_pages_contain_no_machine_paths_and_no_todo_marks(page: Path) -> None:
    assert re.findall(r"/home/\w+|/Users/\w+|TODO|FIXME|lorem", page.read_text()) == []


@each_page
def test_a_page_loads_no_file_from_another_host(page: Path) -> None:
    assert re.findall(r"!\[[^\]]*\]\(https?:|<(?:script|img|link|iframe)\b[^>]*https?:", prose(page)) == []


def _problem(words: list[str]) -> str | None:
    """Why a command is invalid, or None. Nothing runs except `just --summary`."""
    groups: set[str] = set()
    while words[0] == "--group":
        groups.add(words[1])
        words = words[2:]
    name, *arguments = words
    if groups - GROUPS.keys() or (name in _NEEDS_DEV and "dev" not in groups) or not (BIN / name).exists():
        return "no such program, or not by these groups"
    match name:
        case _ if name in SCRIPTS:
            return _refused(importlib.import_module(SCRIPTS[name].partition(":")[0])._parser(), arguments)
        case "just":
            return _refused_by_just(arguments)
        case "litestar":
            return _refused_by_litestar(arguments)
        case "alembic":
            return _refused(importlib.import_module("alembic.config").CommandLine().parser, arguments)
        case _:
            return _missing_files(arguments)


def _missing_files(arguments: list[str]) -> str | None:
    files = [word for word in arguments if word.endswith(".py") or word.startswith(("tests", "examples/"))]
    missing = [file for file in files if not (ROOT / file.partition("::")[0]).exists()]
    return f"no such file: {', '.join(missing)}" if missing else None


def _refused(parser: ArgumentParser, arguments: list[str]) -> str | None:
    try:
        parser.parse_args(arguments)
    except SystemExit as refused:
        return "its arguments are refused" if refused.code else None
    return None


def _refused_by_just(arguments: list[str]) -> str | None:
    summary = subprocess.run([BIN / "just", "--summary"], cwd=ROOT, capture_output=True, text=True, check=True)
    return None if not arguments or arguments[0] in summary.stdout.split() else "no such recipe"


class _Group(click.Group):
    """A Litestar command group whose subgroups have the same type."""

    group_class = click.Group


def _refused_by_litestar(arguments: list[str]) -> str | None:
    cli = _Group("litestar")
    add_commands(cli)
    UserCommands().on_cli_init(cli)
    if arguments[:1] == ["--app"]:
        arguments = arguments[2:]
    if not arguments or arguments[0] in {"run", "routes", "info", "version", "schema", "--help"}:
        return None
    return _resolve(cli, arguments)


def _resolve(group: click.Group, arguments: list[str]) -> str | None:
    command = group.commands.get(arguments[0])
    if command is None:
        return f"no command {arguments[0]}"
    if isinstance(command, click.Group):
        return _resolve(command, arguments[1:]) if arguments[1:] and arguments[1] not in {"...", "--help"} else None
    try:
        command.make_context(arguments[0], arguments[1:])
    except click.exceptions.Exit:
        return None
    except click.ClickException as refused:
        return refused.format_message()
    return None


def test_blocks_are_found() -> None:
    assert len(BLOCKS) > 10
