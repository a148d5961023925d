"""The types of the public API hold under both type checkers, and a wrong use is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent

WRONG = """
from tests.typing.session_types import Shop
from session_core import SessionConfig, SessionHandle

async def wrong(session: SessionHandle[Shop]) -> None:
    session.data.visits = "many"
    session.data.nonsense
    session.identity.subject
    await session.update(lambda data: 5)

SessionConfig(dict)
"""


def test_mypy_accepts_correct_types_and_refuses_wrong_ones(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.py"
    wrong.write_text(WRONG)
    # It also checks what the file imports: `session_types.py` and the library.
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", f"--cache-dir={tmp_path / 'cache'}", str(wrong)]
    refused = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    found = [line.split(":")[:2] for line in refused.stdout.splitlines() if ": error:" in line]
    assert {(Path(file).name, int(line)) for file, line in found} == {("wrong.py", line) for line in (6, 7, 8, 9, 11)}


@pytest.mark.parametrize("name", ["session_core"])
def test_the_package_is_marked_as_typed(name: str) -> None:
    assert (ROOT / name / "py.typed").exists()
