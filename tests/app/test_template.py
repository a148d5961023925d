"""`just rename` and `just eject` on a copy of the repository: what remains still works."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.app.processes import ROOT
from tests.support.ports import free_port
from tests.support.tutorial import follow_tutorial

BIN = Path(sys.executable).parent
_LEFT_OUT = shutil.ignore_patterns(
    ".git",
    ".venv",
    "var",
    "__pycache__",
    "node_modules",
    ".*_cache",
    ".cache",
    ".env",
    "dist",
    "build",
    "site",
    ".hypothesis",
    "results",
)
_PITCH = "never lose a write"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    target = tmp_path / "clone"
    shutil.copytree(ROOT, target, ignore=_LEFT_OUT)
    return target


def run(directory: Path, *arguments: str, seconds: float = 120) -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": f"{BIN}:/usr/local/bin:/usr/bin:/bin:/usr/sbin",
        "PYTHONPATH": str(directory),
        "HOME": str(Path.home()),
    }
    command = [sys.executable, *arguments] if arguments[0] == "-m" or arguments[0].endswith(".py") else list(arguments)
    return subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, check=False, timeout=seconds)


def test_a_renamed_project_still_starts(copy: Path) -> None:
    result = run(copy, "scripts/rename.py", "Web", "Shop")
    assert result.returncode == 0, result.stderr
    project = tomllib.loads((copy / "pyproject.toml").read_text())
    assert (project["project"]["name"], project["project"]["description"]) == ("web-shop", "Web Shop")
    groups = project["dependency-groups"].values()
    assert not any(str(requirement).startswith("session-core") for group in groups for requirement in group)
    lock = tomllib.loads((copy / "uv.lock").read_text())
    assert [package["name"] for package in lock["package"] if package.get("source") == {"editable": "."}] == ["web-shop"]
    started = run(copy, sys.executable, "-c", "from app import NAME; from app.asgi import create_app; create_app(); print(NAME)")
    assert started.stdout == "Web Shop\n", started.stderr
    for page in ("README.md", "docs/index.md"):
        assert (copy / page).read_text().startswith("# Web Shop\n")
    for page in [copy / "README.md", copy / "docs" / "index.md", *(copy / "app" / "templates").glob("*.html")]:
        assert _PITCH not in page.read_text(), page
    assert "session_core" not in "".join(path.read_text() for path in (copy / "app" / "templates").glob("*.html"))
    assert "[[" not in (copy / "README.md").read_text() + (copy / "docs" / "index.md").read_text()
    assert tomllib.loads((copy / "zensical.toml").read_text())["project"]["site_name"] == "Web Shop"
    assert run(copy, "scripts/rename.py", "shop2").returncode == 0
    assert (copy / "README.md").read_text().startswith("# shop2\n")


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("Café Österreich & Co.", "cafe-osterreich-co"),
        ("Großer Żółw & Søn's Æbler", "grosser-zolw-son-s-aebler"),
        ("ŁÓDŹ SIĘ İstanbul", "lodz-sie-istanbul"),
        ("Магазин 24 shop", "24-shop"),
        ("O'Neill", "o-neill"),
        ("web_shop", "web-shop"),
        ('The "Web" Shop', "the-web-shop"),
        ('O\'Neill "Shop"', "o-neill-shop"),
        ("O'Neill & Søn's \"Shop\"", "o-neill-son-s-shop"),
    ],
)
def test_a_display_name_is_written_verbatim(copy: Path, title: str, name: str) -> None:
    assert run(copy, "scripts/rename.py", title).returncode == 0
    assert tomllib.loads((copy / "pyproject.toml").read_text())["project"]["name"] == name
    assert run(copy, sys.executable, "-c", "from app import NAME; print(NAME)").stdout == f"{title}\n"
    assert tomllib.loads((copy / "zensical.toml").read_text())["project"]["site_name"] == title
    formatted = run(copy, str(BIN / "ruff"), "format", "--check", "app/__init__.py", "auth_demo/servers.py")
    assert formatted.returncode == 0, formatted.stdout
    assert run(copy, "scripts/rename.py", "Web Shop").returncode == 0
    assert (copy / "app" / "__init__.py").read_text().count('NAME = "Web Shop"') == 1
    assert (copy / "auth_demo" / "servers.py").read_text().count('client_name="Web Shop",') == 1


@pytest.mark.parametrize("name", ["", " ", "1shop", "shop;rm", "../x", "a\nb", "<b>", "{{ x }}", "x" * 61])
def test_rename_refuses_an_invalid_name(copy: Path, name: str) -> None:
    before = (copy / "pyproject.toml").read_bytes()
    result = run(copy, "scripts/rename.py", name)
    assert result.returncode == 1
    assert result.stderr.startswith("error: ")
    assert (copy / "pyproject.toml").read_bytes() == before


def test_eject_removes_the_demo_and_every_mention_of_it(copy: Path) -> None:
    result = run(copy, "scripts/eject.py")
    assert result.returncode == 0, result.stderr
    for name in ("auth_demo", "tests/e2e", "tests/auth_demo", "scripts/eject.py"):
        assert not (copy / name).exists()
    project = tomllib.loads((copy / "pyproject.toml").read_text())
    assert list(project["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]["custom"]["commands"]) == ["serve"]
    (own,) = (each for each in tomllib.loads((copy / "uv.lock").read_text())["package"] if each["source"] == {"editable": "."})
    locked = {each["name"] for group in own["metadata"]["requires-dev"].values() for each in group}
    groups = project["dependency-groups"].values()
    asked = {re.split(r"[\[><=]", each)[0] for group in groups for each in group if isinstance(each, str)}
    assert asked == locked
    assert not {"axe-playwright-python", "copier", "pillow", "playwright"} & locked  # for tests and scripts that are gone
    words = ("auth_demo", "uv run demo", "just eject", "the demo ", "the demo's", "demo:begin", "demo:line")
    for file in copy.rglob("*"):
        if file.is_file() and file.suffix not in {".pyc", ".png", ".lock"} and file.name != "CHANGELOG.md":
            text = file.read_text(encoding="utf-8", errors="replace")
            assert [word for word in words if word in text] == [], file
    checked = run(copy, str(BIN / "litestar"), "--app", "app:create_app", "check")
    assert checked.returncode == 1
    assert "OIDC_ISSUER: is not set: name your OpenID provider" in checked.stderr
    assert run(copy, "-m", "pytest", "tests", "--collect-only", "-q", "-n", "0").returncode == 0


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("steps", ["tutorial", "rename", "eject", "tutorial rename eject", "eject rename tutorial"])
def test_the_tests_of_a_renamed_clone_pass(copy: Path, steps: str) -> None:
    for step in steps.split():
        if step == "tutorial":
            follow_tutorial(copy)
        else:
            done = run(copy, f"scripts/{step}.py", *(["Web Shop"] if step == "rename" else []))
            assert done.returncode == 0, done.stderr
    # pyright finds the packages in the environment that pyproject.toml names.
    (copy / ".venv").symlink_to(sys.prefix)
    checks = [
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        ["lint-imports"],
        ["mypy"],
        ["pyright"],
        ["zensical", "build", "--strict"],
        ["pytest", "-q", "-n", "2", "-m", "not long", *_tests(copy)],
    ]
    for command in checks:
        done = run(copy, str(BIN / command[0]), *command[1:], seconds=900)
        assert done.returncode == 0, " ".join(command) + "\n" + done.stdout[-8000:] + done.stderr[-4000:]
    assert not (copy / "var" / "app.db").exists()
    if "eject" not in steps:
        code = "import sys; from auth_demo.demo import main; sys.exit(main())"
        ports = ["--port", str(free_port()), "--op-port", str(free_port())]
        smoked = run(copy, sys.executable, "-c", code, "--smoke", "--no-browser", *ports)
        assert smoked.returncode == 0, smoked.stdout + smoked.stderr


def _tests(root: Path) -> list[str]:
    """The tests of the application: its own, those of the documentation, and tests added by the owner."""
    return ["tests/app", "tests/docs", "tests/security/test_security_table.py", *map(str, (root / "tests").glob("test_*.py"))]


def git(directory: Path, *arguments: str) -> None:
    command = ["git", "-c", "user.name=Test", "-c", "user.email=test@example.org", "-c", "core.hooksPath=/dev/null", *arguments]
    done = run(directory, *command)
    assert done.returncode == 0, done.stdout + done.stderr


def copier(directory: Path, *arguments: str) -> None:
    done = run(directory, str(BIN / "copier"), *arguments, seconds=400)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("demo", "library", "store"),
    [
        (True, "folder", "redis://127.0.0.1:6379/0"),
        (False, "folder", "postgresql+asyncpg://app@127.0.0.1/app"),
        (False, "dependency", "postgresql+asyncpg://app@127.0.0.1/app"),
    ],
)
def test_a_copy_by_copier_is_renamed_and_later_versions_merge_into_it(
    copy: Path, tmp_path: Path, demo: bool, library: str, store: str
) -> None:
    git(copy, "init", "-q")
    git(copy, "add", "-A")
    git(copy, "commit", "-qm", "one")
    git(copy, "tag", "1.0.0")
    mine = tmp_path / "my-app"
    answers = ("title=Web Shop", f"demo={str(demo).lower()}", f"library={library}", f"store={store}")
    given = [word for answer in answers for word in ("--data", answer)]
    copier(tmp_path, "copy", "--trust", "--defaults", *given, str(copy), str(mine))
    assert (mine / "README.md").read_text().startswith("# Web Shop\n")
    project = tomllib.loads((mine / "pyproject.toml").read_text())
    assert project["project"]["name"] == "web-shop"
    assert (mine / "auth_demo").exists() is demo
    assert (mine / "session_core").exists() is (library == "folder")
    asked = [each for group in project["dependency-groups"].values() for each in group if str(each).startswith("session-core[")]
    assert all(">=" in each for each in asked)
    assert bool(asked) is (library == "dependency")
    assert (mine / ".env").read_text() == f"SESSION_STORE={store}\n"
    extras = re.findall(r"\w+", re.split(r"[\[\]]", project["dependency-groups"]["app"][0])[1])
    assert extras == ["litestar", "sql", "oidc", "redis", *(["postgresql"] if "postgresql" in store else [])]
    assert not (mine / "copier.yml").exists()
    assert not (mine / "tests" / "app" / "test_template.py").exists()
    assert list(mine.rglob("*.rej")) == []

    data = mine / "app" / "session_data.py"
    data.write_text(data.read_text() + '    city: str = ""\n')
    git(mine, "init", "-q")
    git(mine, "add", "-A")
    git(mine, "commit", "-qm", "mine")
    newer = copy / "app" / "session_data.py"
    newer.write_text(newer.read_text().replace("    visits: int = 0\n", "    visits: int = 0\n    of_the_template: int = 0\n"))
    git(copy, "commit", "-qam", "two")
    git(copy, "tag", "2.0.0")
    copier(mine, "update", "--trust", "--defaults")
    merged = data.read_text()
    assert "of_the_template" in merged
    assert "    city: str" in merged
    assert "<<<<<<<" not in merged
    assert (mine / "README.md").read_text().startswith("# Web Shop\n")
    assert (mine / "auth_demo").exists() is demo
    assert (mine / "session_core").exists() is (library == "folder")
    built = run(mine, sys.executable, "-c", "from app.asgi import create_app; create_app(); print('built')")
    assert built.stdout == "built\n", built.stderr
