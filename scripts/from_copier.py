"""Carries out the answers given to copier, on the copy that it has made. Run by copier.yml, in the copy.

python scripts/from_copier.py TITLE demo|no-demo SESSION_STORE DATABASE_URL
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from eject import eject
from rename import rename

ROOT: Final = Path(__file__).resolve().parent.parent
_DEFAULT: Final = "sqlite+aiosqlite:///var/app.db"


def main() -> int:
    """Rename, eject, and note where the data is in `.env`, unless there is one; return the exit code."""
    title, demo, store, database = sys.argv[1:]
    try:
        rename(ROOT, title)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if demo == "no-demo":
        eject(ROOT)
    # It is about the template, which the copy is not.
    (ROOT / "tests" / "app" / "test_template.py").unlink(missing_ok=True)
    chosen = {"SESSION_STORE": store, "DATABASE_URL": database}
    lines = [f"{name}={value}\n" for name, value in chosen.items() if value != _DEFAULT]
    env = ROOT / ".env"
    if lines and not env.exists():
        env.write_text("".join(lines), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
