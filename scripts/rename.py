"""Renames a clone: project name, start page, README and documentation. The packages keep their names.

    uv run python scripts/rename.py Web Shop

The texts that it puts in place are in `scripts/owner/`. `git restore .` undoes it.
"""

from __future__ import annotations

import json
import re
import sys
import unicodedata
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
_TITLE: Final = re.compile(r"[^\W\d_](?:[\w .&'\x22-]*[\w.\x22])?")
_LATIN: Final = re.compile(r"LATIN (?:SMALL LETTER|SMALL LIGATURE) (?:DOTLESS )?([A-Z]{1,2})\b")
_MAX: Final = 60
_BRAND: Final = re.compile(r'(<a class="brand".*> ).*</a>')
_TEXTS: Final = {
    "README.md": "README.md",
    "CHANGELOG.md": "CHANGELOG.md",
    "index.md": "docs/index.md",
    "welcome.html": "app/templates/welcome.html",
}


def rename(root: Path, title: str) -> list[str]:
    """Replace the old name by `title`; return the files changed. Raises `ValueError` for an invalid name."""
    name = _project_name(title)
    if not _TITLE.fullmatch(title) or len(title) > _MAX or not name:
        message = (
            f"{title!r} is not a usable name: begin with a letter, use letters, digits, spaces and . & ' \" - _, at most "
            f"{_MAX} characters, one of them a Latin letter or a digit, for example: just rename Web Shop"
        )
        raise ValueError(message)
    pyproject = root / "pyproject.toml"
    found = re.search(r'(?m)^name = "([^"]+)"$', pyproject.read_text(encoding="utf-8"))
    if found is None:
        message = "pyproject.toml has no project name"
        raise ValueError(message)
    old, quoted = re.escape(found[1]), json.dumps(title, ensure_ascii=False)
    # As the formatter writes it: in the quotes that the name has fewer of.
    literal = quoted if title.count('"') <= title.count("'") else "'" + title.replace("'", r"\'") + "'"
    edits: dict[str, list[tuple[str | re.Pattern[str], str]]] = {
        # The project itself, and the extras that refer to it.
        "pyproject.toml": [
            (rf'(?m)^name = "{old}"$', f'name = "{name}"'),
            (rf'"{old}\[', f'"{name}['),
            (r'(?m)^description = ".*"$', f"description = {quoted}"),
            (r"(?m)^keywords = .*\n", ""),
        ],
        "uv.lock": [(rf'"{old}"', f'"{name}"')],
        ".devcontainer/devcontainer.json": [(r'"name": ".*"', f'"name": {quoted}')],
        "app/__init__.py": [(r"(?m)^NAME = .*$", f"NAME = {literal}")],
        "zensical.toml": [
            (r'(?m)^site_name = ".*"$', f"site_name = {quoted}"),
            (r'(?m)^site_description = ".*"$', f"site_description = {quoted}"),
        ],
        "auth_demo/servers.py": [(r"client_name=.*,", f"client_name={literal},")],  # demo:line
        "auth_demo/templates/demo.html": [(_BRAND, rf"\1{title.replace('&', '&amp;')}</a>")],  # demo:line
        "app/templates/base.html": [(r"(?m)^<span>Built on .*</span>$", "<span>{{ brand }}</span>")],
    }
    changed = [file for file, changes in edits.items() if _edit(root / file, changes)]
    for source, target in _TEXTS.items():
        text = (root / "scripts" / "owner" / source).read_text(encoding="utf-8")
        if _write(root / target, text.replace("[[title]]", title).replace("[[name]]", name)):
            changed.append(target)
    return changed


def _project_name(title: str) -> str:
    """Return the name of the Python project: lower-case ASCII letters, digits and hyphens."""
    letters = unicodedata.normalize("NFKD", title.casefold())
    plain = "".join(_latin(each) for each in letters if not unicodedata.combining(each))
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")


def _latin(letter: str) -> str:
    """Return a letter as ASCII by its Unicode name: `ł` as `l` and `æ` as `ae`, which do not decompose like `é`."""
    named = _LATIN.match(unicodedata.name(letter, ""))
    return named[1].lower() if named else letter


def _edit(path: Path, edits: list[tuple[str | re.Pattern[str], str]]) -> bool:
    if not path.is_file():
        return False
    text = path.read_text(encoding="utf-8")
    for pattern, replacement in edits:
        text = re.sub(pattern, replacement, text)
    return _write(path, text)


def _write(path: Path, text: str) -> bool:
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return False
    path.write_text(text, encoding="utf-8")
    return True


def main() -> int:
    """Rename this clone; return the exit code."""
    if len(sys.argv) == 1:
        print("usage: just rename NAME", file=sys.stderr)
        return 2
    try:
        changed = rename(ROOT, " ".join(sys.argv[1:]))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print("\n".join(f"changed {name}" for name in changed) or "nothing to change")
    return 0


if __name__ == "__main__":
    sys.exit(main())
