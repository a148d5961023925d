"""Prepares a release: checks, changelog, version, wheel and source distribution. You publish them.

    uv run just release 0.2.0

The tree must be clean and the changelog must say under "Unreleased" what is new. Nothing is committed, tagged or sent.
"""

from __future__ import annotations

import datetime as dt
import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final
from zipfile import ZipFile

ROOT: Final = Path(__file__).resolve().parent.parent
_VERSION: Final = re.compile(r"(?:0|[1-9]\d*)(?:\.(?:0|[1-9]\d*)){2}(?:(?:a|b|rc)[1-9]\d*)?")
_UNRELEASED: Final = "## Unreleased\n"


class ReleaseError(Exception):
    """Why a release is impossible, in one line."""


def note_release(changelog: str, version: str, day: dt.date) -> str:
    """Return the changelog with the unreleased entries under the version. Raises `ReleaseError`."""
    before, found, after = changelog.partition(_UNRELEASED)
    if not found or f"\n## {version} " in changelog:
        message = f"CHANGELOG.md has no section Unreleased, or one for {version} already"
        raise ReleaseError(message)
    if not after.partition("\n## ")[0].strip():
        message = "CHANGELOG.md has nothing under Unreleased"
        raise ReleaseError(message)
    return f"{before}{_UNRELEASED}\n## {version} - {day.isoformat()}\n{after}"


def set_version(pyproject: str, version: str) -> str:
    """Return the project's metadata with this version. Raises `ReleaseError` unless it is a later version."""
    if not _VERSION.fullmatch(version):
        message = f"{version!r} is no version; good examples: 0.2.0, 1.0.0rc1"
        raise ReleaseError(message)
    found = re.search(r'(?m)^version = "([^"]+)"$', pyproject)
    if found is None or _order(version) < _order(found[1]):
        message = f"{version} is older than the version in pyproject.toml"
        raise ReleaseError(message)
    return pyproject.replace(found[0], f'version = "{version}"', 1)


def check_wheel(wheel: Path) -> None:
    """Refuse a wheel that contains anything except the library. Raises `ReleaseError`."""
    with ZipFile(wheel) as archive:
        names = archive.namelist()
    foreign = {name.partition("/")[0] for name in names if not re.match(r"session_core(/|-[^/]+\.dist-info/)", name)}
    if foreign or any(name.endswith("/entry_points.txt") for name in names):
        message = f"the wheel holds more than the library: {', '.join(sorted(foreign)) or 'commands'}"
        raise ReleaseError(message)


def numbered(root: Path, version: str) -> dict[Path, str]:
    """Return the new text of changelog and metadata. Raises `ReleaseError` where they forbid this version."""
    changelog, pyproject = root / "CHANGELOG.md", root / "pyproject.toml"
    metadata = set_version(pyproject.read_text("utf-8"), version)
    return {changelog: note_release(changelog.read_text("utf-8"), version, dt.datetime.now(dt.UTC).date()), pyproject: metadata}


def release(root: Path, version: str, dist: Path) -> list[Path]:
    """Write version and changelog, build into `dist` and test the wheel; return the files. Raises `ReleaseError`."""
    for path, text in numbered(root, version).items():
        path.write_text(text, "utf-8")
    _run(root, sys.executable, "-m", "hatchling", "build", "--directory", str(dist))
    wheel, source = dist / f"session_core-{version}-py3-none-any.whl", dist / f"session_core-{version}.tar.gz"
    check_wheel(wheel)
    _try_import(wheel)
    return [source, wheel]


def _try_import(wheel: Path) -> None:
    """Import the library from the wheel with the installed packages."""
    with TemporaryDirectory() as folder:
        with ZipFile(wheel) as archive:
            archive.extractall(folder)
        code = "import sys; sys.path.insert(0, sys.argv[1]); import session_core as s; [getattr(s, name) for name in s.__all__]"
        _run(Path(folder), sys.executable, "-c", code, folder)


def _refuse_changes(root: Path) -> None:
    status = subprocess.run(["git", "status", "--porcelain"], cwd=root, capture_output=True, text=True, check=True).stdout
    if status.strip():
        message = "the tree has changes; commit them first"
        raise ReleaseError(message)


def _run_checks() -> None:
    """Run `.ci/run`, whose output appears as it comes."""
    if subprocess.run([ROOT / ".ci" / "run"], check=False).returncode:
        message = ".ci/run failed"
        raise ReleaseError(message)


def _order(version: str) -> list[tuple[int, str]]:
    # A pre-release sorts before its release.
    parts = re.fullmatch(r"([\d.]+)(.*)", version)
    numbers, rest = (parts[1], parts[2]) if parts else ("0", "")
    return [*((int(number), "") for number in numbers.split(".")), (0 if rest else 1, rest)]


def _run(directory: Path, *command: str) -> None:
    ran = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    if ran.returncode:
        message = f"{' '.join(command[:4])} failed:\n{ran.stdout}{ran.stderr}"
        raise ReleaseError(message)


def main() -> int:
    """Release the version named on the command line; return the exit code."""
    if len(sys.argv) != 2:  # noqa: PLR2004 - the script and its one argument
        print("usage: just release VERSION", file=sys.stderr)
        return 2
    try:
        _refuse_changes(ROOT)
        numbered(ROOT, sys.argv[1])  # before the checks, which take long
        _run_checks()
        built = release(ROOT, sys.argv[1], ROOT / "dist")
        _run(ROOT, "uv", "lock")
    except ReleaseError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print("\n".join(f"built {path.relative_to(ROOT)}" for path in built))
    print(f"now: git commit -am 'Release {sys.argv[1]}', git tag v{sys.argv[1]}, and publish dist/ where you publish")
    return 0


if __name__ == "__main__":
    sys.exit(main())
