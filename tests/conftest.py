"""What all tests share: one event loop, a clock that stands still, an application to try sessions in."""

from __future__ import annotations

import pytest

from session_core.testing import FakeClock
from tests.support.security_marks import (  # noqa: F401 - pytest finds its hooks here
    pytest_collection_modifyitems,
    pytest_configure,
    pytest_runtest_makereport,
    pytest_sessionfinish,
    pytest_sessionstart,
    pytest_terminal_summary,
)


@pytest.fixture
def anyio_backend() -> str:
    """Run on asyncio, as servers do."""
    return "asyncio"


@pytest.fixture
def clock() -> FakeClock:
    """A clock that only moves when a test says so."""
    return FakeClock()
