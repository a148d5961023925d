"""Replaces the folder `session_core` in a clone by a released version of the library.

    uv run just use-release 0.1.0

The tests, benchmarks and scripts of the library and of the template go with the folder; the application, its tests, the examples
and the docs stay. In these files, the lines from `library:begin` to `library:end` go, and so does a line with the mark
`library:line`. A project that is still called `session-core` becomes `application`. An index, or UV_FIND_LINKS, must have the
version.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from cut_tests import attacks, forget_tests

ROOT: Final = Path(__file__).resolve().parent.parent
_LIBRARY: Final = "session-core"
_DIRECTORIES: Final = (
    "session_core", "benchmarks",
    "tests/session_core", "tests/simulation", "tests/interop", "tests/benchmarks", "tests/typing", "tests/docs",
)  # fmt: skip
_FILES: Final = (
    "scripts/release.py", "scripts/mutants.py", "scripts/security_table.py", "scripts/use_release.py", "tests/mutants.toml",
    "tests/security/test_cryptography_in_use.py", "tests/security/test_independence.py",
    # A copy of this clone by copier would lack the folder.
    "copier.yml", "{{_copier_conf.answers_file}}.jinja", "scripts/from_copier.py", "tests/app/test_template.py",
    # It reads the library's sources.
    "tests/app/test_app_reasons.py",
)  # fmt: skip
_MARKED: Final = ("Justfile", ".ci/run", ".dockerignore", "deploy/container/Containerfile", "pyproject.toml")
_DRIVERS: Final = ("postgresql", "mysql")
_BLOCK: Final = re.compile(r"(?ms)^[^\n]*library:begin[^\n]*\n.*?^[^\n]*library:end[^\n]*\n|^[^\n]*library:line[^\n]*\n")
_ABOUT_LIBRARY: Final = re.compile(r"(?m)^from (?:tests\.session_core|scripts)\b")
_INSIDE: Final = re.compile(r'"session_core(?:\.|"\])')
_VERSION: Final = re.compile(r"(\d+)\.(\d+)\.\d+(?:(?:a|b|rc)\d+)?")


def use_release(root: Path, version: str) -> list[str]:
    """Edit the clone below `root`; return the changes. Raises `ValueError` for an invalid version."""
    requirement = f">={version},<{_next_breaking(version)}"
    pyproject = root / "pyproject.toml"
    text = pyproject.read_text("utf-8")
    found = re.search(r'(?m)^name = "([^"]+)"$', text)
    if found is None or not (root / "session_core").is_dir():
        message = "this clone has no folder session_core any more"
        raise ValueError(message)
    proved, done = attacks(root), list[str]()
    pyproject.write_text(_edited(text, found[1], requirement), "utf-8")
    for path in (*(root / name for name in _MARKED), *root.glob("*.md"), *root.glob("docs/**/*.md")):
        text = path.read_text("utf-8")
        if (left := _BLOCK.sub("", text)) != text:
            path.write_text(left, "utf-8")
            done.append(f"changed {path.relative_to(root)}")
    for path in sorted((root / "tests").rglob("*.py")):
        if not any(path.is_relative_to(root / name) for name in _DIRECTORIES) and _ABOUT_LIBRARY.search(path.read_text("utf-8")):
            path.unlink()
            done.append(f"removed {path.relative_to(root)}")
    for name in _DIRECTORIES:
        if (root / name).is_dir():
            shutil.rmtree(root / name)
            done.append(f"removed {name}/")
    for name in _FILES:
        (root / name).unlink(missing_ok=True)
    return done + forget_tests(root, _DIRECTORIES, proved)


def _edited(pyproject: str, project: str, requirement: str) -> str:
    name = "application" if project == _LIBRARY else project
    text = re.sub(rf'(?m)^name = "{project}"$', f'name = "{name}"', pyproject, count=1)
    text = re.sub(rf'"{project}(\[[^]]+\])"', rf'"{_LIBRARY}\1{requirement}"', text)
    # `uv sync --extra postgresql` still installs a driver.
    drivers = "".join(f'{extra} = ["{_LIBRARY}[{extra}]{requirement}"]\n' for extra in _DRIVERS)
    own = f"dependencies = []\n\n[project.optional-dependencies]\n{drivers}"
    text = re.sub(r"(?ms)^# What `import session_core`[^\n]*\ndependencies = \[\n.*?^\]\n", own, text, count=1)
    # Import rules inside the library.
    head, *contracts = re.split(r"(?m)^(?=\[\[tool\.importlinter\.contracts\]\]$)", text)
    text = head + "".join(each for each in contracts if not _INSIDE.search(each))
    # The checked packages. Where an import of the library is forbidden, it stays so.
    text = re.sub(r'(?m)^((?:root_packages|packages|include) = \[)"session_core", ', r"\1", text)
    return text.replace(', "tests/typing"', "").replace('packages = ["session_core"]', 'packages = ["app"]')


def _next_breaking(version: str) -> str:
    parts = _VERSION.fullmatch(version)
    if parts is None:
        message = f"{version!r} is no version; a good example: 0.1.0"
        raise ValueError(message)
    # Before 1.0 a minor version may break compatibility.
    return f"0.{int(parts[2]) + 1}" if parts[1] == "0" else str(int(parts[1]) + 1)


def _find(version: str) -> None:
    """Raise `ValueError` unless the version can be installed: the clone is not edited for one that is missing."""
    asked = f"{_LIBRARY}=={version}"
    command = ["uv", "pip", "compile", "--quiet", "--no-deps", "--no-header", "-"]
    found = subprocess.run(command, input=asked, cwd=ROOT, capture_output=True, text=True, check=False)
    if found.returncode:
        message = f"{asked} was not found; nothing was changed\n{found.stderr.strip()}"
        raise ValueError(message)


def main() -> int:
    """Let this clone use the release named on the command line; return the exit code."""
    if len(sys.argv) != 2:  # noqa: PLR2004 - the script and its one argument
        print("usage: just use-release VERSION", file=sys.stderr)
        return 2
    try:
        _find(sys.argv[1])
        print("\n".join(use_release(ROOT, sys.argv[1])))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return subprocess.run(["uv", "sync"], cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
