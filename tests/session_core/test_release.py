"""`just release` and `just use-release`, each on a copy of the repository."""

from __future__ import annotations

import ast
import datetime as dt
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).resolve().parents[2]
_LEFT_OUT = shutil.ignore_patterns(
    ".git", ".venv", "var", "__pycache__", "node_modules", ".*_cache", ".env", "dist", "build", "site"
)
CHANGELOG = "# Changelog\n\n## Unreleased\n\n### Added\n\n- A thing.\n\n## 0.0.9 - 2026-01-01\n\n- Older.\n"

CHECKS = (
    "ruff check .", "ruff format --check .", "mypy", "pyright --warnings", "lint-imports", "zensical build --strict",
)  # fmt: skip


def script(name: str) -> ModuleType:
    sys.path.append(str(ROOT / "scripts"))  # as when it is run
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


RELEASE, USE_RELEASE = script("release"), script("use_release")


def missing_imports(root: Path) -> list[str]:
    """The modules of `tests` and `scripts` that the tests below `root` import and that are not there."""
    found = {
        node.module
        for path in (root / "tests").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in {"tests", "scripts", "examples"}
    }
    places = {name: root / str(name).replace(".", "/") for name in found}
    return sorted(str(name) for name, place in places.items() if not (place.is_dir() or place.with_suffix(".py").is_file()))


def missing_recipes(root: Path) -> list[tuple[str, str]]:
    """The recipes of `just` that pages below `root` name and that are not there. The changelog has former ones."""
    recipes = set(re.findall(r"(?m)^([a-z][a-z0-9-]*)[^:=\n]*:(?!=)", (root / "Justfile").read_text()))
    pages = [*root.glob("*.md"), *root.glob("docs/**/*.md")]
    named = {(page.name, name) for page in pages for name in re.findall(r"\bjust ([a-z][a-z0-9-]*)", code_of(page.read_text()))}
    return sorted((page, name) for page, name in named if name not in recipes and page != "CHANGELOG.md")


def code_of(page: str) -> str:
    """Only the commands and the code of a page in Markdown."""
    return "\n".join(re.findall(r"(?s)```.*?```|`[^`\n]+`", page))


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    target = tmp_path / "clone"
    shutil.copytree(ROOT, target, ignore=_LEFT_OUT)
    return target


def test_the_changelog_moves_unreleased_entries_under_the_version() -> None:
    noted = RELEASE.note_release(CHANGELOG, "0.1.0", dt.date(2026, 11, 30))
    assert noted == CHANGELOG.replace("## Unreleased\n", "## Unreleased\n\n## 0.1.0 - 2026-11-30\n")
    with pytest.raises(RELEASE.ReleaseError, match="nothing under Unreleased"):
        RELEASE.note_release(noted, "0.2.0", dt.date(2026, 12, 1))
    with pytest.raises(RELEASE.ReleaseError, match=r"one for 0\.1\.0 already"):
        RELEASE.note_release(noted, "0.1.0", dt.date(2026, 12, 1))


@pytest.mark.parametrize("version", ["", "1", "0.1", "v0.1.0", "0.1.0-rc1", "0.01.0", "0.1.0; rm"])
def test_an_invalid_version_is_refused(version: str) -> None:
    with pytest.raises(RELEASE.ReleaseError, match="is no version"):
        RELEASE.set_version('version = "0.1.0"\n', version)


def test_an_older_version_is_refused() -> None:
    with pytest.raises(RELEASE.ReleaseError, match="older"):
        RELEASE.set_version('version = "0.10.0"\n', "0.9.9")
    with pytest.raises(RELEASE.ReleaseError, match="older"):
        RELEASE.set_version('version = "0.1.0"\n', "0.1.0rc1")
    assert RELEASE.set_version('version = "0.1.0rc1"\n', "0.1.0") == 'version = "0.1.0"\n'


def test_a_release_names_its_own_files_only(copy: Path, tmp_path: Path) -> None:
    """A release candidate's files may be there from before."""
    (tmp_path / "session_core-0.1.0rc1-py3-none-any.whl").touch()
    built = RELEASE.release(copy, "0.1.0", tmp_path)
    assert [path.name for path in built] == ["session_core-0.1.0.tar.gz", "session_core-0.1.0-py3-none-any.whl"]


