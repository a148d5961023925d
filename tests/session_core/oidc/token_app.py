"""The small application with a login as a separate process, configured by environment variables.

- TEST_STORE: the store's URL.
- TEST_OP: the port on which the provider listens.
- TEST_TIMEOUT: seconds for a call to the provider.
- TEST_LEASE: seconds after which a holder that does not renew its lease counts as dead.
- TEST_CLOCK: milliseconds by which this process's clock is wrong.
- TEST_DIE_ON: the event at which the process is killed.
- TEST_BROKEN: the part that is disabled.
"""

from __future__ import annotations

import asyncio
import os
import signal

import httpx2
from litestar import Litestar, get, post
from litestar.params import FromQuery

from session_core import Event, Session, SessionPlugin, SystemClock
from session_core.oidc import OidcConfig, OidcPlugin, OidcProvider, Tokens
from session_core.oidc.tokens.lease import HeldLease, LeaseWatch
from session_core.oidc.tokens.vault import Lease
from session_core.sealing import SealingKeys
from tests.session_core.oidc.fake_op import CLIENT_ID, CLIENT_SECRET, ISSUER, PUBLIC_URL
from tests.support.sessions import HANDLERS, AppSession, make_config


class WrongClock(SystemClock):
    def now(self) -> int:
        return super().now() + int(os.environ.get("TEST_CLOCK", "0"))


class ToTheRealAddress(httpx2.AsyncHTTPTransport):
    """Replaces name resolution and TLS: maps the provider's name to its local address."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        request.url = request.url.copy_with(scheme="http", host="127.0.0.1", port=int(os.environ["TEST_OP"]))
        return await super().handle_async_request(request)


waiting: list[str] = []


@get("/token-now")
async def token_now(session: Session[AppSession], tokens: Tokens, refused: FromQuery[str | None] = None) -> str:
    waiting.append("one")
    try:
        return await tokens.access_token(session, refused=refused)
    finally:
        waiting.pop()


@get("/waiting")
async def how_many_wait() -> int:
    return len(waiting)


@post("/regenerate-now")
async def regenerate_now(session: Session[AppSession]) -> None:
    await session.regenerate()


def listen(event: Event) -> None:
    if event.name == os.environ.get("TEST_DIE_ON"):
        os.kill(os.getpid(), signal.SIGKILL)


def break_what_is_named(broken: str) -> None:
    if broken == "lease":

        def always(self: LeaseWatch, lease: Lease) -> bool:
            return True

        LeaseWatch.may_take = always  # type: ignore[method-assign]
    elif broken == "renewal":

        async def never(self: HeldLease) -> None:
            await asyncio.Event().wait()

        HeldLease._beat = never  # type: ignore[method-assign]


def make_app() -> Litestar:
    break_what_is_named(os.environ.get("TEST_BROKEN", ""))
    sessions = SessionPlugin(
        make_config(
            store=os.environ["TEST_STORE"], store_timeout=30, clock=WrongClock(), public_url=PUBLIC_URL, on_event=[listen]
        )
    )
    provider = OidcProvider(issuer=ISSUER, client_id=CLIENT_ID, client_secret=CLIENT_SECRET)
    login = OidcPlugin(
        OidcConfig(
            providers=[provider],
            public_url=PUBLIC_URL,
            sealing=SealingKeys([b"k" * 32]),
            http_timeout_seconds=float(os.environ.get("TEST_TIMEOUT", "60")),
            transport=ToTheRealAddress(),
        )
    )
    handlers = [*HANDLERS, token_now, how_many_wait, regenerate_now]
    made = Litestar(handlers, plugins=[sessions, login], openapi_config=None, logging_config=None)
    if "TEST_LEASE" in os.environ:
        login.tokens.refresh.lease_seconds = float(os.environ["TEST_LEASE"])
    return made


app = make_app() if "TEST_STORE" in os.environ else None
