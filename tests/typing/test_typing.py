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
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", f"--cache-dir={tmp_path / 'cache'}"]
    right = subprocess.run([*command, "tests/typing/session_types.py"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (right.returncode, right.stdout) == (0, "")
    refused = subprocess.run([*command, str(wrong)], cwd=ROOT, capture_output=True, text=True, check=False)
    lines = {int(line.split(":")[1]) for line in refused.stdout.splitlines() if ": error:" in line}
    assert lines == {6, 7, 8, 9, 11}


@pytest.mark.parametrize("name", ["session_core"])
def test_the_package_is_marked_as_typed(name: str) -> None:
    assert (ROOT / name / "py.typed").exists()
