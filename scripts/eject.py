"""Removes the demo from a clone: its provider, command, tests, and texts about it.

    uv run python scripts/eject.py

In any file, the lines from `demo:begin` to `demo:end` go, and so does a line with the mark `demo:line`. What stands between
`demo:instead` and `demo:end` takes the place of the block. Logins then need your own provider. `git restore .` undoes it all.
"""

from __future__ import annotations

import re
import shutil
import sys
import tomllib
from pathlib import Path
from typing import Final

from cut_tests import attacks, forget_tests

ROOT: Final = Path(__file__).resolve().parent.parent
_DIRECTORIES: Final = ("auth_demo", "tests/auth_demo", "tests/e2e", "tests/support/browsers")
_FILES: Final = (
    "copier.yml",
    "{{_copier_conf.answers_file}}.jinja",
    "docs/adr/0009-embedded-provider.md",
    "docs/assets/demo.png",
    "docs/assets/demo.webp",
    "docs/assets/guarantees.png",
    "scripts/eject.py",
    "scripts/from_copier.py",
    "scripts/screenshots.py",
    "tests/app/test_template.py",
    "tests/support/cross_site_pages.py",
)
_NOT_OURS: Final = frozenset({".git", ".venv", ".cache", "var", "node_modules", "dist", "build", "site", "__pycache__"})
_TEXT: Final = frozenset(
    {".py", ".toml", ".md", ".html", ".yml", ".yaml", ".json", ".css", ".ini", ".cfg", ".example", ".service", ".txt", ""}
)
_BLOCK: Final = re.compile(r"(?ms)^[^\n]*demo:begin[^\n]*\n.*?^[^\n]*demo:end[^\n]*\n")
_INSTEAD: Final = re.compile(r"(?ms)^[^\n]*demo:instead[^\n]*\n(?P<text>.*?)^[^\n]*demo:end")
_LINE: Final = re.compile(r"(?m)^[^\n]*demo:line[^\n]*\n")
_IMPORT: Final = re.compile(r"(?m)^\s*(?:from|import) (?:tests\.)?auth_demo\b|[\"']auth_demo[.\"']")
_MODULE: Final = re.compile(r"(?m)^\s*(?:from|import) (tests\.[\w.]+)")
_NAME: Final = re.compile(r"^[\w.-]+")
_EDITS: Final = {
    "app/settings/settings.py": (r"HAS_EMBEDDED_OP: Final = True", "HAS_EMBEDDED_OP: Final = False"),
    "docs/explanation/architecture.md": (r"(?m)^auth_demo/ .*\n", ""),
}
_OWN_PACKAGE: Final = re.compile(
    r'(?ms)^\[\[package\]\]\nname = "[^"]*"\nversion = "[^"]*"\nsource = \{ editable = "\." \}\n.*?(?=^\[\[package\]\])'
)
_LINES: Final = r"(?:(?!\[)[^\n]*\n)*"
_CONTRACT: Final = re.compile(rf'(?m)^\[\[tool\.importlinter\.contracts\]\]\n{_LINES}?source_modules = \["auth_demo{_LINES}')


def eject(root: Path) -> list[str]:
    """Remove the demo below `root`; return the changes, one line each."""
    proved, installed = attacks(root), _development(root)
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
        text = _read(path)
        if (left := _without_demo(text)) != text:
            path.write_text(left, encoding="utf-8")
            done.append(f"changed {path.relative_to(root)}")
    for name, (pattern, replacement) in _EDITS.items():
        text = _read(root / name)
        done += _written(root / name, text, re.sub(pattern, replacement, text))
    done += _remove_dependent(root)
    done += _edit_pyproject(root / "pyproject.toml")
    done += _edit_lock(root / "uv.lock", installed - _development(root))
    return done + forget_tests(root, _DIRECTORIES, proved)


def _without_demo(text: str) -> str:
    return _LINE.sub("", _BLOCK.sub(_instead, text))


def _instead(block: re.Match[str]) -> str:
    """Return the text that replaces a block: from a comment in Markdown, without `# ` elsewhere."""
    found = _INSTEAD.search(block[0])
    text = found["text"] if found else ""
    return text if block[0].startswith("<!--") else re.sub(r"(?m)^( *)# ?", r"\1", text)


def _remove_dependent(root: Path) -> list[str]:
    """Remove tests and examples that import the demo or import a removed file, until none is left."""
    done: list[str] = []
    gone: set[str] = set()
    while True:
        paths = [path for name in ("tests", "examples") for path in sorted((root / name).rglob("*.py"))]
        dependent = [path for path in paths if _IMPORT.search(_read(path)) or gone & set(_MODULE.findall(_read(path)))]
        if not dependent:
            return done
        for path in dependent:
            path.unlink()
            gone.add(".".join(path.relative_to(root).with_suffix("").parts))
            done.append(f"removed {path.relative_to(root)}")


def _edit_pyproject(path: Path) -> list[str]:
    before = _read(path)
    after = re.sub(r'(?m)^demo = "auth_demo[^"]*"\n', "", _CONTRACT.sub("", before))
    # In lists of packages, on one line or one per line.
    after = re.sub(r'(?m)^\s*"auth_demo(?:[./][^"]*)?",?\s*\n', "", after)
    after = re.sub(r'"auth_demo(?:[./][^"]*)?",\s*|,\s*"auth_demo(?:[./][^"]*)?"', "", after)
    after = after.replace("The application stands on the demo, the demo on the library", "The application stands on the library")
    after = re.sub(r" and the (?:cluster demo|demo provider|demo identity provider)\b", "", after)
    return _written(path, before, after)


def _development(root: Path) -> set[str]:
    """Return the names of the packages in the dependency groups."""
    groups = tomllib.loads(_read(root / "pyproject.toml"))["dependency-groups"].values()
    return {_NAME.findall(each)[0] for group in groups for each in group if isinstance(each, str)}


def _edit_lock(path: Path, dropped: set[str]) -> list[str]:
    """Remove packages that are not required any more, so that `uv sync --locked` accepts the file as it is."""
    before = _read(path)
    names = "|".join(map(re.escape, sorted(dropped)))
    requirement = re.compile(rf'(?m)^ *\{{ name = "(?:{names})"[^\n]*\n')
    after = _OWN_PACKAGE.sub(lambda own: requirement.sub("", own[0]), before) if dropped else before
    return _written(path, before, after)


def _written(path: Path, before: str, after: str) -> list[str]:
    if after == before:
        return []
    path.write_text(after, encoding="utf-8")
    return [f"changed {path.name}"]


def _files(root: Path) -> list[Path]:
    return [
        path
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.suffix in _TEXT and not _NOT_OURS & set(path.relative_to(root).parts)
    ]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, UnicodeDecodeError):
        return ""


def main() -> int:
    """Eject the demo from this clone; return the exit code."""
    print("\n".join(eject(ROOT)))
    print("now set OIDC_ISSUER, OIDC_CLIENT_ID and OIDC_CLIENT_SECRET in .env, then: uv run litestar check")
    return 0


if __name__ == "__main__":
    sys.exit(main())
