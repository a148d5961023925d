"""Writes the tables of docs/security.md from a run of the tests that carry a requirement's id.

    uv run just security

Nothing is written when a test failed, or when a requirement has neither a test that passed nor an entry.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any, Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parent.parent
PAGE: Final = ROOT / "docs" / "security.md"
BEGIN: Final = "<!-- tables: generated -->"
END: Final = "<!-- end of tables -->"
_SHOWN: Final = 3
_TITLES: Final = {
    "modules": "OpenID Foundation: modules for relying parties",
    "flows": "Hostile inputs and flows",
    "asvs": "OWASP ASVS 5.0: login, session, tokens",
}


class Seen(NamedTuple):
    """One test: its pytest name, its ids, and its outcome."""

    name: str
    ids: tuple[str, ...]
    outcome: str


def ask_pytest(*options: str) -> list[Seen]:
    """Return all tests with an id, as reported by pytest."""
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "results.json"
        environment = {**os.environ, "SECURITY_RESULTS": str(file)}
        command = [sys.executable, "-m", "pytest", "-q", "-m", "attack", *options, *_files()]
        ran = subprocess.run(command, cwd=ROOT, env=environment, check=False, capture_output=True, text=True)
        if not file.exists():
            sys.exit(ran.stdout + ran.stderr)
        seen = json.loads(file.read_text(encoding="utf-8"))
    return [Seen(name, tuple(test["ids"]), test["outcome"]) for name, test in seen.items()]


def problems(seen: list[Seen], sections: dict[str, dict[str, Any]]) -> list[str]:
    """Return the reasons that prevent writing the page."""
    found = [f"{test.name}: {test.outcome}" for test in seen if test.outcome == "failed"]
    proved = {name for test in seen if test.outcome in {"passed", "collected"} for name in test.ids}
    for section in sections.values():
        found += [f"{name}: no test passed" for name, value in section.items() if isinstance(value, str) and name not in proved]
    return found


def tables(seen: list[Seen], sections: dict[str, dict[str, Any]]) -> str:
    """Return the tables as Markdown."""
    tests: dict[str, set[str]] = {}
    for test in seen:
        # Without parameters, because a further case is not another test. The folder distinguishes tests with the same name.
        for name in test.ids:
            tests.setdefault(name, set()).add(test.name.partition("[")[0])
    parts: list[str] = []
    for section, entries in sections.items():
        parts += ["", f"### {_TITLES[section]}", "", "| Id | What | Test | Result |", "|---|---|---|---|"]
        parts += [_row(name, value, sorted(tests.get(name, ()))) for name, value in entries.items()]
    return "\n".join([*parts, ""])


def with_tables(page: str, made: str) -> str:
    """Return the page with its tables replaced."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        message = f"{PAGE.name} has no place for the tables"
        raise ValueError(message)
    return f"{before}{BEGIN}\n{made}\n{END}{after}"


def requirements() -> dict[str, dict[str, Any]]:
    """Return the requirements by section."""
    return tomllib.loads((ROOT / "docs" / "security_requirements.toml").read_text(encoding="utf-8"))


def main() -> int:
    """Run the tests and write the page; return the exit code."""
    sections = requirements()
    seen = ask_pytest()
    if found := problems(seen, sections):
        print("\n".join(["docs/security.md is left as it was:", *found]), file=sys.stderr)
        return 1
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8"), tables(seen, sections)), encoding="utf-8")
    return 0


def _files() -> list[str]:
    """Return the files that may carry an id; reading all files would take longer."""
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    return [str(file.relative_to(ROOT)) for file in files if "attack" in file.read_text(encoding="utf-8")]


def _row(name: str, value: Any, tests: list[str]) -> str:  # noqa: ANN401 - a text or a table of the file
    if isinstance(value, str):
        return f"| {name} | {value} | {_names(tests)} | passed |"
    how = f"documented: {value['setting']}" if "setting" in value else f"not applicable: {value['not_applicable']}"
    return f"| {name} | {value['what']} | {_names(tests)} | {how} |"


def _names(tests: list[str]) -> str:
    shown = [f"`{test}`" for test in tests[:_SHOWN]]
    more = [f"and {len(tests) - _SHOWN} more"] if len(tests) > _SHOWN else []
    return "<br>".join([*shown, *more])


if __name__ == "__main__":
    sys.exit(main())
