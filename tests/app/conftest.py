"""The reference application with its own database, a frozen clock and a way to log in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import httpx
import msgspec
import pytest
from litestar import Litestar

from app.asgi import create_app
from app.services import Services
from app.session_data import AppSession
from app.settings.settings import Settings
from session_core import Device, Identity, SessionPlugin
from session_core.testing import FakeClock
from tests.support.application_state import (  # noqa: F401 - fixtures
    NO_PROVIDER,
    empty_database,
    global_state_is_restored,
    migrated_file,
    settings_over,
    templates_are_compiled_once,
)

ISSUER = NO_PROVIDER


class Running:
    """A running application, and clients for it."""

    def __init__(self, app: Litestar, clock: FakeClock) -> None:
        self.app = app
        self.clock = clock
        self.plugin = app.plugins.get(SessionPlugin)
        self.services: Services = app.state["services"]

    def client(self, **headers: str) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(cast("Any", self.app), raise_app_exceptions=False)
        return httpx.AsyncClient(transport=transport, base_url="http://localhost:8000", headers=headers)

    def browser(self) -> httpx.AsyncClient:
        """A client with the headers of a browser that navigates to pages."""
        agent = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
        return self.client(**{"accept": "text/html,*/*;q=0.8", "sec-fetch-site": "same-origin", "user-agent": agent})

    async def log_in(
        self,
        client: httpx.AsyncClient,
        subject: str = "alice",
        *,
        roles: tuple[str, ...] = ("user",),
        minutes_ago: int = 0,
        data: AppSession | None = None,
    ) -> Identity:
        """Give the client a session of a user, as a login would."""
        auth_time = self.clock.now() // 1000 - minutes_ago * 60
        identity = Identity(issuer=ISSUER, subject=subject, sid=f"op-{subject}", auth_time=auth_time)
        claims = {"name": subject.title(), "email": f"{subject}@example.org", "roles": list(roles)}
        await self.services.users.remember(identity, claims)
        encoded = msgspec.msgpack.encode(data or AppSession(), order="deterministic")
        device = Device(ip="192.0.2.7", user_agent="test")
        session_id, _ = await self.plugin.lifecycle.begin(encoded, device=device, identity=identity)
        config = self.plugin.config
        header = config.resolved_cookie.set_header(config.signer.sign(session_id), 3600).decode()
        name, _, value = header.partition(";")[0].partition("=")
        client.cookies.set(name, value, domain="localhost.local")
        return identity


Start = Callable[..., AbstractAsyncContextManager[Running]]


@pytest.fixture
def make_settings(database: Path) -> Callable[..., Settings]:
    """Settings for one application; anything can be overridden."""
    return partial(settings_over, database)


@pytest.fixture
def start(make_settings: Callable[..., Settings], clock: FakeClock) -> Start:
    """Start an application with these settings: `async with start(...) as running`."""

    @asynccontextmanager
    async def running(**overrides: Any) -> AsyncIterator[Running]:
        app = create_app(make_settings(**overrides), clock=clock)
        async with app.lifespan():
            yield Running(app, clock)

    return running


@pytest.fixture
async def running(start: Start) -> AsyncIterator[Running]:
    """The application with default settings and a memory store."""
    async with start() as application:
        yield application


@pytest.fixture
async def client(running: Running) -> AsyncIterator[httpx.AsyncClient]:
    """An API client that is not logged in."""
    async with running.client() as http:
        yield http
