"""Applies the answers given to copier to the new copy. Run by copier.yml, in the copy.

python scripts/from_copier.py TITLE demo|no-demo folder|dependency SESSION_STORE DATABASE_URL
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from typing import Final

from eject import eject
from rename import rename
from use_release import use_release

ROOT: Final = Path(__file__).resolve().parent.parent
_DEFAULT: Final = "sqlite+aiosqlite:///var/app.db"


def main() -> int:
    """Rename, eject, use the release, and write the data's location to a new `.env`; return the exit code."""
    title, demo, library, store, database = sys.argv[1:]
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    try:
        rename(ROOT, title)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if demo == "no-demo":
        eject(ROOT)
    if library == "dependency":
        use_release(ROOT, version)  # the first `uv run` updates uv.lock
    # It is about the template, not about the copy.
    (ROOT / "tests" / "app" / "test_template.py").unlink(missing_ok=True)
    chosen = {"SESSION_STORE": store, "DATABASE_URL": database}
    lines = [f"{name}={value}\n" for name, value in chosen.items() if value != _DEFAULT]
    env = ROOT / ".env"
    if lines and not env.exists():
        env.write_text("".join(lines), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
