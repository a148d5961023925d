"""Gives a clone its own name: the project's, and the one people read on its pages. Packages keep theirs.

    uv run python scripts/rename.py shop

`git restore .` undoes it.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
_NAME: Final = re.compile(r"[a-z][a-z0-9]*(?:[-_][a-z0-9]+)*")
_MAX: Final = 60


def rename(root: Path, name: str) -> list[str]:
    """Write `name` where the old one stands; return the files changed. Raises `ValueError` for a name that cannot be one."""
    if not _NAME.fullmatch(name) or len(name) > _MAX:
        message = f"{name!r} is no good name; use lower-case letters, digits and hyphens, for example: just rename web-shop"
        raise ValueError(message)
    pyproject = root / "pyproject.toml"
    found = re.search(r'(?m)^name = "([^"]+)"$', pyproject.read_text(encoding="utf-8"))
    if found is None:
        message = "pyproject.toml has no project name"
        raise ValueError(message)
    old, new = re.escape(found[1]), name.replace("_", "-")
    changes = {
        # The project itself, and the extras that refer to it.
        pyproject: [(rf'(?m)^name = "{old}"$', f'name = "{new}"'), (rf'"{old}\[', f'"{new}[')],
        root / "uv.lock": [(rf'"{old}"', f'"{new}"')],
        root / "app" / "__init__.py": [(r'(?m)^NAME = "[^"]*"$', f'NAME = "{name}"')],
    }
    changed = [path for path, edits in changes.items() if path.is_file() and _edit(path, edits)]
    return [str(path.relative_to(root)) for path in changed]


def _edit(path: Path, edits: list[tuple[str, str]]) -> bool:
    before = after = path.read_text(encoding="utf-8")
    for pattern, replacement in edits:
        after = re.sub(pattern, replacement, after)
    if after != before:
        path.write_text(after, encoding="utf-8")
    return after != before


def main() -> int:
    """Rename this clone; return the exit code."""
    if len(sys.argv) != 2:  # noqa: PLR2004 - the script and its one argument
        print("usage: just rename NAME", file=sys.stderr)
        return 2
    try:
        changed = rename(ROOT, sys.argv[1])
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print("\n".join(f"changed {name}" for name in changed) or "nothing to change")
    return 0


if __name__ == "__main__":
    sys.exit(main())