def test_a_version_is_refused_before_the_checks_run(copy: Path) -> None:
    before = (copy / "pyproject.toml").read_text()
    for arguments in (["init", "-q"], ["add", "-A"], ["-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "-qm", "all"]):
        subprocess.run(["git", *arguments], cwd=copy, check=True)
    (copy / ".ci" / "run").write_text("#!/bin/sh\ntouch var-checked\n")
    subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "-qam", "run"], cwd=copy, check=True)
    command = [sys.executable, copy / "scripts" / "release.py", "0.0.9"]
    ran = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (1, "error: 0.0.9 is older than the version in pyproject.toml\n")
    assert not (copy / "var-checked").exists()
    (copy / "mine.txt").touch()
    ran = subprocess.run([*command[:2], "9.0.0"], cwd=copy, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (1, "error: the tree has changes; commit them first\n")
    assert (copy / "pyproject.toml").read_text() == before


def test_a_wheel_with_a_command_is_refused(tmp_path: Path) -> None:
    wheel = tmp_path / "session_core-0.1.0-py3-none-any.whl"
    with ZipFile(wheel, "w") as archive:
        archive.writestr("session_core/__init__.py", "")
        archive.writestr("session_core-0.1.0.dist-info/entry_points.txt", "")
    with pytest.raises(RELEASE.ReleaseError, match="commands"):
        RELEASE.check_wheel(wheel)


def test_a_released_wheel_replaces_the_folder(copy: Path, tmp_path: Path) -> None:
    """The application and one of its tests use the released wheel when the folder is removed."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    built = RELEASE.release(copy, version, tmp_path / "dist")
    assert sorted(path.suffix for path in built) == [".gz", ".whl"]
    assert f"\n## {version} - " in (copy / "CHANGELOG.md").read_text()

    USE_RELEASE.use_release(copy, version)
    assert not (copy / "session_core").exists()
    removed = {"test_template.py", "test_app_reasons.py"}  # of the template's scripts, and of the library's sources
    assert {path.name for path in (ROOT / "tests" / "app").glob("*.py")} - removed == {
        path.name for path in (copy / "tests" / "app").glob("*.py")
    }
    assert [name for name in ("copier.yml", "scripts/from_copier.py", "scripts/use_release.py") if (copy / name).exists()] == []
    assert missing_imports(copy) == []
    assert missing_recipes(copy) == []
    project = tomllib.loads((copy / "pyproject.toml").read_text())
    assert project["project"]["name"] == "application"
    requirements = [each for group in project["dependency-groups"].values() for each in group if isinstance(each, str)]
    assert "session-core[litestar,sql,oidc,redis]>=0.1.0,<0.2" in requirements
    assert project["project"]["optional-dependencies"]["postgresql"] == ["session-core[postgresql]>=0.1.0,<0.2"]
    container = (copy / "deploy" / "container" / "Containerfile").read_text()
    assert set(re.findall(r"--extra (\w+)", container)) <= project["project"]["optional-dependencies"].keys()
    assert "session_core" not in project["tool"]["mypy"]["packages"]
    assert all((copy / name).exists() for name in project["tool"]["pyright"]["include"])
    assert not {"bench", "interop", "mutants"} & project["dependency-groups"].keys()
    with pytest.raises(ValueError, match="no folder session_core"):
        USE_RELEASE.use_release(copy, version)

    installed = tmp_path / "installed"
    with ZipFile(next(path for path in built if path.suffix == ".whl")) as wheel:
        wheel.extractall(installed)
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": f"{copy}:{installed}"}
    where = "import session_core, app.asgi; app.asgi.create_app(); print(session_core.__file__)"
    ran = subprocess.run([sys.executable, "-c", where], cwd=copy, env=environment, capture_output=True, text=True, check=False)
    assert ran.stdout.strip() == str(installed / "session_core" / "__init__.py"), ran.stderr
    copied = "tests/deploy/test_deploy_files.py::test_the_container_runs_unprivileged_and_copies_existing_files"
    tests = [sys.executable, "-m", "pytest", "-n", "0", "-q", "tests/app/test_app_session_api.py", copied]
    tested = subprocess.run(tests, cwd=copy, env=environment, capture_output=True, text=True, check=False)
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_a_version_that_no_index_has_leaves_the_clone_as_it_was(copy: Path, tmp_path: Path) -> None:
    before = (copy / "pyproject.toml").read_text()
    environment = {**os.environ, "UV_NO_INDEX": "1", "UV_FIND_LINKS": str(tmp_path)}
    command = [sys.executable, copy / "scripts" / "use_release.py", "9.0.0"]
    ran = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert "error: session-core==9.0.0 was not found; nothing was changed" in ran.stderr
    assert (copy / "session_core").is_dir()
    assert (copy / "pyproject.toml").read_text() == before


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("eject", ["", "eject before", "eject after"])
def test_the_checks_of_a_clone_that_uses_a_release_pass(copy: Path, tmp_path: Path, eject: str) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    built = RELEASE.release(copy, version, tmp_path / "dist")
    scripts = {"": ["use"], "eject before": ["eject", "use"], "eject after": ["use", "eject"]}[eject]
    for name in scripts:
        if name == "use":
            USE_RELEASE.use_release(copy, version)
        else:
            subprocess.run([sys.executable, copy / "scripts" / "eject.py"], cwd=copy, check=True, capture_output=True)
    installed = tmp_path / "installed"
    with ZipFile(next(path for path in built if path.suffix == ".whl")) as wheel:
        wheel.extractall(installed)
    # pyright finds the packages in the environment that pyproject.toml names.
    (copy / ".venv").symlink_to(sys.prefix)
    environment = {**os.environ, "PYTHONPATH": f"{copy}:{installed}", "PATH": f"{copy}/.venv/bin:{os.environ['PATH']}"}
    for command in (*CHECKS, "pytest -q -n 0 --collect-only" if eject else "pytest -q -n 2"):
        done = subprocess.run(command.split(), cwd=copy, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}\n{done.stdout[-8000:]}{done.stderr[-4000:]}"
        assert "does not exist" not in done.stdout, done.stdout


def test_the_requirement_excludes_the_next_breaking_version() -> None:
    bounds = {version: USE_RELEASE._next_breaking(version) for version in ("0.1.0", "0.9.3", "1.0.0", "2.4.1")}
    assert bounds == {"0.1.0": "0.2", "0.9.3": "0.10", "1.0.0": "2", "2.4.1": "3"}
    with pytest.raises(ValueError, match="is no version"):
        USE_RELEASE._next_breaking("latest")
