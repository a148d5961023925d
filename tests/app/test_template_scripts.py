"""`just rename` and `just eject`, each on a copy of the tree: what is left still works."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
_LEFT_OUT = shutil.ignore_patterns(
    ".git", ".venv", "var", "__pycache__", "node_modules", ".*_cache", ".env", "dist", "build", "site", ".hypothesis"
)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    if not (ROOT / "scripts" / "eject.py").exists():
        pytest.skip("the demo was ejected")
    target = tmp_path / "clone"
    shutil.copytree(ROOT, target, ignore=_LEFT_OUT)
    return target


def run(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(directory)}
    return subprocess.run(
        [sys.executable, *arguments], cwd=directory, env=environment, capture_output=True, text=True, check=False, timeout=120
    )


def test_rename_gives_the_project_a_name_and_it_still_starts(copy: Path) -> None:
    result = run(copy, "scripts/rename.py", "web-shop")
    assert result.returncode == 0, result.stderr
    project = tomllib.loads((copy / "pyproject.toml").read_text())
    assert project["project"]["name"] == "web-shop"
    groups = project["dependency-groups"].values()
    own = [each for group in groups for each in group if isinstance(each, str) and each.startswith("web-shop")]
    assert own or not (ROOT / "session_core").exists()
    lock = tomllib.loads((copy / "uv.lock").read_text())
    assert [package["name"] for package in lock["package"] if package.get("source") == {"editable": "."}] == ["web-shop"]
    started = run(copy, "-c", "from app import NAME; from app.asgi import create_app; create_app(); print(NAME)")
    assert started.stdout == "web-shop\n", started.stderr
    assert run(copy, "scripts/rename.py", "shop2").returncode == 0


@pytest.mark.parametrize("name", ["", "Web Shop", "1shop", "shop;rm", "../x", "x" * 61])
def test_rename_refuses_what_is_no_name(copy: Path, name: str) -> None:
    before = (copy / "pyproject.toml").read_bytes()
    result = run(copy, "scripts/rename.py", name)
    assert result.returncode == 1
    assert result.stderr.startswith("error: ")
    assert (copy / "pyproject.toml").read_bytes() == before


def test_eject_drops_the_demo_and_the_rest_works(copy: Path) -> None:
    result = run(copy, "scripts/eject.py")
    assert result.returncode == 0, result.stderr
    assert not (copy / "auth_demo").exists()
    assert not (copy / "tests" / "e2e").exists()
    project = tomllib.loads((copy / "pyproject.toml").read_text())
    assert list(project["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]["custom"]["commands"]) == ["serve"]
    assert project["tool"]["mypy"]["packages"] == ["session_core", "app"]
    for file in [*(copy / "app").rglob("*"), *(copy / "session_core").rglob("*.py"), copy / "Justfile", copy / "pyproject.toml"]:
        if file.is_file() and file.suffix != ".pyc":
            assert "auth_demo" not in file.read_text(), file
    assert "alice" not in (copy / "app" / "templates" / "home.html").read_text()
    assert "\ndemo" not in (copy / "Justfile").read_text()

    started = run(copy, "-c", "import app; app.create_app(); import sys; print(app.__file__, 'auth_demo' in sys.modules)")
    assert started.stdout == f"{copy / 'app' / '__init__.py'} False\n", started.stderr
    collected = run(copy, "-m", "pytest", "tests/app", "--collect-only", "-q", "-n", "0")
    assert collected.returncode == 0, collected.stdout + collected.stderr
    again = run(copy, "scripts/eject.py")
    assert "there is no demo here any more" in again.stdout
