"""The reference application over real HTTP with a hostile provider, and its output: events, log, store."""

from __future__ import annotations

import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvicorn
from pydantic import SecretStr

from app.asgi import create_app
from app.services import Services
from app.settings.settings import Settings
from session_core import Event, Identity, SessionPlugin
from session_core.cookies import cookie_name
from session_core.oidc import OidcPlugin
from session_core.sessions.notes import is_note
from session_core.stores.base import StoredSession
from session_core.testing import FakeClock, logged_in_cookie
from tests.support.application_state import KEY, SECRET
from tests.support.hostile_op.browser import Browser, Page
from tests.support.hostile_op.grants import CLIENT_ID, CLIENT_SECRET
from tests.support.hostile_op.misbehaviour import Misbehaviour
from tests.support.hostile_op.provider import HostileOp

CALLBACK = "/auth/callback"


class LogLines(logging.Handler):
    """Collects log records before redaction."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        trace = logging.Formatter().formatException(record.exc_info) if record.exc_info else ""
        self.lines.append(f"{record.levelname} {record.name} {record.msg!r} {record.args!r} {trace}")


class Site:
    """The application, its provider and their observable state."""

    def __init__(self, url: str, settings: Settings, op: HostileOp, clock: FakeClock) -> None:
        self.url, self.op, self.clock, self.settings = url, op, clock, settings
        self.app = create_app(settings, clock=clock)
        self.cookie = cookie_name("session", url)
        self.plugin = self.app.plugins.get(SessionPlugin)
        self.login_plugin = self.app.plugins.get(OidcPlugin)
        self.services: Services = self.app.state["services"]
        self.events: list[Event] = []
        sent = self.plugin.sessions.events
        sent._listeners = (*sent._listeners, self.events.append)
        self.log = LogLines()
        self._browsers: list[Browser] = []

    @property
    def callback(self) -> str:
        return f"{self.url}{CALLBACK}"

    def browser(self) -> Browser:
        opened = Browser(lambda: self.clock.now() / 1000)
        self._browsers.append(opened)
        return opened

    async def close_browsers(self) -> None:
        for browser in self._browsers:
            await browser.close()

    async def login(self, browser: Browser, misbehaviour: Misbehaviour | None = None, path: str = "/auth/login") -> Page:
        """Click "Log in" on the start page and follow all redirects."""
        if misbehaviour is not None:
            self.op.next_login(misbehaviour)
        return await browser.tab(f"{self.url}/").follow(path)

    async def response_address(
        self, browser: Browser, misbehaviour: Misbehaviour | None = None, path: str = "/auth/login"
    ) -> str:
        """Follow the login up to the provider and return the redirect back, which the browser has not followed yet."""
        if misbehaviour is not None:
            self.op.next_login(misbehaviour)
        tab = browser.tab(f"{self.url}/")
        browser.stop_at = self.callback
        try:
            return (await tab.follow(path)).url
        finally:
            browser.stop_at = None

    async def come_back(self, browser: Browser, address: str) -> Page:
        """Follow the provider's redirect to the callback."""
        return await browser.tab(f"{self.op.issuer}/").follow(address)

    async def who(self, browser: Browser) -> str | None:
        """The logged-in user by the application's response, requested with all cookies of the browser."""
        page = await browser.tab(f"{self.url}/").fetch("/api/me")
        assert page.status in {200, 401, 403}, page.status
        return str(page.json()["subject"]) if page.status == 200 else None

    async def begin_anonymous(self, browser: Browser) -> None:
        page = await browser.tab(f"{self.url}/").fetch("/api/session", "PATCH", data={"note": "before"})
        assert page.status == 200, page.text

    async def enter(self, browser: Browser, subject: str) -> None:
        """Log a user in without a request to the provider."""
        identity = Identity(issuer=self.op.issuer, subject=subject, sid=f"sid-of-{subject}", auth_time=self.clock.now() // 1000)
        await self.services.users.remember(identity, {"name": subject.title(), "email": f"{subject}@example.org"})
        name, value = await logged_in_cookie(self.app, identity)
        browser.jar.toss(name, value, "localhost", host_only=True)
        browser.jar.ever.add(value)

    async def stored(self) -> dict[str, StoredSession]:
        """Every session in the store by key, without the store's other entries."""
        return {each.key: each async for each in self.plugin.store.scan() if not is_note(each.entry.data)}

    def reasons(self, name: str = "login.failed") -> list[str | None]:
        return [event.reason for event in self.events if event.name == name]


class _Server(uvicorn.Server):
    """Without the loop that polls for a signal every 100 ms."""

    @asynccontextmanager
    async def running(self, listening: socket.socket) -> AsyncIterator[None]:
        self.config.load()
        self.lifespan = self.config.lifespan_class(self.config)
        await self.startup(sockets=[listening])
        try:
            yield
        finally:
            self.force_exit = True
            await self.shutdown(sockets=[listening])
            # `force_exit` skips these.
            await self.lifespan.shutdown()


def settings_for(url: str, op: HostileOp, database: Path, **overrides: Any) -> Settings:
    values: dict[str, Any] = {
        "public_url": url,
        "session_store": "memory://",
        "database_url": f"sqlite+aiosqlite:///{database}",
        "session_secrets": (SecretStr(SECRET),),
        "session_encryption_keys": (SecretStr(KEY),),
        "oidc_issuer": op.issuer,
        "oidc_client_id": CLIENT_ID,
        "oidc_client_secret": SecretStr(CLIENT_SECRET),
        "limit_logins": 0,
        "_env_file": None,
    }
    further = overrides.pop("further", ())
    settings = Settings(**{**values, **overrides})
    settings._further = further
    return settings


@asynccontextmanager
async def running_site(database: Path, clock: FakeClock, *, op: HostileOp | None = None, **overrides: Any) -> AsyncIterator[Site]:
    """Start the application and, unless one is given, a provider."""
    if op is None:
        async with HostileOp(lambda: clock.now() / 1000) as own, running_site(database, clock, op=own, **overrides) as site:
            yield site
        return
    # The protocol is named: otherwise asyncio leaves Nagle's algorithm on, and every second response waits for an ACK.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listening:
        listening.bind(("127.0.0.1", 0))
        url = f"http://localhost:{listening.getsockname()[1]}"
        site = Site(url, settings_for(url, op, database, **overrides), op, clock)
        op.backchannel_uri, op.frontchannel_uri = f"{url}/auth/backchannel-logout", ""
        config = uvicorn.Config(site.app, log_config=None, access_log=False, ws="none", lifespan="on")
        logging.getLogger().addHandler(site.log)
        try:
            async with _Server(config).running(listening):
                yield site
        finally:
            await site.close_browsers()
            logging.getLogger().removeHandler(site.log)
