"""Applies the answers given to copier to the new copy. Run by copier.yml, in the copy.

python scripts/from_copier.py TITLE demo|no-demo folder|dependency SESSION_STORE DATABASE_URL
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path
from typing import Final

from eject import eject
from rename import rename
from use_release import use_release

ROOT: Final = Path(__file__).resolve().parent.parent
_DEFAULT: Final = "sqlite+aiosqlite:///var/app.db"
_EXTRAS: Final = {"postgresql+asyncpg": "postgresql", "mysql+asyncmy": "mysql"}
_IN_APP: Final = re.compile(r'(?ms)^(app = \[\n *"[\w-]+\[[^]]+)')


def main() -> int:
    """Rename, eject, require drivers, use the release, and write the data's location to a new `.env`; return the exit code."""
    title, demo, library, store, database = sys.argv[1:]
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    try:
        rename(ROOT, title)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if demo == "no-demo":
        eject(ROOT)
    _require({_EXTRAS[kind] for url in (store, database) if (kind := url.partition(":")[0]) in _EXTRAS})
    if library == "dependency":
        use_release(ROOT, version)
    # It is about the template, not about the copy.
    (ROOT / "tests" / "app" / "test_template.py").unlink(missing_ok=True)
    chosen = {"SESSION_STORE": store, "DATABASE_URL": database}
    lines = [f"{name}={value}\n" for name, value in chosen.items() if value != _DEFAULT]
    env = ROOT / ".env"
    if lines and not env.exists():
        env.write_text("".join(lines), encoding="utf-8")
    return 0


def _require(extras: set[str]) -> None:
    """Have the application installed with these extras of the library. The first `uv run` brings uv.lock up to date."""
    pyproject = ROOT / "pyproject.toml"
    text = _IN_APP.sub(lambda found: ",".join([found[1], *sorted(extras)]), pyproject.read_text("utf-8"), count=1)
    pyproject.write_text(text, "utf-8")


if __name__ == "__main__":
    sys.exit(main())
