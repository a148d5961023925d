"""The application under attack, a new one for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from session_core.testing import FakeClock
from tests.security.site import Site, running_site
from tests.support.application_state import (  # noqa: F401 - fixtures
    empty_database,
    global_state_is_restored,
    migrated_file,
    templates_are_compiled_once,
)
from tests.support.hostile_op.provider import HostileOp

StartSite = Callable[..., AbstractAsyncContextManager[Site]]


@pytest.fixture
def start_site(database: Path, clock: FakeClock) -> StartSite:
    """Start an application with these settings: `async with start_site(...) as site`."""

    def start(**overrides: Any) -> AbstractAsyncContextManager[Site]:
        return running_site(database, clock, **overrides)

    return start


@pytest.fixture
async def op(clock: FakeClock) -> AsyncIterator[HostileOp]:
    """The provider, before its first request."""
    async with HostileOp(lambda: clock.now() / 1000) as running:
        yield running


@pytest.fixture
async def site(start_site: StartSite, op: HostileOp) -> AsyncIterator[Site]:
    """The reference application and its hostile provider."""
    async with start_site(op=op) as running:
        yield running
