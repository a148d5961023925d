"""Drops the demo from a clone: its provider, its command, its tests. What is left logs in at a provider of your own.

    uv run python scripts/eject.py

Text between lines with `demo:begin` and `demo:end` goes as well, in whatever file it stands. `git restore .` undoes it all.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
_DIRECTORIES: Final = ("auth_demo", "tests/auth_demo", "tests/e2e")
_FILES: Final = ("scripts/screenshot.py",)
_NOT_OURS: Final = frozenset({".git", ".venv", ".cache", "var", "node_modules", "dist", "build", "site", "__pycache__"})
_TEXT: Final = frozenset({".py", ".toml", ".md", ".html", ".yml", ".yaml", ".css", ".ini", ".cfg", ""})
_BLOCK: Final = re.compile(r"(?ms)^[^\n]*demo:begin[^\n]*\n.*?^[^\n]*demo:end[^\n]*\n")
_IMPORT: Final = re.compile(r"(?m)^\s*(?:from|import) (?:tests\.)?auth_demo\b|[\"']auth_demo[.\"']")
_LINES: Final = r"(?:(?!\[)[^\n]*\n)*"
_CONTRACT: Final = re.compile(rf'(?m)^\[\[tool\.importlinter\.contracts\]\]\n{_LINES}?source_modules = \["auth_demo{_LINES}')
_MARK: Final = "demo:" + "begin"


def eject(root: Path) -> list[str]:
    """Remove the demo below `root`; return what was done, one line each."""
    done: list[str] = []
    for name in _DIRECTORIES:
        if (root / name).is_dir():
            shutil.rmtree(root / name)
            done.append(f"removed {name}/")
    for name in _FILES:
        if (root / name).is_file():
            (root / name).unlink()
            done.append(f"removed {name}")
    for path in _files(root):
        if path.suffix == ".py" and _is_below(path, root / "tests", root / "examples") and _IMPORT.search(_read(path)):
            path.unlink()
            done.append(f"removed {path.relative_to(root)}")
        elif path != root / "scripts" / "eject.py" and _MARK in _read(path):
            path.write_text(_BLOCK.sub("", _read(path)), encoding="utf-8")
            done.append(f"changed {path.relative_to(root)}")
    done += _edit_pyproject(root / "pyproject.toml")
    return done


def _edit_pyproject(path: Path) -> list[str]:
    before = _read(path)
    after = re.sub(r'(?m)^demo = "auth_demo[^"]*"\n', "", _CONTRACT.sub("", before))
    # In lists of packages, whether on one line or on a line of their own.
    after = re.sub(r'(?m)^\s*"auth_demo(?:[./][^"]*)?",?\s*\n', "", after)
    after = re.sub(r'"auth_demo(?:[./][^"]*)?",\s*|,\s*"auth_demo(?:[./][^"]*)?"', "", after)
    if after == before:
        return []
    path.write_text(after, encoding="utf-8")
    return ["changed pyproject.toml"]


def _files(root: Path) -> list[Path]:
    return [
        path
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.suffix in _TEXT and not _NOT_OURS & set(path.relative_to(root).parts)
    ]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""


def _is_below(path: Path, *directories: Path) -> bool:
    return any(directory in path.parents for directory in directories)


def main() -> int:
    """Eject the demo from this clone; return the exit code."""
    print("\n".join(eject(ROOT)) or "there is no demo here any more")
    print("now set OIDC_ISSUER, OIDC_CLIENT_ID and OIDC_CLIENT_SECRET in .env, then: uv run serve")
    return 0


if __name__ == "__main__":
    sys.exit(main())
