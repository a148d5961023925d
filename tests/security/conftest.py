"""The application under attack, one for each test."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
import structlog

from app.database import migrate
from session_core.testing import FakeClock
from tests.hostile_op.provider import HostileOp
from tests.security.site import Site, running_site

StartSite = Callable[..., AbstractAsyncContextManager[Site]]


@pytest.fixture(autouse=True)
def global_state_is_restored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Settings come from the test alone, and what the application sets for its process is undone."""
    for name in os.environ:
        if name.startswith(("SESSION_", "OIDC_", "APP_", "DATABASE_", "TRUSTED_", "PUBLIC_", "LITESTAR_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    root, configuration = logging.getLogger(), structlog.get_config()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    structlog.configure(**configuration)


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An empty, migrated database, made once: a copy costs nothing."""
    file = tmp_path_factory.mktemp("database") / "empty.db"
    migrate(f"sqlite+aiosqlite:///{file}")
    return file.read_bytes()


@pytest.fixture
def start_site(tmp_path: Path, migrated_file: bytes, clock: FakeClock) -> StartSite:
    """Start an application with some settings; use it as `async with start_site(...) as site`."""

    def start(**overrides: Any) -> AbstractAsyncContextManager[Site]:
        file = tmp_path / "app.db"
        if not file.exists():
            file.write_bytes(migrated_file)
        return running_site(file, clock, **overrides)

    return start


@pytest.fixture
async def op(clock: FakeClock) -> AsyncIterator[HostileOp]:
    """The provider, before anybody has asked it for anything."""
    async with HostileOp(lambda: clock.now() / 1000) as running:
        yield running


@pytest.fixture
async def site(start_site: StartSite, op: HostileOp) -> AsyncIterator[Site]:
    """The reference application and its hostile provider."""
    async with start_site(op=op) as running:
        yield running
