"""Shared by all tests: one event loop, a frozen clock, a test application."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from session_core.testing import FakeClock
from tests.app.processes import OUR_SETTINGS

pytest_plugins = (
    "tests.support.bytecode",
    "tests.support.long_run",
    "tests.support.patience",
    "tests.support.security_marks",
    "tests.support.trusted_authorities",
    "tests.support.virtual_time",
)

_TESTS = Path(__file__).parent
_OF_THE_LIBRARY = {
    "auth_demo",  # demo:line
    "benchmarks",
    "docs",
    "e2e",  # demo:line
    "interop",
    "session_core",
    "simulation",
    "typing",
}


@pytest.fixture(autouse=True)
def no_settings_and_no_database(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run application tests in an empty directory without settings, so that `.env` and `var/app.db` stay unchanged."""
    if request.path.relative_to(_TESTS).parts[0] in _OF_THE_LIBRARY:
        return
    for name in [name for name in os.environ if name.startswith(OUR_SETTINGS)]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(request.getfixturevalue("tmp_path"))


@pytest.fixture
def anyio_backend() -> str:
    """Run on asyncio, as servers do."""
    return "asyncio"


@pytest.fixture
def clock() -> FakeClock:
    """A clock that moves only when a test moves it."""
    return FakeClock()
