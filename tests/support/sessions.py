"""A small application with real sessions, and inspection of its responses."""

from __future__ import annotations

from typing import Any, Literal, cast

import httpx
import msgspec
from litestar import Litestar, Request, delete, get, patch, post
from litestar.handlers import BaseRouteHandler
from litestar.params import FromPath, JSONBody

from session_core import Identity, Session, SessionConfig, SessionHandle, SessionPlugin, Sessions
from session_core.events import Event
from tests.support.presented import PresentedId

SECRET = "0123456789abcdef0123456789abcdef-first"
ISSUER = "https://op.example"
ALICE = Identity(issuer=ISSUER, subject="alice", sid="op-1", auth_time=1_700_000_000)
BOB = Identity(issuer=ISSUER, subject="bob", sid="op-2", auth_time=1_700_000_000)


class AppSession(msgspec.Struct):
    theme: Literal["light", "dark"] = "light"
    cart: list[str] = []
    visits: int = 0
    note: str = ""
    roles: list[str] = []


class Changes(msgspec.Struct):
    theme: Literal["light", "dark"] | None = None
    note: str | None = None
    add: str | None = None


@get("/public")
async def public() -> str:
    return "public"


@get("/read")
async def read(session: Session[AppSession]) -> dict[str, Any]:
    return {
        "data": msgspec.to_builtins(session.data),
        "subject": session.identity.subject if session.identity else None,
        "exists": session.exists,
    }


@post("/visit")
async def visit(session: Session[AppSession]) -> dict[str, int]:
    def bump(data: AppSession) -> None:
        data.visits += 1

    return {"visits": (await session.update(bump)).visits}


@patch("/assign")
async def assign(session: Session[AppSession], data: JSONBody[Changes]) -> dict[str, Any]:
    if data.theme is not None:
        session.data.theme = data.theme
    if data.note is not None:
        session.data.note = data.note
    if data.add is not None:
        session.data.cart.append(data.add)
    return msgspec.to_builtins(session.data)  # type: ignore[no-any-return]


@post("/login/{subject:str}")
async def login(session: Session[AppSession], subject: FromPath[str]) -> None:
    await session.login(Identity(issuer=ISSUER, subject=subject, sid=f"op-{subject}", auth_time=1_700_000_000))


@post("/regenerate")
async def regenerate(session: Session[AppSession]) -> None:
    await session.regenerate()


@post("/logout")
async def logout(session: Session[AppSession]) -> None:
    await session.destroy()


@delete("/sessions")
async def end_all(session: Session[AppSession], sessions: Sessions) -> None:
    if session.identity:
        await sessions.revoke_all(session.identity)


@get("/fails")
async def fails(session: Session[AppSession]) -> None:
    session.data.note = "must not be saved"
    msg = "handler failed"
    raise RuntimeError(msg)


@post("/act-as/{subject:str}")
async def act_as(session: Session[AppSession], subject: FromPath[str]) -> None:
    await session.impersonate(Identity(issuer=ISSUER, subject=subject))


@post("/act-as-myself")
async def act_as_myself(session: Session[AppSession]) -> None:
    await session.end_impersonation()


HANDLERS = [public, read, visit, assign, login, regenerate, logout, end_all, fails]


def make_config(**options: Any) -> SessionConfig[AppSession]:
    options.setdefault("secrets", (SECRET,))
    options.setdefault("sweep_interval", 0)
    options.setdefault("store_timeout", 20)  # also on a busy machine
    return SessionConfig(AppSession, **options)


def make_app(*handlers: Any, config: SessionConfig[AppSession] | None = None, **options: Any) -> Litestar:
    """An application with the usual handlers and those given."""
    plugin = SessionPlugin(config or make_config(**options))
    # The framework's default starts a thread for each application, which would keep a test's own sys.stderr.
    return Litestar([*HANDLERS, *handlers], plugins=[plugin], openapi_config=None, logging_config=None)


def plugin_in(app: Litestar) -> SessionPlugin:
    return app.plugins.get(SessionPlugin)


def handle_on(plugin: SessionPlugin, session_id: str | None = None) -> Any:
    """The handle that a request with this id would get; its type is the application's."""
    return SessionHandle(plugin.lifecycle, PresentedId(session_id))


def client_of(app: Litestar, **options: Any) -> httpx.AsyncClient:
    """A client whose requests run in the test's event loop, so that they really overlap."""
    options.setdefault("base_url", "http://127.0.0.1:8000")
    transport = httpx.ASGITransport(cast("Any", app), raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, **options)


def cookie_of(client: httpx.AsyncClient) -> str | None:
    """The session cookie the client would send."""
    return client.cookies.get("session-8000")


class Recorder:
    """An event listener that records events."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        self.events.append(event)

    @property
    def names(self) -> list[str]:
        return [event.name for event in self.events]


async def session_guard(connection: Request[Any, Any, Any], handler: BaseRouteHandler) -> None:
    del connection, handler


AnyHandle = SessionHandle[AppSession]
