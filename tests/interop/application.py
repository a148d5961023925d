"""A small application that logs in at a real provider, served over real HTTP so that the provider can call it."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from joserfc.jwk import ECKey
from litestar import Litestar, get

from session_core import Event, Identity, Session, SessionHandle, SessionPlugin, SystemClock
from session_core.guards import requires_acr, requires_login, requires_recent_login
from session_core.oidc import ClientKey, OidcConfig, OidcPlugin, OidcProvider, Tokens
from session_core.oidc.tokens.vault import TokenSet
from session_core.sealing import SealingKeys
from tests.interop.provider_process import Provider
from tests.security.site import _Server
from tests.support.hostile_op.browser import Browser, Page, Tab
from tests.support.sessions import HANDLERS, AppSession, make_config

SECRET = "a secret: 100% of the client's"
KEY = ECKey.generate_key("P-256", {"kid": "2026-11"})
OFFLINE: Mapping[str, Any] = {
    "scopes": ("openid", "profile", "email", "offline_access"),
    # It issues refresh tokens to a web application only after consent in the same login (OpenID Connect Core 11).
    "authorization_params": {"prompt": "consent"},
}

BY_KEY: Mapping[str, Any] = {
    "client_key": ClientKey(KEY.as_dict(private=True)),
    "token_endpoint_auth_method": "private_key_jwt",
}
PUBLIC: Mapping[str, Any] = {"client_secret": None, "token_endpoint_auth_method": "none"}


class AheadClock(SystemClock):
    """The wall clock plus an offset, so that tokens expire without waiting."""

    ahead_seconds = 0

    def now(self) -> int:
        return super().now() + 1000 * self.ahead_seconds


@get("/me", guards=[requires_login])
async def me(session: Session[AppSession]) -> dict[str, Any]:
    assert session.identity is not None
    return {"subject": session.identity.subject, "sid": session.identity.sid, "acr": session.identity.acr}


@get("/recent", guards=[requires_recent_login(minutes=5)])
async def recent() -> str:
    return "recent"


@get("/strong", guards=[requires_acr("phr")])
async def strong() -> str:
    return "strong"


@get("/token")
async def token(session: Session[AppSession], tokens: Tokens) -> str:
    return await tokens.access_token(session)


@get("/userinfo")
async def userinfo(session: Session[AppSession], tokens: Tokens) -> dict[str, Any]:
    return await tokens.userinfo(session)


class Application:
    """The application and its observable state."""

    def __init__(self, url: str, provider: Provider, client_id: str, **options: Any) -> None:
        self.url, self.provider, self.client_id = url, provider, client_id
        self.clock = AheadClock()
        self.events: list[Event] = []
        self.claims: Mapping[str, Any] = {}
        self.tokens: TokenSet | None = None
        self._browsers: list[Browser] = []
        if "client_key" not in options:
            options.setdefault("client_secret", SECRET)
        self.login_plugin = OidcPlugin(
            OidcConfig(
                providers=[OidcProvider(issuer=provider.issuer, client_id=client_id, allow_http=True, **options)],
                public_url=url,
                post_logout_path="/public",
                sealing=SealingKeys([b"k" * 32]),
                on_login=self._remember,
            )
        )
        self.sessions = SessionPlugin(
            make_config(store="memory://", clock=self.clock, public_url=url, on_event=[self.events.append])
        )
        handlers = [*HANDLERS, me, recent, strong, token, userinfo, self._held()]
        self.app = Litestar(handlers, plugins=[self.sessions, self.login_plugin], openapi_config=None, logging_config=None)

    def browser(self) -> Browser:
        opened = Browser(lambda: self.clock.now() / 1000)
        self._browsers.append(opened)
        return opened

    async def close(self) -> None:
        for browser in self._browsers:
            await browser.close()

    async def login(self, browser: Browser, query: str = "") -> Page:
        """Click "Log in" and follow all redirects."""
        return await self.home(browser).follow(f"/auth/login?next=/me{query}")

    def home(self, browser: Browser) -> Tab:
        return browser.tab(f"{self.url}/public")

    async def who(self, browser: Browser) -> str | None:
        """The logged-in user by the application's response, requested with all cookies of the browser."""
        page = await self.home(browser).fetch("/me")
        assert page.status in {200, 401}, page.text
        return str(page.json()["subject"]) if page.status == 200 else None

    async def held(self, browser: Browser) -> TokenSet:
        """The tokens in the session."""
        self.tokens = None
        page = await self.home(browser).fetch("/held")
        assert page.status == 200, page.text
        assert self.tokens is not None
        return self.tokens

    def reasons(self, name: str) -> list[str | None]:
        return [event.reason for event in self.events if event.name == name]

    async def _remember(self, identity: Identity, claims: Mapping[str, Any], session: SessionHandle[Any]) -> None:
        self.claims = claims

    def _held(self) -> Any:
        @get("/held")
        async def held(session: Session[AppSession]) -> None:
            await session.load()
            self.tokens = self.login_plugin.relying_parties.vault.open(session.vault, session.identity)

        return held


@asynccontextmanager
async def serve(application: Application, listening: socket.socket) -> AsyncIterator[Application]:
    """Serve on a duplicate of the socket, which stays open for the next application."""
    config = uvicorn.Config(application.app, log_config=None, access_log=False, ws="none", lifespan="on")
    try:
        async with _Server(config).running(listening.dup()):
            yield application
    finally:
        await application.close()
